"""One round of llama.cpp: prints a JSON object of seconds by shape."""

import ctypes
import json
import resource
import sys
import time
from statistics import median

import llama_cpp as llama

from shapes import BATCHES, CONTEXTS, HYBRID, PREFILLS, REPEATS, tokens

# Kept alive: the library calls it later.
SILENCE = llama.llama_log_callback(lambda *_: None)


class Engine:
    """A context of the library, with its default KV cache in 16-bit floats."""

    def __init__(self, model, threads, sequences, positions):
        params = llama.llama_context_default_params()
        params.n_ctx = sequences * positions
        params.n_batch = params.n_ubatch = 2048
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = llama.llama_init_from_model(model, params)
        self.memory = llama.llama_get_memory(self.context)
        self.batch = llama.llama_batch_init(2048 + sequences, 0, 1)

    def clear(self):
        llama.llama_memory_clear(self.memory, True)

    def step(self, sequences):
        """Runs (sequence, position, ids) of each; logits of each one's last token. In seconds."""
        row = 0
        for sequence, position, ids in sequences:
            for at, token in enumerate(ids):
                self.batch.token[row] = token
                self.batch.pos[row] = position + at
                self.batch.n_seq_id[row] = 1
                self.batch.seq_id[row][0] = sequence
                self.batch.logits[row] = at + 1 == len(ids)
                row += 1
        self.batch.n_tokens = row
        started = time.perf_counter()
        code = llama.llama_decode(self.context, self.batch)
        # The logits are there when they can be read.
        llama.llama_get_logits_ith(self.context, row - 1)[0]
        took = time.perf_counter() - started
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")
        return took

    def fill(self, count, context):
        """Gives `count` sequences a cache of `context` positions each, copied from the first."""
        self.clear()
        self.step([(0, 0, tokens(context, 0))])
        size = llama.llama_state_seq_get_size(self.context, 0)
        state = (ctypes.c_uint8 * size)()
        llama.llama_state_seq_get_data(self.context, state, size, 0)
        for sequence in range(1, count):
            llama.llama_state_seq_set_data(self.context, state, size, sequence)

    def forget(self, sequences, position):
        for sequence in sequences:
            llama.llama_memory_seq_rm(self.memory, sequence, position, -1)


def measure(model, threads):
    seconds = {}
    engine = Engine(model, threads, 1, max(PREFILLS) + 16)
    for count in PREFILLS:
        times = []
        for repeat in range(REPEATS + 1):
            engine.clear()
            times.append(engine.step([(0, 0, tokens(count, repeat))]))
        seconds[f"prefill:{count}"] = median(times[1:])
    engine = Engine(model, threads, max(BATCHES) + 1, max(CONTEXTS) + 128)
    for context in CONTEXTS:
        for batch in BATCHES:
            engine.fill(batch, context)
            times = []
            for repeat in range(REPEATS + 1):
                times.append(
                    engine.step([(s, context, tokens(1, s + repeat)) for s in range(batch)])
                )
                engine.forget(range(batch), context)
            seconds[f"decode:{batch}x{context}"] = median(times[1:])
    batch, context, chunk = HYBRID
    engine.fill(batch, context)
    times = []
    for repeat in range(REPEATS + 1):
        decodes = [(s, context, tokens(1, s + repeat)) for s in range(batch)]
        times.append(engine.step(decodes + [(batch, 0, tokens(chunk, repeat))]))
        engine.forget(range(batch), context)
        engine.forget([batch], 0)
    seconds["hybrid:%dx%d+%d" % HYBRID] = median(times[1:])
    return seconds


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    started = time.perf_counter()
    llama.llama_log_set(SILENCE, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    Engine(model, threads, 1, 64).step([(0, 0, tokens(1, 0))])
    startup = time.perf_counter() - started
    seconds = measure(model, threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "startup": startup, "peak_bytes": peak}))


main()
