#!/usr/bin/env bash
# Type-checks the CUDA path on a machine without CUDA.
#
# Candle's build compiles its kernels with nvcc. A stand-in prints a release banner and makes empty
# output files, so that everything but the kernels is checked; what it builds must never be linked.
# With a real toolkit: cargo build --release --features cuda.
set -euo pipefail
cd "$(dirname "$0")/.."

stand_in=$(mktemp -d)
trap 'rm -rf "$stand_in"' EXIT
mkdir -p "$stand_in/bin" "$stand_in/include" "$stand_in/lib64"
cat > "$stand_in/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
# Prints what build scripts ask for, and touches what they wait for.
case "$*" in
  *--version*) echo "Cuda compilation tools, release 13.0, V13.0.48"; exit 0 ;;
  *--list-gpu-code*) echo "sm_80"; exit 0 ;;
esac
inputs=()
out_dir=.
while [ $# -gt 0 ]; do
  case "$1" in
    -o|--output-file) : > "$2"; shift ;;
    --output-directory|-odir) out_dir=$2; shift ;;
    *.cu) inputs+=("$1") ;;
  esac
  shift
done
for input in "${inputs[@]}"; do
  : > "$out_dir/$(basename "${input%.cu}").ptx"
done
NVCC
chmod +x "$stand_in/bin/nvcc"
cp "$stand_in/bin/nvcc" "$stand_in/bin/nvidia-smi"

export CUDA_HOME="$stand_in" CUDA_PATH="$stand_in" CUDA_ROOT="$stand_in" CUDA_TOOLKIT_ROOT_DIR="$stand_in"
export CUDA_COMPUTE_CAP=80 CUDARC_CUDA_VERSION=13000 NVCC="$stand_in/bin/nvcc"
export PATH="$stand_in/bin:$PATH"
CARGO_TARGET_DIR=target/cuda-check cargo clippy --package metron-llm --features cuda -- -D warnings
