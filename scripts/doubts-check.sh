#!/usr/bin/env bash
# Whether a machine that other processes keep busy is doubted: the same run on a real model alone, and
# beside twice as many busy processes as there are processors. Prints the doubts of both and what the
# kernel counted, and fails if the loaded run is not doubted as busy by what was seen.
#
#   scripts/doubts-check.sh                                   # the default model, some 30 seconds
#   scripts/doubts-check.sh --model DIR --load-format dummy   # options of `metron run`
#
# The run alone shows whether this machine was quiet; on one that was not, it is doubted too.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --quiet
metron=${CARGO_TARGET_DIR:-target}/release/metron

work=$(mktemp -d)
busy=()
# shellcheck disable=SC2329 # the trap calls it
clean_up() {
  [ "${#busy[@]}" = 0 ] || kill "${busy[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap clean_up EXIT

run() {
  "$metron" run --quiet --input-len 128 --output-len 32 --num-prompts 12 --request-rate 2 \
    -o "$work/$1" "${@:2}" >/dev/null
}

run alone "$@"
for _ in $(seq $((2 * $(nproc)))); do
  # Should this script be killed, they end after two minutes of processor time.
  (ulimit -t 120; while :; do :; done) &
  busy+=($!)
done
run loaded "$@"

python3 - "$work" <<'PYTHON'
import json, sys

def seconds(span):
    return span["secs"] + span["nanos"] / 1e9

def told(name):
    metrics = json.load(open(f"{sys.argv[1]}/{name}/metrics.json"))
    seen = metrics["runs"][0]["header"]["machine"]["conditions"]
    print(f"{name}, for {seconds(seen['watched']):.1f} s:")
    for counter in ("cpu_pressure", "steal", "other_work"):
        value = seen[counter]
        print(f"  {counter}:", "not told" if value is None else f"{seconds(value):.2f} s")
    switches = seen["involuntary_switches"]
    print("  involuntary_switches:", "not told" if switches is None else switches)
    for doubt in metrics["doubts"]:
        print(f"  doubt {doubt['doubt']['kind']}: {doubt['finding']}")
    return seen, {doubt["doubt"]["kind"]: doubt["finding"] for doubt in metrics["doubts"]}

told("alone")
seen, doubts = told("loaded")
if seen["cpu_pressure"] is None and seen["involuntary_switches"] is None:
    sys.exit("this kernel tells neither pressure nor involuntary switches: nothing to see")
if "busy_machine" not in doubts:
    sys.exit("FAILED: the loaded run is not doubted as busy")
signs = {
    "cpu_pressure": "something waited for one",
    "other_work": "other processes kept",
    "involuntary_switches": "a thread of the run lost its own",
}
missing = [sign for counter, sign in signs.items()
           if seen[counter] is not None and sign not in doubts["busy_machine"]]
if missing:
    sys.exit(f"FAILED: the doubt does not say {missing}")
print("the loaded run is doubted, by what was seen")
PYTHON
