#!/usr/bin/env python3
"""Holds exported traces against what Perfetto's trace processor reads; see scripts/check-perfetto."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict

from browser import Browser
from viewer import Viewer, fetched

METRON = "target/release/metron"
# In virtual time, short of blocks, so that sequences are preempted; and real steps with operators.
RUNS = {
    "simulated": ["--simulate", "tests/it/data/cost.toml", "--scheduler", "vllm-v0",
                  "--num-prompts", "24", "--kv-blocks", "100"],
    "real": ["--load-format", "dummy", "--trace-operators", "--num-prompts", "6", "--request-rate",
             "inf", "--input-len", "64", "--output-len", "8", "--max-num-seqs", "4"],
}

SLICES = """
    select process.name, thread.name, slice.name, ts, dur, depth
    from slice join thread_track on track_id = thread_track.id
    join thread using (utid) join process using (upid)
    union all
    select process.name, process_track.name, slice.name, ts, dur, depth
    from slice join process_track on track_id = process_track.id join process using (upid)"""
COUNTERS = """
    select process.name, track.name, ts, value
    from counter join process_counter_track track on track_id = track.id
    join process using (upid)"""
ARGUMENTS = """
    select slice.name, ts, substr(flat_key, 6), coalesce(int_value, real_value, string_value)
    from slice join args using (arg_set_id) where flat_key glob 'args.*'"""
ERRORS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"


def nanoseconds(microseconds):
    return round(microseconds * 1000)


def number(value):
    """To twelve digits, as the trace processor's reader of decimals is off by the last bit at times."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


class Exported:
    """What a file of trace events says, as the rows that the trace processor should have."""

    def __init__(self, path):
        self.slices, self.counters, self.arguments = Counter(), Counter(), Counter()
        self.groups, self.tracks = {}, {}
        # Of each request: its track's name, and the slices that are open.
        self.open = defaultdict(list)
        for event in json.loads(path.read_text())["traceEvents"]:
            getattr(self, "read_" + event["ph"])(event)

    def read_M(self, event):
        if event["name"] == "process_name":
            self.groups[event["pid"]] = event["args"]["name"]
        else:
            self.tracks[event["pid"], event["tid"]] = event["args"]["name"]

    def read_X(self, event):
        track = self.tracks[event["pid"], event["tid"]]
        self.add(event, track, nanoseconds(event["dur"]), depth=0)

    def read_C(self, event):
        for key, value in event["args"].items():
            track = f"{event['name']} {key}"
            at = nanoseconds(event["ts"])
            self.counters[self.groups[event["pid"]], track, at, number(value)] += 1

    def read_b(self, event):
        self.open[event["id2"]["local"]].append(event)

    def read_e(self, event):
        open_slices = self.open[event["id2"]["local"]]
        track, depth = open_slices[0]["name"], len(open_slices) - 1
        began = open_slices.pop()
        assert began["name"] == event["name"], f"{event} ends {began}"
        took = nanoseconds(event["ts"]) - nanoseconds(began["ts"])
        self.add(began, track, took, depth)

    def read_n(self, event):
        open_slices = self.open[event["id2"]["local"]]
        self.add(event, open_slices[0]["name"], 0, depth=len(open_slices))

    def add(self, event, track, took, depth):
        at = nanoseconds(event["ts"])
        self.slices[self.groups[event["pid"]], track, event["name"], at, took, depth] += 1
        for key, value in event.get("args", {}).items():
            self.arguments[event["name"], at, key, number(value)] += 1

    def differences(self, viewer):
        """Of each kind of row: those that only one side has."""
        kinds = {
            "slices": (self.slices, SLICES),
            "counters": (self.counters, COUNTERS),
            "arguments": (self.arguments, ARGUMENTS),
        }
        for kind, (exported, sql) in kinds.items():
            read = Counter(tuple(map(number, row)) for row in viewer.query(sql))
            yield kind, exported - read, read - exported


def record(name, options, folder):
    """The saved trace of a run."""
    out = folder / name
    run = [METRON, "run", "--quiet", "-o", out, *options]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    return next(out.glob("*.trace"))


def check(name, viewer, traces, pictures):
    """Prints a line about one exported trace; whether Perfetto read all of it."""
    exported = Exported(traces / f"{name}.json")
    viewer.open(f"{name}.json")
    complaints = [f"Perfetto reports {what}: {count}" for what, count in viewer.query(ERRORS)]
    for kind, missing, unexpected in exported.differences(viewer):
        for what, rows in [("not read", missing), ("not exported", unexpected)]:
            if rows:
                example = next(iter(rows))
                complaints.append(f"{rows.total()} {kind} {what}, e.g. {example}")
    tracks = len({row[:2] for row in [*exported.slices, *exported.counters]})
    counts = [tracks, *(rows.total() for rows in
                        (exported.slices, exported.counters, exported.arguments))]
    counts.append(len(complaints))
    print(f"{name:<12}" + "".join(f"{count:>11}" for count in counts))
    for complaint in complaints:
        print(f"  {complaint}")
    viewer.picture(pictures / f"{name}.png")
    return not complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="*", type=pathlib.Path, help="saved traces to check instead")
    parser.add_argument("--pictures", type=pathlib.Path, help="where pictures of the viewer go")
    arguments = parser.parse_args()
    folder = pathlib.Path(os.environ.get("PERFETTO_DIR", "target/perfetto")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pictures = arguments.pictures or folder
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs:
        traces = {trace.resolve().name: trace for trace in arguments.traces} or {
            name: record(name, options, pathlib.Path(runs)) for name, options in RUNS.items()}
        for name, trace in traces.items():
            to = ["--format", "perfetto", "-o", folder / f"{name}.json"]
            subprocess.run([METRON, "export", trace, *to], check=True)
    heads = ["tracks", "slices", "counters", "arguments", "complaints"]
    print(" " * 12 + "".join(f"{head:>11}" for head in heads))
    with tempfile.TemporaryDirectory() as profile, Browser(profile, 1500, 1800) as browser, \
            Viewer(browser, fetched(folder), folder) as viewer:
        passed = [check(name, viewer, folder, pictures) for name in traces]
    print(f"Pictures of the viewer are in {pictures}")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
