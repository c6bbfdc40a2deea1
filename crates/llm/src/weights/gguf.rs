use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{DType, Device, Tensor};

use super::gguf_check::check_gguf;
use super::{LoadError, Weights};
use crate::config::{ConfigError, ModelConfig, TokenIds};

/// A GGUF file of the llama or qwen2 architecture.
pub(crate) struct GgufWeights {
    path: PathBuf,
    content: Content,
    file: Mutex<BufReader<File>>,
    /// Query heads and key heads, if their rows are stored in pairs.
    paired: Option<(usize, usize)>,
}

impl GgufWeights {
    /// Opens and checks a file.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        check_gguf(path)?;
        let file =
            File::open(path).map_err(|cause| LoadError::Io { path: path.to_owned(), cause })?;
        let mut file = BufReader::new(file);
        let content = Content::read(&mut file).map_err(|error| LoadError::Malformed {
            path: path.to_owned(),
            cause: error.to_string(),
        })?;
        let mut weights =
            Self { path: path.to_owned(), content, file: Mutex::new(file), paired: None };
        // llama.cpp stores the rows of llama's queries and keys for rotary embedding of
        // neighbours, and qwen2's as Hugging Face has them, for embedding of halves.
        if weights.architecture() == "llama" {
            let config = weights.config()?;
            weights.paired = Some((config.num_attention_heads, config.kv_heads()));
        }
        Ok(weights)
    }

    fn architecture(&self) -> &str {
        match self.content.metadata.get("general.architecture") {
            Some(Value::String(name)) => name,
            _ => "",
        }
    }

    /// The shape, from the metadata.
    pub(crate) fn config(&self) -> Result<ModelConfig, LoadError> {
        let fail =
            |cause| LoadError::Config { source_name: self.path.display().to_string(), cause };
        let config = self.read_config().map_err(fail)?;
        config.check().map_err(fail)?;
        Ok(config)
    }

    fn read_config(&self) -> Result<ModelConfig, ConfigError> {
        let architecture = self.architecture();
        let family = match architecture {
            "llama" => "LlamaForCausalLM",
            "qwen2" => "Qwen2ForCausalLM",
            found => return Err(ConfigError::Unsupported { found: found.to_owned() }),
        };
        let missing = |field: &str| ConfigError::Missing { field: field.to_owned() };
        let number = |field: &str| {
            let key = format!("{architecture}.{field}");
            let value = self.content.metadata.get(&key).and_then(whole_number);
            value.ok_or_else(|| missing(&key))
        };
        let real = |field: &str| {
            let key = format!("{architecture}.{field}");
            self.content.metadata.get(&key).and_then(real_number).ok_or_else(|| missing(&key))
        };
        let embedding = self.content.tensor_infos.get("token_embd.weight");
        let vocab_size = embedding.and_then(|info| info.shape.dims().first().copied());
        let eos = self.content.metadata.get("tokenizer.ggml.eos_token_id").and_then(whole_number);
        Ok(ModelConfig {
            architectures: vec![family.to_owned()],
            hidden_size: number("embedding_length")?,
            intermediate_size: number("feed_forward_length")?,
            num_hidden_layers: number("block_count")?,
            num_attention_heads: number("attention.head_count")?,
            num_key_value_heads: number("attention.head_count_kv").ok(),
            head_dim: number("attention.key_length").ok(),
            vocab_size: vocab_size.ok_or_else(|| missing("token_embd.weight"))?,
            max_position_embeddings: number("context_length")?,
            rms_norm_eps: real("attention.layer_norm_rms_epsilon")?,
            rope_theta: real("rope.freq_base").unwrap_or(10_000.0),
            rope_scaling: None,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            sliding_window: None,
            use_sliding_window: None,
            attention_bias: false,
            mlp_bias: false,
            hidden_act: "silu".to_owned(),
            eos_token_id: eos.map(|id| TokenIds::One(id as u32)),
        })
    }

    /// Rows `[head, pair, 2]` back to `[head, 2, pair]`.
    fn halves(&self, name: &str, tensor: Tensor) -> candle_core::Result<Tensor> {
        let heads = match self.paired {
            Some((queries, _)) if name.contains("q_proj") => queries,
            Some((_, keys)) if name.contains("k_proj") => keys,
            _ => return Ok(tensor),
        };
        let (rows, columns) = tensor.dims2()?;
        tensor
            .reshape((heads, rows / heads / 2, 2, columns))?
            .transpose(1, 2)?
            .contiguous()?
            .reshape((rows, columns))
    }
}

impl Weights for GgufWeights {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let info = self.content.tensor_infos.get(&gguf_name(name)?)?;
        Some(info.shape.dims().to_vec())
    }

    fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        let read = || {
            let name_there = gguf_name(name).unwrap_or_default();
            let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let quantized = self.content.tensor(&mut *file, &name_there, &Device::Cpu)?;
            let tensor = quantized.dequantize(&Device::Cpu)?.to_dtype(DType::F32)?;
            self.halves(name, tensor)
        };
        read().map_err(|error| LoadError::Malformed {
            path: self.path.clone(),
            cause: format!("tensor {name}: {error}"),
        })
    }

    /// The format of the first layer's projections stands for the file.
    fn format(&self) -> String {
        let info = self.content.tensor_infos.get("blk.0.ffn_up.weight");
        let dtype = info.map(|info| format!(" {:?}", info.ggml_dtype)).unwrap_or_default();
        format!("GGUF{dtype}")
    }
}

/// llama.cpp's name of a tensor.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let module = match module {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{module}.{kind}"))
}

fn whole_number(value: &Value) -> Option<usize> {
    let number = match value {
        Value::U8(n) => u64::from(*n),
        Value::U16(n) => u64::from(*n),
        Value::U32(n) => u64::from(*n),
        Value::U64(n) => *n,
        Value::I32(n) => u64::try_from(*n).ok()?,
        Value::I64(n) => u64::try_from(*n).ok()?,
        _ => return None,
    };
    usize::try_from(number).ok()
}

fn real_number(value: &Value) -> Option<f64> {
    match value {
        Value::F32(n) => Some(f64::from(*n)),
        Value::F64(n) => Some(*n),
        _ => None,
    }
}
