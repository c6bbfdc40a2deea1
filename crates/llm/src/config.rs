use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// The shape of a llama-family decoder, by the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Which family: see [`Family`].
    pub architectures: Vec<String>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Heads of keys and values; each serves a group of query heads. Absent: one a query head.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; absent: `hidden_size / num_attention_heads`.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// The longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// How the rotary embedding is stretched for longer contexts.
    #[serde(default)]
    pub rope_scaling: Option<RopeScaling>,
    /// Base and stretching together, as transformers 5 writes them; it wins over the two above.
    #[serde(default)]
    pub rope_parameters: Option<RopeParameters>,
    /// The feed-forward layer's activation; only `silu` is supported.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// Whether attention's projections have biases beyond the family's own; none may.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether the feed-forward layer's projections have biases; none may.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Whether the embedding is the output projection too.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The sliding window of attention, if it is used; only the whole context is supported.
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// Whether the window is used (Qwen2 carries one and does not use it).
    #[serde(default)]
    pub use_sliding_window: Option<bool>,
    /// How the weights are quantised; none may be.
    #[serde(default)]
    pub quantization_config: Option<Quantisation>,
}

fn default_rope_theta() -> f64 {
    10_000.0
}

fn silu() -> String {
    "silu".to_owned()
}

/// How a checkpoint in safetensors was quantised, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantisation {
    /// `fp8`, `gptq`, `awq`, `compressed-tensors`, ...
    #[serde(default)]
    pub quant_method: Option<String>,
}

/// Stretching of the rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RopeScalingFields")]
pub struct RopeScaling {
    /// Which rule.
    pub rope_type: RopeType,
    /// How far frequencies are stretched.
    pub factor: f64,
    /// Llama 3: wavelengths above `original / low_freq_factor` are stretched whole.
    pub low_freq_factor: f64,
    /// Llama 3: wavelengths below `original / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// Llama 3: the context that the model was first trained for.
    pub original_max_position_embeddings: usize,
}

/// The same as files have it. The rule was called `type` first; transformers write both names when
/// they save such a model again, and read the new one.
#[derive(Deserialize)]
struct RopeScalingFields {
    rope_type: Option<RopeType>,
    r#type: Option<RopeType>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

impl TryFrom<RopeScalingFields> for RopeScaling {
    type Error = &'static str;

    fn try_from(fields: RopeScalingFields) -> Result<Self, Self::Error> {
        Ok(Self {
            rope_type: fields.rope_type.or(fields.r#type).ok_or("missing field `rope_type`")?,
            factor: fields.factor.unwrap_or(1.0),
            low_freq_factor: fields.low_freq_factor.unwrap_or(1.0),
            high_freq_factor: fields.high_freq_factor.unwrap_or(1.0),
            original_max_position_embeddings: fields
                .original_max_position_embeddings
                .unwrap_or_default(),
        })
    }
}

/// The rotary embedding as transformers 5 describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeParameters {
    /// Base.
    pub rope_theta: f64,
    /// Stretching.
    #[serde(flatten)]
    pub scaling: RopeScaling,
}

/// Rules of stretching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeType {
    /// None.
    Default,
    /// Every frequency alike.
    Linear,
    /// By wavelength, as Llama 3.1 does.
    Llama3,
}

/// Families of decoders that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 1 to 3, SmolLM2, Yi.
    Llama,
    /// Mistral 7B without a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
}

/// Why a shape can't run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Another family.
    #[error(
        "architecture `{found}` is not supported; supported are LlamaForCausalLM, \
         MistralForCausalLM and Qwen2ForCausalLM (in a GGUF file: llama and qwen2)"
    )]
    Unsupported {
        /// What the file says.
        found: String,
    },
    /// A number that can't be.
    #[error("{field} is {value}; it must be {allowed}")]
    BadNumber {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// Weights that mean nothing without what quantised them.
    #[error(
        "the weights are quantised (quantization_config: {method}), and safetensors are read in F32, \
         F16 and BF16; take the model in one of these, or as a GGUF file"
    )]
    Quantised {
        /// How.
        method: String,
    },
    /// The file does not say.
    #[error("`{field}` is missing, or is not a number")]
    Missing {
        /// The field's name in the file.
        field: String,
    },
}

/// Limits beyond which no real model goes, so that sizes can be multiplied without wrapping.
const MAX_WIDTH: usize = 1 << 24;
const MAX_LAYERS: usize = 1 << 12;

