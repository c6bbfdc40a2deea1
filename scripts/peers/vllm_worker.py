"""One round of vLLM on the CPU: prints a JSON object of seconds by shape.

Its engine decides its own steps, so a decode step is the difference between generating many tokens
and one, by the number of steps between; the prompts are in its prefix cache by then. It can't be
asked for one hybrid step. Long contexts are measured at two batch sizes, since every one of their
prompts has to be prefilled first.
"""

import json
import os
import resource
import sys
import time

from shapes import PREFILLS, REPEATS, median, tokens

STEPS = 8
BATCHES = {128: [1, 2, 4, 8, 16, 32], 1024: [1, 8]}


def main():
    path, threads, dtype = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "4"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    started = time.perf_counter()
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=path,
        dtype=dtype,
        enforce_eager=True,
        max_model_len=2304,
        max_num_seqs=32,
        max_num_batched_tokens=2304,
        enable_prefix_caching=True,
        skip_tokenizer_init=True,
    )

    def generate(prompts, count):
        sampling = SamplingParams(
            temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True, detokenize=False
        )
        began = time.perf_counter()
        engine.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return time.perf_counter() - began

    generate([tokens(1, 0)], 1)
    startup = time.perf_counter() - started
    seconds = {}
    for count in PREFILLS:
        times = [generate([tokens(count, 1000 * count + at)], 1) for at in range(REPEATS + 1)]
        seconds[f"prefill:{count}"] = median(times[1:])
    for context, batches in BATCHES.items():
        prompts = [tokens(context, 7 * context + at) for at in range(max(batches))]
        generate(prompts, 1)
        for batch in batches:
            times = []
            for _ in range(REPEATS):
                short = generate(prompts[:batch], 1)
                times.append((generate(prompts[:batch], 1 + STEPS) - short) / STEPS)
            seconds[f"decode:{batch}x{context}"] = median(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # vLLM writes to the standard output as well: the last line counts.
    print(json.dumps({"seconds": seconds, "startup": startup, "peak_bytes": peak}))


main()
