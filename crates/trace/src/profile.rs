use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ExecutorInfo, Machine, ModelInfo, Operator};

/// Version of the stored profile.
pub const PROFILE_VERSION: u32 = 1;

/// What the parts of a step cost on one machine, over a grid of batch shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Version of the stored form.
    pub profile_version: u32,
    /// Version of Metron that wrote it.
    pub metron_version: String,
    /// Wall-clock date, RFC 3339.
    pub created_at: Option<String>,
    /// The command as typed.
    pub command_line: Vec<String>,
    /// The model.
    pub model: ModelInfo,
    /// What ran it.
    pub executor: ExecutorInfo,
    /// The machine.
    pub machine: Machine,
    /// What the machine can do at most.
    pub roofs: Roofs,
    /// Each shape with what was measured.
    pub shapes: Vec<ShapeProfile>,
}

/// The measured limits of the device that computes: no operator is faster than both allow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Roofs {
    /// Bytes a second of a STREAM triad, `a = b + s * c`, over arrays beyond the caches.
    pub triad_bytes_per_second: f64,
    /// Bytes a second of reading such an array.
    pub read_bytes_per_second: f64,
    /// Floating-point operations a second of the best large matrix product, in f32 or, where the
    /// model's are, in bf16.
    pub flops_per_second: f64,
}

impl Roofs {
    /// The greater of the two bandwidths.
    pub fn bytes_per_second(&self) -> f64 {
        self.triad_bytes_per_second.max(self.read_bytes_per_second)
    }

    /// The least time in which this machine could do so much.
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops_per_second).max(bytes / self.bytes_per_second())
    }
}

/// A step to be measured: sequences that decode, and a chunk of another's prefill.
///
/// Written `prefill:512`, `decode:8x128` (batch by context), `hybrid:8x128+256`; a chunk behind
/// `n` positions ends in `@n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BatchShape {
    /// Sequences that decode one token each.
    pub decodes: u32,
    /// Positions in the KV cache of each of them.
    pub decode_context: u32,
    /// Tokens of the prefill chunk.
    pub prefill_tokens: u32,
    /// Positions in the KV cache before the chunk.
    pub prefill_context: u32,
}

impl BatchShape {
    /// Tokens that run through the model.
    pub fn tokens(&self) -> u32 {
        self.decodes + self.prefill_tokens
    }

    /// The sequences: (tokens, context) of each.
    pub fn sequences(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let chunk = (self.prefill_tokens, self.prefill_context);
        std::iter::repeat_n((1, self.decode_context), self.decodes as usize)
            .chain((chunk.0 > 0).then_some(chunk))
    }

    /// Positions of the longest sequence after the step.
    pub fn longest(&self) -> u32 {
        let ends = self.sequences().map(|(tokens, context)| tokens.saturating_add(context));
        ends.max().unwrap_or(0)
    }

    /// KV blocks that its sequences need.
    pub fn blocks(&self, block_size: u32) -> u32 {
        let blocks = self
            .sequences()
            .map(|(tokens, context)| tokens.saturating_add(context).div_ceil(block_size));
        blocks.fold(0, u32::saturating_add)
    }
}

/// Why a text is no batch shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no batch shape; shapes are prefill:TOKENS, decode:BATCHxCONTEXT and \
     hybrid:BATCHxCONTEXT+TOKENS, a prefill behind N positions ends in @N, numbers are from 1 to \
     1048576"
)]
pub struct ShapeError(String);

impl FromStr for BatchShape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        parse(text).ok_or_else(|| ShapeError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<BatchShape> {
    let number = |text: &str| text.parse().ok().filter(|n| (1..=1 << 20).contains(n));
    let decodes = |text: &str| {
        let (batch, context) = text.split_once('x')?;
        Some((number(batch)?, number(context)?))
    };
    let chunk = |text: &str| match text.split_once('@') {
        Some((tokens, context)) => Some((number(tokens)?, number(context)?)),
        None => Some((number(text)?, 0)),
    };
    let ((decodes, decode_context), (prefill_tokens, prefill_context)) =
        match text.split_once(':')? {
            ("prefill", rest) => ((0, 0), chunk(rest)?),
            ("decode", rest) => (decodes(rest)?, (0, 0)),
            ("hybrid", rest) => {
                let (batch, tokens) = rest.split_once('+')?;
                (decodes(batch)?, chunk(tokens)?)
            }
            _ => return None,
        };
    Some(BatchShape { decodes, decode_context, prefill_tokens, prefill_context })
}

impl fmt::Display for BatchShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decodes, decode_context, prefill_tokens, prefill_context } = *self;
        match (decodes, prefill_tokens) {
            (0, tokens) => write!(f, "prefill:{tokens}")?,
            (_, 0) => write!(f, "decode:{decodes}x{decode_context}")?,
            (_, tokens) => write!(f, "hybrid:{decodes}x{decode_context}+{tokens}")?,
        }
        if prefill_context > 0 { write!(f, "@{prefill_context}") } else { Ok(()) }
    }
}

impl TryFrom<String> for BatchShape {
    type Error = ShapeError;

    fn try_from(text: String) -> Result<Self, ShapeError> {
        text.parse()
    }
}

impl From<BatchShape> for String {
    fn from(shape: BatchShape) -> Self {
        shape.to_string()
    }
}

/// What was measured of one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShapeProfile {
    /// The shape.
    pub shape: BatchShape,
    /// Times of whole steps, from the batch to the sampled tokens, with operators not timed.
    pub steps: Vec<Duration>,
    /// The part of each that was not the model's forward pass.
    pub outside_forward: Vec<Duration>,
    /// Times of steps whose operators were timed; each ran right after its like in `steps`.
    pub traced_steps: Vec<Duration>,
    /// What the operators took, each summed over the layers.
    pub operators: Vec<OperatorProfile>,
    /// Events that the processor counted in a step, by phase; `None` where it may not be asked.
    pub counters: Option<StepCounters>,
}

/// One operator in a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatorProfile {
    /// Which.
    pub operator: Operator,
    /// Times it ran in the step.
    pub calls: u32,
    /// Its median time in a step, in seconds.
    pub seconds: f64,
    /// Floating-point operations that its definition asks for.
    pub flops: f64,
    /// Bytes that it has to move at least: weights, KV cache and activations, each once.
    pub bytes: f64,
}

/// Hardware counters by phase of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCounters {
    /// Of the forward pass.
    pub forward: Counters,
    /// Of transfer and sampling.
    pub sampling: Counters,
}

/// Hardware events of all threads that compute, in user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Clock cycles.
    pub cycles: u64,
    /// Instructions retired.
    pub instructions: u64,
    /// Accesses that missed the last cache.
    pub cache_misses: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_they_are_written() {
        for text in ["prefill:512", "prefill:64@1024", "decode:8x128", "hybrid:8x128+256@512"] {
            assert_eq!(text.parse::<BatchShape>().unwrap().to_string(), text);
        }
        for text in ["", "prefill", "prefill:0", "decode:8", "hybrid:8x1", "decode:ax1", "all:1"] {
            assert!(text.parse::<BatchShape>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_shape_knows_its_sequences_and_blocks() {
        let shape: BatchShape = "hybrid:2x31+20@16".parse().unwrap();
        assert_eq!(shape.sequences().collect::<Vec<_>>(), [(1, 31), (1, 31), (20, 16)]);
        assert_eq!((shape.tokens(), shape.longest(), shape.blocks(16)), (22, 36, 2 + 2 + 3));
    }
}
