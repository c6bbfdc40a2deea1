//! Where a model's tensors come from: safetensors, GGUF, or a seed.

mod dummy;
mod gguf;
mod gguf_check;
#[cfg(test)]
pub(crate) mod gguf_file;
mod safetensors;

use std::path::PathBuf;

use candle_core::Tensor;

use crate::config::{ConfigError, ModelConfig};
use crate::dtype::StoredDtype;
use crate::hub::HubError;

pub(crate) use dummy::DummyWeights;
pub(crate) use gguf::GgufWeights;
pub(crate) use safetensors::SafetensorsWeights;

/// By how much each frequency of the rotary embedding is stretched, `[head_dim / 2]`; only some GGUF
/// files have it.
pub(crate) const ROPE_DIVISORS: &str = "rope_divisors";

/// Hands out tensors by their Hugging Face names, as f32 on the CPU.
pub(crate) trait Weights {
    /// The shape of a tensor, if there is one of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// A tensor that is there.
    fn tensor(&self, name: &str) -> Result<Tensor, LoadError>;

    /// What the files are, in a word or two (`GGUF Q4_1`).
    fn format(&self) -> String;

    /// The number format of the projections, if all have the same.
    fn stored_dtype(&self) -> StoredDtype;
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
        /// Every tensor that is missing, has another shape, or is not known.
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
    /// Candle refused.
    #[error("loading the model: {0}")]
    Candle(#[from] candle_core::Error),
}

/// Checks that every tensor of the shape is there, and names all that are not.
pub(crate) fn check_complete(
    weights: &dyn Weights,
    config: &ModelConfig,
    source_name: &str,
) -> Result<(), LoadError> {
    let problems: Vec<String> = config
        .tensors()
        .into_iter()
        .filter_map(|(name, expected)| match weights.shape(&name) {
            None => Some(format!("{name} is missing")),
            Some(shape) if shape != expected => {
                Some(format!("{name} is {shape:?} and must be {expected:?}"))
            }
            Some(_) => None,
        })
        .collect();
    mismatch(source_name, &problems)
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
