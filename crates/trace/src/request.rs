use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Names a request of a run: its place in the order of the workload, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u32);

impl RequestId {
    /// The id as an index into a table of requests.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// What a client asked for; it never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The request's name in this run.
    pub id: RequestId,
    /// The intended arrival: when the workload scheduled it, never when a late client sent it.
    /// In a closed loop: when its client was free to send it.
    pub arrived_at: Timestamp,
    /// Length of the prompt, in tokens.
    pub prompt_tokens: u32,
    /// The true output length, which only the engine sees: exactly so many tokens are generated
    /// and an end-of-sequence token does not stop it. `None`: until end of sequence or `max_tokens`.
    pub output_tokens: Option<u32>,
    /// The cap on output tokens that the client sent; what a policy may know of the length. Where
    /// it sent none, or more than fits context and KV pool, the engine makes it what fits.
    pub max_tokens: u32,
    /// The class the request belongs to (an index into the workload's classes); 0 if there is one.
    pub class: u32,
    /// Larger is more urgent.
    pub priority: i32,
    /// Deadlines in force during the run; a deadline-aware policy sees them.
    pub deadlines: Option<Deadlines>,
    /// How its tokens are chosen.
    pub sampling: Sampling,
}

impl Request {
    /// [`max_tokens`](Self::max_tokens) of a client that sent no cap.
    pub const NO_CAP: u32 = u32::MAX;

    /// The most output tokens it can get: its true length where that is known, else its cap.
    pub fn most_output_tokens(&self) -> u32 {
        self.output_tokens.unwrap_or(self.max_tokens)
    }

    /// The most tokens it can come to hold, prompt and output together.
    pub fn total_tokens(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.most_output_tokens())
    }
}

/// When a token is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// `D_p`: deadline of the first token, after the arrival.
    pub first_token: Duration,
    /// `D_d`: deadline of each later token, after the one before. At least 1 ns.
    pub next_token: Duration,
}

/// How a request's tokens are chosen from its logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 takes the most probable token; above 0 divides the logits.
    pub temperature: f32,
    /// Keep only the k most probable tokens; `None` keeps all.
    pub top_k: Option<u32>,
    /// Keep the most probable tokens whose probabilities first reach this sum; 1 keeps all.
    pub top_p: f32,
    /// The request's own stream of random numbers.
    pub seed: u64,
}

impl Sampling {
    /// The most probable token, always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: None, top_p: 1.0, seed: 0 };
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndStatus {
    /// All its tokens were generated.
    Finished,
    /// The engine or the policy gave it up.
    Failed,
    /// Its client stopped waiting.
    TimedOut,
    /// The run was interrupted, or its client withdrew it.
    Cancelled,
    /// The run ended before the workload could send it.
    Unsent,
}

/// The end of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEnd {
    /// The request that ended.
    pub request: RequestId,
    /// How.
    pub status: EndStatus,
    /// When.
    pub ended_at: Timestamp,
}
