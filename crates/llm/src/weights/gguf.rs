use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{DType, Device, Tensor};

use super::gguf_check::check_gguf;
use super::{LoadError, PROJECTION, ROPE_DIVISORS, StoredTensor, Weights, mismatch};
use crate::config::{ConfigError, ModelConfig, RopeScaling, RopeType};
use crate::dtype::StoredDtype;

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
        let (content, file) = read_gguf(path)?;
        let mut weights =
            Self { path: path.to_owned(), content, file: Mutex::new(file), paired: None };
        weights.check_whole()?;
        // llama.cpp stores the rows of llama's queries and keys for rotary embedding of
        // neighbours, and qwen2's as Hugging Face has them, for embedding of halves.
        if weights.architecture() == "llama" {
            let config = weights.config()?;
            weights.paired = Some((config.num_attention_heads, config.kv_heads()));
        }
        Ok(weights)
    }

    /// Refuses one file of several.
    fn check_whole(&self) -> Result<(), LoadError> {
        let parts = self.content.metadata.get("split.count").and_then(whole_number).unwrap_or(1);
        if parts <= 1 {
            return Ok(());
        }
        let cause = format!(
            "this is one of the {parts} files of a split model; merge them (llama-gguf-split --merge \
             FIRST_FILE OUTPUT) and name the whole one"
        );
        Err(LoadError::Malformed { path: self.path.clone(), cause })
    }

    fn architecture(&self) -> &str {
        self.text("general.architecture").unwrap_or_default()
    }

    /// A text of the metadata.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The token whose id the metadata has under this key.
    pub(crate) fn token(&self, id_key: &str) -> Option<String> {
        let id = whole_number(self.content.metadata.get(id_key)?)?;
        match self.content.metadata.get("tokenizer.ggml.tokens")? {
            Value::Array(tokens) => tokens.get(id)?.to_string().ok().cloned(),
            _ => None,
        }
    }

    /// End of text, and end of turn where the file has it.
    pub(crate) fn eos_ids(&self) -> BTreeSet<u32> {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        let ids = keys.into_iter().filter_map(|key| self.content.metadata.get(key));
        ids.filter_map(whole_number).filter_map(|id| u32::try_from(id).ok()).collect()
    }

    /// The shape, from the metadata.
    pub(crate) fn config(&self) -> Result<ModelConfig, LoadError> {
        let fail =
            |cause| LoadError::Config { source_name: self.path.display().to_string(), cause };
        let config = self.read_config().map_err(fail)?;
        config.check().map_err(fail)?;
        self.check_rotary(&config)?;
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
            rope_scaling: self.rope_scaling(architecture)?,
            rope_parameters: None,
            hidden_act: "silu".to_owned(),
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            sliding_window: number("attention.sliding_window").ok(),
            use_sliding_window: None,
            quantization_config: None,
        })
    }

    /// How the rotary embedding is stretched. As llama.cpp has it, stretching is linear unless the
    /// file says otherwise, and a factor of 0 is none.
    fn rope_scaling(&self, architecture: &str) -> Result<Option<RopeScaling>, ConfigError> {
        let key = |field: &str| format!("{architecture}.rope.{field}");
        match self.text(&key("scaling.type")).unwrap_or("linear") {
            "none" => return Ok(None),
            "linear" => {}
            other => {
                return Err(ConfigError::BadNumber {
                    field: "rope.scaling.type",
                    value: other.to_owned(),
                    allowed: "none or linear".to_owned(),
                });
            }
        }
        let factor = [key("scaling.factor"), key("scale_linear")]
            .iter()
            .find_map(|key| self.content.metadata.get(key).and_then(real_number))
            .filter(|factor| *factor != 0.0);
        Ok(factor.map(|factor| RopeScaling {
            rope_type: RopeType::Linear,
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 1.0,
            original_max_position_embeddings: 0,
        }))
    }

    /// Refuses a rotary embedding that the decoder would compute otherwise.
    fn check_rotary(&self, config: &ModelConfig) -> Result<(), LoadError> {
        let mut problems = Vec::new();
        let turned = format!("{}.rope.dimension_count", self.architecture());
        let turned = self.content.metadata.get(&turned).and_then(whole_number);
        let width = config.head_width();
        if let Some(turned) = turned.filter(|turned| *turned != width) {
            problems.push(format!(
                "the rotary embedding turns {turned} dimensions of a head's {width}, and only whole \
                 heads are supported"
            ));
        }
        let divisors = self.stored(ROPE_DIVISORS).map(|tensor| tensor.shape);
        if let Some(shape) = divisors.filter(|shape| *shape != [width / 2]) {
            problems.push(format!("rope_freqs.weight is {shape:?} and must be [{}]", width / 2));
        }
        mismatch(&self.path.display().to_string(), &problems)
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
    fn stored(&self, name: &str) -> Option<StoredTensor> {
        let info = self.content.tensor_infos.get(&gguf_name(name)?)?;
        let dtype = match info.ggml_dtype {
            GgmlDType::F16 => StoredDtype::F16,
            GgmlDType::BF16 => StoredDtype::Bf16,
            GgmlDType::Q8_0 => StoredDtype::Q8_0,
            _ => StoredDtype::Other,
        };
        let (shape, format) = (info.shape.dims().to_vec(), format!("{:?}", info.ggml_dtype));
        Some(StoredTensor { shape, format, dtype: Some(dtype) })
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

    fn name_in_files(&self, name: &str) -> Option<String> {
        gguf_name(name)
    }

    fn names_in_files(&self) -> Vec<String> {
        self.content.tensor_infos.keys().cloned().collect()
    }

    fn format(&self) -> String {
        let dtype = self.stored(PROJECTION).map(|tensor| format!(" {}", tensor.format));
        format!("GGUF{}", dtype.unwrap_or_default())
    }
}

/// The metadata and the table of tensors of a file, checked before Candle reads it, which panics on
/// some that it should refuse.
pub(crate) fn read_gguf(path: &Path) -> Result<(Content, BufReader<File>), LoadError> {
    check_gguf(path)?;
    let file = File::open(path).map_err(|cause| LoadError::Io { path: path.to_owned(), cause })?;
    let mut file = BufReader::new(file);
    let content = Content::read(&mut file).map_err(|error| LoadError::Malformed {
        path: path.to_owned(),
        cause: error.to_string(),
    })?;
    Ok((content, file))
}

/// llama.cpp's name of a tensor.
fn gguf_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some("output.weight".to_owned()),
        ROPE_DIVISORS => return Some("rope_freqs.weight".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::check_tensors;
    use crate::weights::gguf_file::{F32, GgufFile, STRING, U16, U32, entry, on_disk, string};

    fn open(file: &GgufFile) -> Result<GgufWeights, LoadError> {
        GgufWeights::open(on_disk(&file.bytes()).path())
    }

    #[test]
    fn rows_of_queries_come_out_in_halves() {
        let file = on_disk(&GgufFile::tiny_llama().bytes());
        let weights = GgufWeights::open(file.path()).unwrap();
        let first_column = |name: &str| -> Vec<f32> {
            let rows = weights.tensor(name).unwrap().to_vec2::<f32>().unwrap();
            rows.iter().map(|row| row[0] / 8.0).collect()
        };
        // Each head of 4 rows is stored as the pairs 0 2, 1 3.
        let queries = first_column("model.layers.0.self_attn.q_proj.weight");
        assert_eq!(queries, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        let keys = first_column("model.layers.0.self_attn.k_proj.weight");
        assert_eq!(keys, [0.0, 2.0, 1.0, 3.0]);
        let values = first_column("model.layers.0.self_attn.v_proj.weight");
        assert_eq!(values, [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn the_shape_is_read_from_metadata() {
        let config = open(&GgufFile::tiny_llama()).unwrap().config().unwrap();
        assert_eq!((config.vocab_size, config.head_width(), config.kv_heads()), (12, 4, 1));
        assert!(config.tie_word_embeddings);
    }

    fn real(key: &str, value: f32) -> Vec<u8> {
        entry(&format!("llama.{key}"), F32, &value.to_le_bytes())
    }

    fn text(key: &str, value: &str) -> Vec<u8> {
        entry(&format!("llama.{key}"), STRING, &string(value))
    }

    #[test]
    fn linear_stretching_is_read_under_its_new_and_its_old_name() {
        let scaling = |entries: &[Vec<u8>]| {
            let mut file = GgufFile::tiny_llama();
            file.entries.extend_from_slice(entries);
            open(&file).unwrap().config().unwrap().rope_scaling.map(|s| (s.rope_type, s.factor))
        };
        let (factor, linear) = (real("rope.scaling.factor", 4.0), (RopeType::Linear, 4.0));
        assert_eq!(scaling(&[]), None);
        assert_eq!(scaling(&[factor.clone(), text("rope.scaling.type", "linear")]), Some(linear));
        assert_eq!(scaling(&[real("rope.scale_linear", 4.0)]), Some(linear));
        assert_eq!(scaling(&[factor, text("rope.scaling.type", "none")]), None);
        assert_eq!(scaling(&[real("rope.scaling.factor", 0.0)]), None);
    }

    /// The shape, where all of the file is understood.
    fn read(file: &GgufFile) -> Result<ModelConfig, LoadError> {
        let weights = open(file)?;
        let config = weights.config()?;
        check_tensors(&weights, &config, "tiny.gguf")?;
        Ok(config)
    }

    #[test]
    fn what_the_decoder_would_leave_out_is_refused() {
        let refusal = |change: &dyn Fn(&mut GgufFile)| {
            let mut file = GgufFile::tiny_llama();
            change(&mut file);
            let error = read(&file).unwrap_err().to_string();
            error.split_once(": ").map(|(_path, cause)| cause.to_owned()).unwrap()
        };
        let number = |key: &str, n: u32| entry(&format!("llama.{key}"), U32, &n.to_le_bytes());
        let refusals = [
            refusal(&|file| file.entries.push(text("rope.scaling.type", "yarn"))),
            refusal(&|file| file.entries.push(number("rope.dimension_count", 2))),
            refusal(&|file| file.entries.push(number("attention.sliding_window", 8))),
            refusal(&|file| file.add("rope_freqs", &[3])),
            refusal(&|file| {
                file.add("blk.0.attn_q_norm", &[4]);
                file.add("blk.7.attn_q", &[8, 8]);
            }),
        ];
        insta::assert_snapshot!(refusals.join("\n"));
    }

    #[test]
    fn one_file_of_several_says_how_to_merge_them() {
        let of = |count: u16| {
            let mut file = GgufFile::tiny_llama();
            file.entries.push(entry("split.count", U16, &count.to_le_bytes()));
            read(&file).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!((of(0), of(1)), (Ok(()), Ok(())));
        let error = of(3).unwrap_err();
        let expected = "this is one of the 3 files of a split model; merge them (llama-gguf-split \
                        --merge FIRST_FILE OUTPUT) and name the whole one";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn metadata_that_cannot_be_is_refused_by_field() {
        let refusal = |change: fn(&mut GgufFile)| {
            let mut file = GgufFile::tiny_llama();
            change(&mut file);
            let error = open(&file).and_then(|weights| weights.config()).unwrap_err().to_string();
            error.split_once(": ").map(|(_path, cause)| cause.to_owned()).unwrap()
        };
        let refusals = [
            refusal(|file| {
                file.entries[0] = entry("general.architecture", STRING, &string("bert"));
            }),
            refusal(|file| _ = file.entries.remove(0)),
            refusal(|file| _ = file.entries.remove(3)),
            refusal(|file| file.entries[4] = entry("llama.attention.head_count", U32, &[0; 4])),
            refusal(|file| {
                file.entries[4] = entry("llama.attention.head_count", U32, &[3, 0, 0, 0]);
            }),
        ];
        insta::assert_snapshot!(refusals.join("\n"));
    }

    #[test]
    fn every_tensor_that_is_missing_or_misshapen_is_named() {
        let mut file = GgufFile::tiny_llama();
        file.tensors.drain(1..3);
        let file = on_disk(&file.bytes());
        let weights = GgufWeights::open(file.path()).unwrap();
        let mut config = weights.config().unwrap();
        config.intermediate_size = 16;
        let error = check_tensors(&weights, &config, "tiny.gguf").unwrap_err();
        insta::assert_snapshot!(error);
    }
}
