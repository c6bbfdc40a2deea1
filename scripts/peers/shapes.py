"""What is measured, by the names that `metron profile` gives to batch shapes."""

PREFILLS = [128, 512, 2048]
BATCHES = [1, 2, 4, 8, 16, 32]
CONTEXTS = [128, 1024]
# Eight decodes beside a chunk of another's prefill.
HYBRID = (8, 128, 256)

SHAPES = (
    [f"prefill:{tokens}" for tokens in PREFILLS]
    + [f"decode:{batch}x{context}" for context in CONTEXTS for batch in BATCHES]
    + ["hybrid:%dx%d+%d" % HYBRID]
)

# Times each shape is measured in a round; the median counts.
REPEATS = 3


def tokens(count, seed):
    """Token ids that no tokenizer treats as special."""
    return [100 + (seed * 7919 + at * 37) % 40000 for at in range(count)]
