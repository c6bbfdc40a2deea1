//! Where a model's tensors come from: safetensors, GGUF, or a seed.

mod dummy;
mod gguf;
mod gguf_check;
#[cfg(test)]
pub(crate) mod gguf_file;
mod safetensors;

use std::collections::BTreeSet;
use std::path::PathBuf;

use candle_core::Tensor;

use crate::config::{ConfigError, ModelConfig};
use crate::dtype::StoredDtype;
use crate::hub::HubError;

pub(crate) use dummy::DummyWeights;
pub(crate) use gguf::{GgufWeights, read_gguf};
pub(crate) use safetensors::SafetensorsWeights;

/// By how much each frequency of the rotary embedding is stretched, `[head_dim / 2]`; only some GGUF
/// files have it.
pub(crate) const ROPE_DIVISORS: &str = "rope_divisors";

/// The projection whose number format stands for that of the files.
const PROJECTION: &str = "model.layers.0.mlp.up_proj.weight";

/// Hands out tensors by their Hugging Face names, as f32 on the CPU.
pub(crate) trait Weights {
    /// A tensor as the files have it, if there is one of this name.
    fn stored(&self, name: &str) -> Option<StoredTensor>;

    /// A tensor that is there.
    fn tensor(&self, name: &str) -> Result<Tensor, LoadError>;

    /// The files' own name of a tensor; `None` of one that such files never have.
    fn name_in_files(&self, name: &str) -> Option<String>;

    /// All tensors that the files have, by their own names.
    fn names_in_files(&self) -> Vec<String>;

    /// What the files are, in a word or two (`GGUF Q4_1`).
    fn format(&self) -> String;
}

/// What files say of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTensor {
    pub(crate) shape: Vec<usize>,
    /// The number format, by the files' own name.
    pub(crate) format: String,
    /// The same; `None` of a format whose numbers are no weights, or only with scales beside them.
    pub(crate) dtype: Option<StoredDtype>,
}

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file can't be read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: String,
    },
    /// The shape can't run.
    #[error("{source_name}: {cause}")]
    Config {
        /// The file, or the card.
        source_name: String,
        /// What is wrong.
        cause: ConfigError,
    },
    /// The weights are not those of the shape.
    #[error("{source_name}: the weights do not fit the model's shape: {problems}")]
    Mismatch {
        /// The files.
        source_name: String,
        /// Every tensor that is missing, has another shape, is in a format that is not read, or is
        /// not known.
        problems: String,
    },
    /// A file beside the weights can't be read.
    #[error(transparent)]
    File(#[from] HubError),
    /// Sequences longer than the model can tell apart.
    #[error(
        "sequences of up to {asked} positions are asked for, and {model}'s context is {context}: \
         what is computed beyond it makes no sense; lower --max-model-len"
    )]
    BeyondContext {
        /// Which.
        model: String,
        /// Positions asked for.
        asked: u32,
        /// Positions that it was made for.
        context: usize,
    },
    /// The number format can't be computed with here.
    #[error("dtype {dtype} can't be computed with on {device}; allowed are {allowed}")]
    Dtype {
        /// The number format.
        dtype: String,
        /// The device.
        device: String,
        /// What can.
        allowed: &'static str,
    },
    /// Results would depend on the batch.
    #[error(
        "batch-invariant results are not to be had on {device}, whose matrix products choose their \
         kernel by the batch; they are on the CPU (--device cpu)"
    )]
    NotBatchInvariant {
        /// The device.
        device: String,
    },
    /// The device is not there.
    #[error("device {device}: {cause}")]
    Device {
        /// The device asked for.
        device: String,
        /// Why not, and what to do.
        cause: String,
    },
    /// The KV pool has no room at all.
    #[error("a KV pool needs at least one block of at least one position")]
    EmptyKvPool,
    /// The KV pool does not fit.
    #[error(
        "a KV pool of {num_blocks} blocks takes {} MiB, but only {} MiB are free; at most \
         {most_blocks} blocks fit",
        bytes >> 20, free >> 20
    )]
    KvPool {
        /// Blocks asked for.
        num_blocks: u32,
        /// Their bytes.
        bytes: u64,
        /// Free memory.
        free: u64,
        /// Blocks that fit.
        most_blocks: u64,
    },
    /// The weights do not fit.
    #[error(
        "{model} takes {} MiB to load in {dtype}, but only {} MiB are free; {advice}",
        bytes >> 20, free >> 20
    )]
    TooLarge {
        /// Which.
        model: String,
        /// The number format of the weights.
        dtype: String,
        /// What loading takes at least.
        bytes: u64,
        /// Free memory.
        free: u64,
        /// What to do.
        advice: String,
    },
    /// Candle refused.
    #[error("loading the model: {0}")]
    Candle(#[from] candle_core::Error),
}

/// Checks that the files have every tensor of the model in its shape and in a format that is read
/// here, and no tensor that the decoder would leave out: the logits would be wrong without a word.
pub(crate) fn check_tensors(
    weights: &dyn Weights,
    config: &ModelConfig,
    source_name: &str,
) -> Result<(), LoadError> {
    let tensors = config.tensors();
    let problem = |(name, shape): (&String, &Vec<usize>)| match weights.stored(name) {
        None => Some(format!("{name} is missing")),
        Some(stored) if stored.shape != *shape => {
            Some(format!("{name} is {:?} and must be {shape:?}", stored.shape))
        }
        Some(StoredTensor { dtype: None, format, .. }) => {
            Some(format!("{name} is in {format}; allowed are F32, F16 and BF16"))
        }
        Some(_) => None,
    };
    let mut problems: Vec<String> = tensors.iter().filter_map(problem).collect();
    let names = tensors.keys().map(String::as_str).chain([ROPE_DIVISORS]);
    let known: BTreeSet<String> = names.filter_map(|name| weights.name_in_files(name)).collect();
    let mut others = weights.names_in_files();
    others.retain(|name| !known.contains(name) && !is_redundant(name, config));
    others.sort();
    let family = config.architectures.first().map_or("a model", String::as_str);
    problems.extend(
        others.iter().map(|name| format!("{name} is not part of {family} as it is computed here")),
    );
    mismatch(source_name, &problems)
}

/// Whether a tensor holds nothing new: the rotary embedding's frequencies, which old checkpoints
/// carry, and an output projection that the shape says is the embedding.
fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq")
        || (config.tie_word_embeddings && name == "lm_head.weight")
}

/// The number format of the model's matrices, if all have the same: norms and biases are often f32
/// beside them.
pub(crate) fn stored_dtype(weights: &dyn Weights, config: &ModelConfig) -> StoredDtype {
    let matrices = config.tensors().into_iter().filter(|(_, shape)| shape.len() == 2);
    StoredDtype::of_all(matrices.filter_map(|(name, _)| weights.stored(&name)?.dtype))
}

/// An error of these problems, if there are any.
fn mismatch(source_name: &str, problems: &[String]) -> Result<(), LoadError> {
    if problems.is_empty() {
        return Ok(());
    }
    let shown = problems.iter().take(8).cloned().collect::<Vec<_>>().join("; ");
    let rest = problems.len().saturating_sub(8);
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    Err(LoadError::Mismatch {
        source_name: source_name.to_owned(),
        problems: format!("{shown}{more}"),
    })
}
