"""One round of vLLM on the CPU: prints a JSON object of seconds by shape.

Its engine decides its own steps: a step counts for a shape when every sequence of the shape was in
it and nothing else. Long contexts are measured at two batch sizes, since every one of their prompts
has to be prefilled first.
"""

import itertools
import json
import os
import resource
import sys
import time
from statistics import median

from shapes import HYBRID, PREFILLS, REPEATS, tokens

STEPS = 8
BATCHES = {128: [1, 2, 4, 8, 16, 32], 1024: [1, 8]}


class Engine:
    def __init__(self, path, dtype):
        from vllm import LLM

        self.engine = LLM(
            model=path,
            dtype=dtype,
            enforce_eager=True,
            max_model_len=2304,
            max_num_seqs=33,
            max_num_batched_tokens=2304,
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
            # So that a step returns its own tokens, and its time is its own. (With it a decode step
            # was up to 10 % faster at batch 8, and now and then several times slower: its threads
            # compete for the cores.)
            async_scheduling=False,
        ).llm_engine
        self.names = (f"request-{at}" for at in itertools.count())
        self.tokens_of = {}

    def submit(self, ids):
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0, max_tokens=200, ignore_eos=True, detokenize=False
        )
        name = next(self.names)
        self.engine.add_request(name, {"prompt_token_ids": ids}, sampling)
        self.tokens_of[name] = 0

    def step(self):
        """How long it took, and for how many sequences it made a token."""
        began = time.perf_counter()
        outputs = self.engine.step()
        took = time.perf_counter() - began
        before = dict(self.tokens_of)
        for output in outputs:
            self.tokens_of[output.request_id] = len(output.outputs[0].token_ids)
        return took, sum(self.tokens_of[name] > count for name, count in before.items())

    def prefill(self, prompts):
        """Until each has its first token."""
        for ids in prompts:
            self.submit(ids)
        while not all(self.tokens_of.values()):
            self.step()

    def clear(self):
        self.engine.abort_request(list(self.tokens_of))
        self.tokens_of.clear()
        while self.engine.has_unfinished_requests():
            self.engine.step()

    def timed(self, num_tokens):
        """A step that makes a token for so many sequences."""
        took, made = self.step()
        if made != num_tokens:
            raise RuntimeError(f"a step made {made} tokens, not {num_tokens}")
        return took


def measure(engine):
    seconds = {}
    for count in PREFILLS:
        times = []
        for at in range(REPEATS + 1):
            engine.submit(tokens(count, 1000 * count + at))
            times.append(engine.timed(1))
            engine.clear()
        seconds[f"prefill:{count}"] = median(times[1:])
    for context, batches in BATCHES.items():
        for batch in batches:
            engine.prefill([tokens(context, 7 * context + at) for at in range(batch)])
            seconds[f"decode:{batch}x{context}"] = median([engine.timed(batch) for _ in range(STEPS)])
            engine.clear()
    batch, context, chunk = HYBRID
    times = []
    for at in range(REPEATS + 1):
        engine.prefill([tokens(context, 7 * context + at) for at in range(batch)])
        engine.submit(tokens(chunk, at))
        times.append(engine.timed(batch + 1))
        engine.clear()
    seconds["hybrid:%dx%d+%d" % HYBRID] = median(times[1:])
    return seconds


def main():
    path, threads, dtype = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "4"
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    started = time.perf_counter()
    engine = Engine(path, dtype)
    engine.prefill([tokens(1, 0)])
    engine.clear()
    startup = time.perf_counter() - started
    seconds = measure(engine)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # vLLM writes to the standard output as well: the last line counts.
    print(json.dumps({"seconds": seconds, "startup": startup, "peak_bytes": peak}))


main()