impl ModelConfig {
    /// Refuses shapes that can't run.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.family()?;
        self.check_sizes()?;
        self.check_heads()?;
        self.check_rope()?;
        let eps = self.rms_norm_eps;
        check("rms_norm_eps", eps, eps > 0.0 && eps < 1.0, "above 0 and below 1")?;
        check("hidden_act", &self.hidden_act, self.hidden_act == "silu", "silu")?;
        check("attention_bias", self.attention_bias, !self.attention_bias, "false")?;
        check("mlp_bias", self.mlp_bias, !self.mlp_bias, "false")?;
        if let Some(window) = self.sliding_window.filter(|_| self.window_is_used()) {
            let whole = window >= self.max_position_embeddings;
            check("sliding_window", window, whole, "at least max_position_embeddings, or unused")?;
        }
        Ok(())
    }

    /// Refuses weights that a repository says are quantised.
    pub(crate) fn check_weights(&self) -> Result<(), ConfigError> {
        match &self.quantization_config {
            None => Ok(()),
            Some(Quantisation { quant_method }) => {
                let method = quant_method.clone().unwrap_or_else(|| "no method named".to_owned());
                Err(ConfigError::Quantised { method })
            }
        }
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_LAYERS),
            ("num_key_value_heads", self.kv_heads(), MAX_LAYERS),
            ("head_dim", self.head_width(), MAX_LAYERS),
            ("vocab_size", self.vocab_size, MAX_WIDTH),
            ("max_position_embeddings", self.max_position_embeddings, MAX_WIDTH),
        ];
        sizes.into_iter().try_for_each(|(field, value, most)| {
            check(field, value, (1..=most).contains(&value), format!("from 1 to {most}"))
        })
    }

    fn check_heads(&self) -> Result<(), ConfigError> {
        let (heads, kv_heads) = (self.num_attention_heads, self.kv_heads());
        let divides = heads.is_multiple_of(kv_heads);
        check("num_key_value_heads", kv_heads, divides, format!("a divisor of {heads} heads"))?;
        if self.head_dim.is_none() {
            let even = self.hidden_size.is_multiple_of(heads);
            check("hidden_size", self.hidden_size, even, format!("a multiple of {heads} heads"))?;
        }
        let dim = self.head_width();
        check("head_dim", dim, dim.is_multiple_of(2), "even")
    }

    fn check_rope(&self) -> Result<(), ConfigError> {
        let theta = self.rope_theta();
        check("rope_theta", theta, theta.is_finite() && theta >= 1.0, "at least 1 and finite")?;
        let Some(scaling) = self.rope_scaling() else { return Ok(()) };
        let factor = scaling.factor;
        let is_fine = factor.is_finite() && factor >= 1.0;
        check("rope_scaling.factor", factor, is_fine, "at least 1 and finite")?;
        if scaling.rope_type == RopeType::Llama3 {
            let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
            let is_fine = low > 0.0 && low < high && high.is_finite();
            let factors = format!("{low} and {high}");
            check("low and high_freq_factor", factors, is_fine, "above 0, the low one below")?;
            let original = scaling.original_max_position_embeddings;
            check("original_max_position_embeddings", original, original > 0, "at least 1")?;
        }
        Ok(())
    }

    fn window_is_used(&self) -> bool {
        self.use_sliding_window.unwrap_or(true)
    }

    /// Base of the rotary embedding.
    pub fn rope_theta(&self) -> f64 {
        self.rope_parameters.as_ref().map_or(self.rope_theta, |rope| rope.rope_theta)
    }

    /// How the rotary embedding is stretched, if it is.
    pub fn rope_scaling(&self) -> Option<&RopeScaling> {
        self.rope_parameters.as_ref().map(|rope| &rope.scaling).or(self.rope_scaling.as_ref())
    }

    /// The family.
    pub fn family(&self) -> Result<Family, ConfigError> {
        let name = self.architectures.first().map_or("", String::as_str);
        match name {
            "LlamaForCausalLM" => Ok(Family::Llama),
            "MistralForCausalLM" => Ok(Family::Mistral),
            "Qwen2ForCausalLM" => Ok(Family::Qwen2),
            _ => Err(ConfigError::Unsupported { found: name.to_owned() }),
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Every tensor that the model needs, by its Hugging Face name, with its shape.
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_width();
        let keys = self.kv_heads() * self.head_width();
        let mut tensors = BTreeMap::from([
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ]);
        if !self.tie_word_embeddings {
            tensors.insert("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]);
        }
        for layer in 0..self.num_hidden_layers {
            let mut add = |name: &str, shape: Vec<usize>| {
                tensors.insert(format!("model.layers.{layer}.{name}"), shape);
            };
            add("input_layernorm.weight", vec![hidden]);
            add("post_attention_layernorm.weight", vec![hidden]);
            add("self_attn.q_proj.weight", vec![queries, hidden]);
            add("self_attn.k_proj.weight", vec![keys, hidden]);
            add("self_attn.v_proj.weight", vec![keys, hidden]);
            add("self_attn.o_proj.weight", vec![hidden, queries]);
            add("mlp.gate_proj.weight", vec![ffn, hidden]);
            add("mlp.up_proj.weight", vec![ffn, hidden]);
            add("mlp.down_proj.weight", vec![hidden, ffn]);
            if self.family() == Ok(Family::Qwen2) {
                add("self_attn.q_proj.bias", vec![queries]);
                add("self_attn.k_proj.bias", vec![keys]);
                add("self_attn.v_proj.bias", vec![keys]);
            }
        }
        tensors
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().values().map(|shape| shape.iter().map(|n| *n as u64).product::<u64>()).sum()
    }
}

fn check(
    field: &'static str,
    value: impl Display,
    is_fine: bool,
    allowed: impl Into<String>,
) -> Result<(), ConfigError> {
    if is_fine {
        return Ok(());
    }
    Err(ConfigError::BadNumber { field, value: value.to_string(), allowed: allowed.into() })
}

#[cfg(test)]
mod tests;
