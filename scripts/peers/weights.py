"""The same weights for every engine: those of a GGUF file, which are dequantised once.

    weights.py SOURCE.gguf DIRECTORY

makes f32.gguf, q8_0.gguf (the same numbers rounded to 8 bits) and, for vLLM, a directory in Hugging
Face's form in f32.
"""

import ctypes
import json
import pathlib
import sys

import llama_cpp as llama
import numpy as np
from gguf import GGUFReader, dequantize

# Kept alive: the library calls it later.
SILENCE = llama.llama_log_callback(lambda *_: None)


def quantize(source, target, ftype):
    if target.exists():
        return
    params = llama.llama_model_quantize_default_params()
    params.ftype = ftype
    params.allow_requantize = True
    partial = target.with_suffix(".partial")
    code = llama.llama_model_quantize(
        str(source).encode(), str(partial).encode(), ctypes.byref(params)
    )
    if code != 0:
        sys.exit(f"{source} could not be turned into {target}")
    partial.rename(target)


def heads_apart(matrix, heads):
    """Undoes the order in which llama.cpp keeps the rows of rotated heads."""
    rows, columns = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def hugging_face(source, directory):
    if (directory / "model.safetensors").exists():
        return
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    field = lambda name: reader.fields[f"llama.{name}"].contents()
    heads, kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    whole = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    tensors = {}
    for tensor in reader.tensors:
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        name = tensor.name.removesuffix(".weight")
        if name in whole:
            tensors[f"{whole[name]}.weight"] = values
        elif name.startswith("blk."):
            _, layer, part = name.split(".")
            if part in ("attn_q", "attn_k"):
                values = heads_apart(values, heads if part == "attn_q" else kv_heads)
            tensors[f"model.layers.{layer}.{names[part]}.weight"] = np.ascontiguousarray(values)
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": field("embedding_length"), "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": field("context_length"),
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "rope_theta": field("rope.freq_base"), "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    save_file(tensors, directory / "model.safetensors.partial", metadata={"format": "pt"})
    (directory / "model.safetensors.partial").rename(directory / "model.safetensors")


def main():
    source, directory = map(pathlib.Path, sys.argv[1:3])
    directory.mkdir(parents=True, exist_ok=True)
    llama.llama_log_set(SILENCE, ctypes.c_void_p(0))
    quantize(source, directory / "f32.gguf", llama.LLAMA_FTYPE_ALL_F32)
    quantize(directory / "f32.gguf", directory / "q8_0.gguf", llama.LLAMA_FTYPE_MOSTLY_Q8_0)
    if len(sys.argv) > 3:
        hugging_face(source, directory / "hf")


main()
