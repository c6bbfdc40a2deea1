#!/usr/bin/env python3
"""Makes a result of Etalon: request_level_metrics.json as the tool writes it, from seeded streams,
and computed.json with what its other functions say of them.

    pip install numpy==2.4.6
    PYTHONPATH=ETALON python3 make.py

ETALON is a checkout of project-etalon/etalon on GitHub, commit d5f18de.
"""

import json
import random
from pathlib import Path

from etalon.metrics import metric_utils
from etalon.metrics.request_level_metrics import RequestLevelMetrics
from etalon.metrics.request_metrics import RequestMetrics

HERE = Path(__file__).resolve().parent
TTFT_DEADLINE, TBT_DEADLINE, TARGET = 0.1, 0.05, 0.1


def stream(rng):
    """Times as a clock of floats gives them: with more digits than nanoseconds."""
    times = [0.02 + rng.expovariate(12)]
    for _ in range(rng.randint(1, 23)):
        kind = rng.random()
        times.append(0.0 if kind < 0.1 else 0.6 * rng.random() if kind < 0.15 else 0.02 + 0.04 * rng.random())
    return times


def main():
    rng = random.Random(7)
    metrics = RequestLevelMetrics(TTFT_DEADLINE, TBT_DEADLINE, TARGET)
    missed = total = 0
    for _ in range(40):
        times = stream(rng)
        request = RequestMetrics(inter_token_times=times, num_prompt_tokens=rng.randint(10, 900), num_output_tokens=len(times))
        metrics.put(request)
        _, of_request, all_of_request = metric_utils.get_request_level_deadline_miss_rate(times, TTFT_DEADLINE, TBT_DEADLINE)
        missed, total = missed + of_request, total + all_of_request
    metrics.save(HERE)
    tpot, tbt, deadline = metric_utils.get_throughput_metrics(metrics.tpot, metrics.tbt)
    computed = {
        "service_level_missed_deadlines": missed,
        "service_level_total_deadlines": total,
        "tpot_based_throughput": float(tpot),
        "tbt_based_throughput": float(tbt),
        "deadline_based_throughput": float(deadline),
    }
    (HERE / "computed.json").write_text(json.dumps(computed, indent=1) + "\n")


main()
