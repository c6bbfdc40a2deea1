#!/usr/bin/env python3
"""How fast saved traces are scored, against a plain Python formulation on the same timelines.

    python3 scripts/scoring-speed.py [--requests N] [--tokens N] [--seed N]

Draws timelines, writes them as a result of Etalon, imports that with `metron import`, and scores
the trace with `cargo bench` on one core: the fluidity-index of every request from its timeline (when
each of its tokens came), and that together with its least decode deadline, which is what the fluid
token generation rate takes. How long the trace's tables take to become timelines, which Python is
given, is printed beside. The Python functions
follow the original tool's (project-etalon/etalon, metric_utils.py): misses counted with float `//`,
and a bisection to 0.1 ms where Metron solves exactly. Both must count the same misses. Figures are
those of the least disturbed repetition. Fails if Metron is less than 30 and 35 times as fast.

Needs python3 and cargo.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_S, NEXT_S, MISS_RATE = 0.3, 0.025, 0.1
REPEATS = {"index": 9, "index-and-rate": 3}
BARS = {"index": 30, "index-and-rate": 35}


def count(gaps, first_s, next_s, with_first=True):
    """Deadlines missed, and all deadlines."""
    missed = total = 0
    slack = 0.0
    for i, gap in enumerate(gaps):
        if i == 0 and not with_first:
            continue
        due = next_s if i else first_s
        if gap <= due + slack:
            slack += due - gap
            total += 1
            continue
        late = (gap - slack) // next_s if i else 1 + (gap - slack - first_s) // next_s
        missed += late
        total += late
        slack = 0.0
    return missed, total


def least_deadline(gaps):
    """The least decode deadline that misses a tenth at most, to 0.1 ms; without the first token."""
    low, high, step, least = 0.0, 1e10, 1e-4, 1e10
    while high - low > step:
        middle = (low + high) / 2
        missed, total = count(gaps, 0.0, middle, with_first=False)
        if total and missed / total > MISS_RATE:
            low = middle + step
        else:
            least, high = middle, middle - step
    return least


def index(streams):
    counts = [count(gaps, FIRST_S, NEXT_S) for gaps in streams]
    return [int(sum(column)) for column in zip(*counts)]


def index_and_rate(streams):
    counts = index(streams)
    for gaps in streams:
        least_deadline(gaps)
    return counts


def draw(requests, tokens, seed):
    """Gaps around the deadline, one in fifty a stall, as a loaded server's are."""
    rng = random.Random(seed)

    def gap():
        return 0.1 + 0.4 * rng.random() if rng.random() < 0.02 else 0.012 + 0.016 * rng.random()

    return [[0.4 * rng.random()] + [gap() for _ in range(tokens - 1)] for _ in range(requests)]


def result_of_etalon(streams):
    return {
        "num_prompt_tokens": [1] * len(streams),
        "num_output_tokens": [len(gaps) for gaps in streams],
        "ttft": [gaps[0] for gaps in streams],
        "tbt": [gaps[1:] for gaps in streams],
    }


def seconds(function, streams, repeats):
    def once():
        start = time.perf_counter()
        function(streams)
        return time.perf_counter() - start

    return min(once() for _ in range(repeats))


def cargo(*arguments, **environment):
    command = ["cargo", *arguments]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, stdout=sys.stderr)


def metron(*arguments):
    program = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/metron"
    return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def check_counts(trace, streams):
    deadlines = ["--ttft-deadline", f"{FIRST_S}s", "--tbt-deadline", f"{NEXT_S}s"]
    scored = json.loads(metron("score", trace, "--rule", "etalon", "--json", *deadlines))
    fluidity = scored["comparison"]["policies"][0]["pooled"]["fluidity"]
    ours = [fluidity["missed"], fluidity["missed"] + fluidity["met"]]
    if ours != index(streams):
        sys.exit(f"Metron counts {ours}, Python {index(streams)}: missed deadlines, and all")


def measured(benchmark):
    """Seconds for all timelines, from criterion's record."""
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    record = target / "criterion/scoring" / benchmark / "new/sample.json"
    sample = json.loads(record.read_text())
    return min(time / runs for time, runs in zip(sample["times"], sample["iters"])) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    streams = draw(options.requests, options.tokens, options.seed)
    tokens = options.requests * options.tokens
    cargo("build", "--release", "--workspace")
    with tempfile.TemporaryDirectory() as directory:
        result, trace = Path(directory) / "request_level_metrics.json", Path(directory) / "trace"
        result.write_text(json.dumps(result_of_etalon(streams)))
        metron("import", "etalon", result, "-o", trace)
        check_counts(trace, streams)
        cargo("bench", "--workspace", "--bench", "metrics", "--", "scoring/", SCORING_TRACE=str(trace))
    functions = {"index": index, "index-and-rate": index_and_rate}
    python = {name: seconds(functions[name], streams, REPEATS[name]) for name in BARS}

    print(f"{options.requests} requests of {options.tokens} tokens, seed {options.seed}; million tokens/s on one core")
    print(f"{'':16}{'Python':>10}{'Metron':>10}{'ratio':>8}{'bar':>6}")
    missed = []
    for name, bar in BARS.items():
        ours, ratio = measured(name), python[name] / measured(name)
        print(f"{name:16}{tokens / python[name] / 1e6:10.3f}{tokens / ours / 1e6:10.1f}{ratio:8.0f}{bar:6}")
        if ratio < bar:
            missed.append(name)
    tables = measured("timelines")
    with_tables = [f"{python[name] / (measured(name) + tables):.0f}" for name in BARS]
    print(
        f"the trace's tables become timelines at {tokens / tables / 1e6:.1f} million tokens/s; "
        f"with that the ratios are {' and '.join(with_tables)}"
    )
    if missed:
        sys.exit(f"below the bar: {', '.join(missed)}")


if __name__ == "__main__":
    main()
