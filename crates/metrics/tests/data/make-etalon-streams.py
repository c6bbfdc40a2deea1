#!/usr/bin/env python3
"""Makes etalon_streams.json: what the original tool's functions say of seeded random streams.

    pip install numpy==2.4.6
    PYTHONPATH=ETALON python3 make-etalon-streams.py > etalon_streams.json

ETALON is a checkout of project-etalon/etalon on GitHub, commit d5f18de.

Gaps are whole nanoseconds; the original gets them as float seconds, `ns / 1e9`. Its floats are
strings here, since not every reader of JSON gives back the same float.
"""

import json
import random

import numpy as np
from etalon.metrics import metric_utils

MS = 1_000_000


def stream(rng):
    next_ns = rng.choice([25 * MS, 30 * MS, 50 * MS, 100 * MS, rng.randint(1, 80 * MS)])
    first_ns = rng.choice([0, 100 * MS, 300 * MS, rng.randint(0, 500 * MS)])
    kinds = [
        lambda: rng.randint(0, 3 * next_ns),
        lambda: rng.randint(0, 60) * MS,  # ties: on a grid of deadlines
        lambda: rng.randint(0, 12) * next_ns,
        lambda: 0,  # tokens of one step
        lambda: int(rng.expovariate(1 / (20 * MS))),
    ]
    favourite = rng.choice(kinds)
    length = rng.choice([0, 1, 2] + [rng.randint(3, 40)] * 9)
    gaps = [(favourite if rng.random() < 0.7 else rng.choice(kinds))() for _ in range(length)]
    return gaps, first_ns, next_ns


def main():
    rng = random.Random(6)
    streams = []
    for _ in range(250):
        gaps, first_ns, next_ns = stream(rng)
        seconds = [gap / 1e9 for gap in gaps]
        ignore = rng.random() < 0.5
        _, missed, total = metric_utils.get_request_level_deadline_miss_rate(
            seconds, first_ns / 1e9, next_ns / 1e9, ignore
        )
        least = metric_utils.find_min_tbt_deadline_to_meet(seconds, 0.1, 0, True)
        streams.append(
            {
                "gaps_ns": gaps,
                "first_ns": first_ns,
                "next_ns": next_ns,
                "ignore_first": ignore,
                "missed": missed,
                "total": total,
                "least_deadline_s": repr(least),
            }
        )
    decodes = [[gap / 1e9 for gap in s["gaps_ns"][1:]] for s in streams]
    tpots = [float(np.mean(tbt)) if tbt else 0.0 for tbt in decodes]
    _, tbt_based, deadline_based = metric_utils.get_throughput_metrics(tpots, decodes)
    lines = ",\n  ".join(json.dumps(s, separators=(",", ":")) for s in streams)
    print(
        f'{{\n "deadline_based_throughput": "{float(deadline_based)!r}",\n'
        f' "tbt_based_throughput": "{float(tbt_based)!r}",\n'
        f' "streams": [\n  {lines}\n ]\n}}'
    )


main()
