use std::collections::HashMap;

use tempfile::NamedTempFile;

use super::*;
use crate::config::ModelConfig;
use crate::weights::{DummyWeights, check_tensors, stored_dtype};

type Tensors = HashMap<String, Tensor>;

const QUERIES: &str = "model.layers.0.self_attn.q_proj.weight";

fn shape() -> ModelConfig {
    serde_json::from_str(
        r#"{
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 12,
            "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": true
        }"#,
    )
    .unwrap()
}

/// A file of that shape in bf16, changed.
fn file(change: impl FnOnce(&mut Tensors)) -> (NamedTempFile, SafetensorsWeights) {
    let source = DummyWeights::new(&shape(), 1);
    let in_bf16 = |name: &String| source.tensor(name).unwrap().to_dtype(DType::BF16).unwrap();
    let mut tensors: Tensors =
        shape().tensors().keys().map(|name| (name.clone(), in_bf16(name))).collect();
    change(&mut tensors);
    let file = NamedTempFile::new().unwrap();
    candle_core::safetensors::save(&tensors, file.path()).unwrap();
    let weights = SafetensorsWeights::open(&[file.path().to_owned()]).unwrap();
    (file, weights)
}

fn add(tensors: &mut Tensors, name: &str, shape: &[usize]) {
    tensors.insert(name.to_owned(), Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap());
}

fn check(change: impl FnOnce(&mut Tensors)) -> Result<(), String> {
    let (_file, weights) = file(change);
    check_tensors(&weights, &shape(), "tiny").map_err(|error| error.to_string())
}

#[test]
fn what_the_decoder_would_leave_out_is_refused_in_safetensors_too() {
    let left_out = [
        ("model.layers.0.self_attn.q_norm.weight", vec![4]),
        ("model.layers.0.self_attn.q_proj.bias", vec![8]),
        ("model.layers.0.self_attn.q_proj.weight_scale", vec![1]),
        ("model.layers.1.input_layernorm.weight", vec![8]),
        ("rope_divisors", vec![2]),
    ];
    let error = check(|tensors| {
        for (name, shape) in &left_out {
            add(tensors, name, shape);
        }
    })
    .unwrap_err();
    for (name, _) in left_out {
        let refused = format!("{name} is not part of LlamaForCausalLM as it is computed here");
        assert!(error.contains(&refused), "{error}");
    }
}

#[test]
fn tables_and_copies_of_what_the_decoder_has_are_no_matter() {
    let copies = check(|tensors| {
        add(tensors, "model.layers.0.self_attn.rotary_emb.inv_freq", &[2]);
        add(tensors, "lm_head.weight", &[12, 8]);
    });
    assert_eq!(copies, Ok(()));
}

#[test]
fn a_number_format_whose_scales_would_be_left_out_is_refused() {
    for (dtype, name) in [(DType::F8E4M3, "F8_E4M3"), (DType::U8, "U8"), (DType::F64, "F64")] {
        let error = check(|tensors| {
            let queries = tensors[QUERIES].to_dtype(dtype).unwrap();
            tensors.insert(QUERIES.to_owned(), queries);
        })
        .unwrap_err();
        let refused = format!("{QUERIES} is in {name}; allowed are F32, F16 and BF16");
        assert!(error.ends_with(&refused), "{error}");
    }
}

/// Norms in f32 and tables of the rotary embedding stand beside matrices in 16 bits.
#[test]
fn the_format_of_the_files_is_that_of_the_matrices() {
    let (_file, weights) = file(|tensors| {
        add(tensors, "model.norm.weight", &[8]);
        add(tensors, "model.layers.0.input_layernorm.weight", &[8]);
        add(tensors, "model.layers.0.self_attn.rotary_emb.inv_freq", &[2]);
        add(tensors, "a.table", &[2, 2]);
    });
    assert_eq!(stored_dtype(&weights, &shape()), StoredDtype::Bf16);
    assert_eq!(weights.format(), "safetensors bf16");
    let (_file, weights) = file(|tensors| add(tensors, "lm_head.weight", &[12, 8]));
    assert_eq!(stored_dtype(&weights, &shape()), StoredDtype::Bf16);
    let (_file, weights) = file(|tensors| add(tensors, QUERIES, &[8, 8]));
    assert_eq!(stored_dtype(&weights, &shape()), StoredDtype::Other);
}
