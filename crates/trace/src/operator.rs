use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A part of what an executor does in a step, in the order in which a layer comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Rows of the embedding table.
    Embedding,
    /// Root-mean-square norms: two a layer, and the last.
    Norm,
    /// Projections to queries, keys and values, with their biases.
    Qkv,
    /// The rotary embedding of queries and keys.
    Rope,
    /// Keys and values into the KV cache.
    CacheWrite,
    /// Attention of sequences that run several tokens.
    AttentionPrefill,
    /// Attention of sequences that run one token.
    AttentionDecode,
    /// The projection of what attention gives.
    Output,
    /// The gate and up projections.
    GateUp,
    /// `silu(gate) * up`.
    Activation,
    /// The down projection.
    Down,
    /// The sums with what went around attention and around the feed-forward part.
    Residual,
    /// The last projection, of the rows that sample.
    Logits,
    /// Logits from the device to the host.
    TransferBack,
    /// Choosing tokens from logits.
    Sampling,
}

impl Operator {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Embedding,
        Self::Norm,
        Self::Qkv,
        Self::Rope,
        Self::CacheWrite,
        Self::AttentionPrefill,
        Self::AttentionDecode,
        Self::Output,
        Self::GateUp,
        Self::Activation,
        Self::Down,
        Self::Residual,
        Self::Logits,
        Self::TransferBack,
        Self::Sampling,
    ];

    /// How files and tables call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Norm => "norm",
            Self::Qkv => "qkv",
            Self::Rope => "rope",
            Self::CacheWrite => "cache_write",
            Self::AttentionPrefill => "attention_prefill",
            Self::AttentionDecode => "attention_decode",
            Self::Output => "output",
            Self::GateUp => "gate_up",
            Self::Activation => "activation",
            Self::Down => "down",
            Self::Residual => "residual",
            Self::Logits => "logits",
            Self::TransferBack => "transfer_back",
            Self::Sampling => "sampling",
        }
    }
}

/// One operator at work, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSpan {
    /// What ran.
    pub operator: Operator,
    /// In which layer, from 0; `None` where it stands outside the layers.
    pub layer: Option<u32>,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub took: Duration,
}
