"""What Metron has to reach beside its peers, and whether it did."""

from statistics import median

from shapes import SHAPES

PREFILLS = [shape for shape in SHAPES if shape.startswith("prefill")]
HYBRIDS = [shape for shape in SHAPES if shape.startswith("hybrid")]


def decodes(batches):
    """Decode shapes whose batch is among these."""
    sizes = {shape: int(shape.split(":")[1].split("x")[0]) for shape in SHAPES if shape.startswith("decode")}
    return [shape for shape, size in sizes.items() if size in batches]


LLAMA, VLLM = ("metron-f32", "llama-f32"), ("metron-f32", "vllm-f32")
LLAMA_Q8, VLLM_BF16 = ("metron-q8_0", "llama-q8_0"), ("metron-bf16", "vllm-bf16")
ANY = range(1, 1 << 20)

# The pair, what is compared, its shapes, and the least ratio of tokens a second in each.
BARS = [
    (LLAMA, "prefill", PREFILLS, 1.0),
    (LLAMA, "decode from batch 2, hybrid", decodes(ANY[1:]) + HYBRIDS, 1.0),
    (LLAMA, "decode at batch 1", decodes([1]), 0.95),
    (VLLM, "decode", decodes(ANY), 1.0),
    (VLLM, "prefill", PREFILLS, 0.9),
    (LLAMA_Q8, "decode from batch 8", decodes(ANY[7:]), 1.0),
    (LLAMA_Q8, "prefill", PREFILLS, 0.9),
    (LLAMA_Q8, "decode at batch 1", decodes([1]), 0.9),
]
# Reported, and aimed at.
AIM = (VLLM_BF16, "every shape", SHAPES, 0.8)

# A decode step may grow by so many times what reading the KV bytes takes.
MOST_SLOPE = 2.0


def verdict(ratios, shapes, least, words):
    """The shape that is furthest behind decides."""
    measured = [shape for shape in shapes if shape in ratios]
    if not measured:
        return "not measured"
    worst = min(measured, key=ratios.get)
    return f"{words[ratios[worst] < least]}: {ratios[worst]:.2f} at {worst}"


def print_bar(bar, medians, words):
    pair, what, shapes, least = bar
    line = f"{pair[0].split('-')[1]} : {pair[1]}, {what}, >= {least}"
    print(f"{line:58}{verdict(medians.get(pair, {}), shapes, least, words)}")


def print_bars(medians, slopes):
    """`medians` has the ratio of each shape for each pair, `slopes` those of each batch, by round."""
    print("\nBars: the least of the median ratios above")
    for bar in BARS:
        print_bar(bar, medians, ("met", "NOT MET"))
    print_bar(AIM, medians, ("aim reached", "short of the aim"))
    line = f"f32 decode, slope in context over KV bytes, <= {MOST_SLOPE}"
    if not slopes:
        print(f"{line:58}not measured")
        return
    worst = max(slopes, key=lambda batch: median(slopes[batch]))
    word = "met" if median(slopes[worst]) <= MOST_SLOPE else "NOT MET"
    print(f"{line:58}{word}: {median(slopes[worst]):.2f} at batch {worst}")
    for batch, of_rounds in slopes.items():
        print(f"    batch {batch}: {spread(of_rounds)}")


def spread(values):
    """The median, and from the least to the greatest."""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
