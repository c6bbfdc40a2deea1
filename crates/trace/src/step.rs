use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{OperatorSpan, RequestId, Timestamp};

/// One scheduler decision and the forward pass that carried it out (the papers' *iteration*).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepRecord {
    /// The step's place in the run, from 0.
    pub index: u64,
    /// When the policy was asked for the plan.
    pub planned_at: Timestamp,
    /// When the executor took the batch.
    pub started_at: Timestamp,
    /// When the step's tokens had reached the host: the time of every token of the step.
    pub ended_at: Timestamp,
    /// Where the time went.
    pub phases: Phases,
    /// What ran, a row for each kind of work of each sequence.
    pub work: Vec<Work>,
    /// Sequences preempted while the step was planned.
    pub preemptions: Vec<Preemption>,
    /// KV blocks that sequences hold, after planning.
    pub blocks_used: u32,
    /// KV blocks that are free, after planning.
    pub blocks_free: u32,
    /// Requests that wait for admission, after planning.
    pub num_waiting: u32,
    /// Sequences admitted and not finished, after planning.
    pub num_running: u32,
    /// The step's time as the run's cost model predicted it, if there was one.
    pub predicted: Option<Duration>,
    /// What its operators took, in order of time, where the executor was asked to time them.
    pub operators: Vec<OperatorSpan>,
}

impl StepRecord {
    /// Tokens run through the model, of the given kind.
    pub fn tokens_of(&self, kind: WorkKind) -> u32 {
        self.work.iter().filter(|w| w.kind == kind).map(|w| w.tokens).sum()
    }

    /// All tokens run through the model.
    pub fn tokens(&self) -> u32 {
        self.work.iter().map(|w| w.tokens).sum()
    }

    /// From the plan to the tokens on the host.
    pub fn took(&self) -> Duration {
        self.ended_at.since(self.planned_at)
    }
}

/// One sequence's share of a step, of one kind. A chunk that recomputes some positions and then
/// goes on to new ones is recorded as two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Whose.
    pub request: RequestId,
    /// Positions in the KV cache before this work.
    pub context: u32,
    /// Positions computed by it.
    pub tokens: u32,
    /// What they were.
    pub kind: WorkKind,
}

/// What the tokens of a piece of work were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Prompt tokens, for the first time.
    Prefill,
    /// Generated tokens, for the first time.
    Decode,
    /// Positions that had been computed before and were lost to a preemption.
    Recompute,
}

/// A step's time by phase. A phase that the executor does not have is zero long; one that it
/// cannot tell apart is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// The policy's own time.
    pub schedule: Duration,
    /// Building the batch for the executor.
    pub prepare: Option<Duration>,
    /// Host to device.
    pub transfer: Option<Duration>,
    /// The model.
    pub forward: Option<Duration>,
    /// Choosing tokens from logits.
    pub sample: Option<Duration>,
    /// Device to host.
    pub transfer_back: Option<Duration>,
    /// Token ids to text; after the tokens' time was taken.
    pub detokenise: Option<Duration>,
}

/// A running sequence that lost its KV blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemption {
    /// Who lost them.
    pub request: RequestId,
    /// Why.
    pub cause: PreemptionCause,
    /// Positions of KV cache lost, to be computed again.
    pub tokens_lost: u32,
}

/// Why a sequence was preempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreemptionCause {
    /// Another sequence needed its blocks.
    OutOfBlocks,
    /// The policy preferred another request.
    Policy,
}

/// One output token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose.
    pub request: RequestId,
    /// Its place in the output, from 0.
    pub index: u32,
    /// The step that made it; `None` in an imported trace that has no steps.
    pub step: Option<u64>,
    /// Its id in the vocabulary; `None` where the executor generates none (virtual time).
    pub id: Option<u32>,
    /// The end of its transfer to the host, before it is detokenised.
    pub at: Timestamp,
}
