use super::*;

fn small() -> ModelConfig {
    serde_json::from_str(
        r#"{
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": 100, "max_position_embeddings": 256, "rms_norm_eps": 1e-5
        }"#,
    )
    .unwrap()
}

fn refusal(change: impl FnOnce(&mut ModelConfig)) -> String {
    let mut config = small();
    change(&mut config);
    config.check().unwrap_err().to_string()
}

#[test]
fn the_base_and_the_stretching_are_read_in_the_form_of_transformers_4_and_5() {
    let with = |fields: &str| -> ModelConfig {
        let plain = serde_json::to_value(small()).unwrap();
        let mut object = plain.as_object().unwrap().clone();
        for (key, value) in serde_json::from_str::<serde_json::Map<_, _>>(fields).unwrap() {
            object.insert(key, value);
        }
        serde_json::from_value(object.into()).unwrap()
    };
    let four = with(r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}"#);
    // As later versions save a model of the form above again.
    let both = with(
        r#"{"rope_theta": 5e5, "rope_scaling":
            {"type": "default", "rope_type": "linear", "factor": 2.0}}"#,
    );
    let five =
        with(r#"{"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}}"#);
    for config in [four, both, five] {
        assert_eq!(config.check(), Ok(()));
        assert!((config.rope_theta() - 5e5).abs() < f64::EPSILON);
        assert_eq!(config.rope_scaling().unwrap().rope_type, RopeType::Linear);
    }
}

#[test]
fn a_shape_that_cannot_run_is_refused_by_name() {
    assert_eq!(small().check(), Ok(()));
    let refusals = [
        refusal(|c| c.architectures = vec!["GPT2LMHeadModel".to_owned()]),
        refusal(|c| c.architectures.clear()),
        refusal(|c| c.num_attention_heads = 0),
        refusal(|c| c.num_key_value_heads = Some(3)),
        refusal(|c| c.hidden_size = 66),
        refusal(|c| c.head_dim = Some(5)),
        refusal(|c| c.vocab_size = 1 << 25),
        refusal(|c| c.num_hidden_layers = 1 << 20),
        refusal(|c| c.rms_norm_eps = f64::NAN),
        refusal(|c| c.rope_theta = 0.0),
        refusal(|c| c.hidden_act = "gelu".to_owned()),
        refusal(|c| c.attention_bias = true),
        refusal(|c| c.sliding_window = Some(128)),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn weights_that_are_said_to_be_quantised_are_refused_and_their_shape_is_not() {
    let mut config = small();
    let quantised = r#"{"quant_method": "fp8", "activation_scheme": "dynamic"}"#;
    config.quantization_config = serde_json::from_str(quantised).unwrap();
    assert_eq!(config.check(), Ok(()));
    insta::assert_snapshot!(config.check_weights().unwrap_err());
}

#[test]
fn a_window_that_is_not_used_does_not_matter() {
    let mut config = small();
    config.sliding_window = Some(128);
    config.use_sliding_window = Some(false);
    assert_eq!(config.check(), Ok(()));
}

#[test]
fn parameters_are_counted_as_the_tensors_hold_them() {
    let mut config = small();
    let layer = 2 * 64 + 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 128;
    assert_eq!(config.parameters(), 2 * 100 * 64 + 64 + 2 * layer);
    config.tie_word_embeddings = true;
    assert_eq!(config.parameters(), 100 * 64 + 64 + 2 * layer);
    config.architectures = vec!["Qwen2ForCausalLM".to_owned()];
    assert_eq!(config.parameters(), 100 * 64 + 64 + 2 * (layer + 64 + 2 * 32));
}
