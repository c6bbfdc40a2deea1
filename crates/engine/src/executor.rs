use std::time::Duration;

use metron_trace::{OperatorSpan, Phases, RequestId, Timestamp, Work};

use crate::{Batch, Sequence};

/// Carries out batches, and owns the clock.
///
/// One step loop serves every executor: the real one blocks until its device is done, the
/// simulated one moves its clock. The loop calls [`submit`](Self::submit) while fewer than
/// [`depth`](Self::depth) batches are in flight, and [`next_outcome`](Self::next_outcome) for
/// their results, which come in the order of submission.
pub trait Executor {
    /// The time since the run started.
    fn now(&self) -> Timestamp;

    /// Batches that may be in flight: 1, the number of pipeline stages, or 2 if the next step is to
    /// be planned while one runs. A sequence is in one of them at most.
    fn depth(&self) -> usize {
        1
    }

    /// Starts a batch. Everything needed after the call is copied: the batch is borrowed.
    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError>;

    /// Waits for the oldest batch in flight, but not beyond `until`, and writes its result into
    /// `outcome`, whose buffers are reused. False if `until` came first; where nothing is in
    /// flight this is how the loop sleeps. An executor in real time may return sooner, so that the
    /// loop can see whether it is to stop: it is asked again for what is left.
    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError>;

    /// The sequence has ended: whatever the executor kept for it can go.
    fn ended(&mut self, _sequence: &Sequence) {}
}

/// What came out of one batch.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// When the executor took the batch.
    pub started_at: Timestamp,
    /// When its tokens had reached the host.
    pub ended_at: Timestamp,
    /// The executor's own phases (`schedule` is the loop's).
    pub phases: Phases,
    /// What the operators took, where the executor was asked to time them.
    pub operators: Vec<OperatorSpan>,
    /// A token for each item of the batch that samples, in the batch's order.
    pub tokens: Vec<SampledToken>,
    /// Text that the tokens completed, where the executor has a tokenizer; appended as UTF-8.
    pub text: Vec<TextPiece>,
}

impl Outcome {
    /// Empties it for reuse.
    pub fn clear(&mut self) {
        self.phases = Phases::default();
        self.operators.clear();
        self.tokens.clear();
        self.text.clear();
    }
}

/// One sampled token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledToken {
    /// Whose.
    pub request: RequestId,
    /// Its id; `None` where nothing is generated (virtual time).
    pub id: Option<u32>,
    /// Whether it ends the sequence by itself.
    pub is_end_of_sequence: bool,
}

/// Text that became complete with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPiece {
    /// Whose.
    pub request: RequestId,
    /// The text.
    pub text: String,
}

/// Why a batch could not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("the executor failed in step {step}: {cause}")]
pub struct ExecutorError {
    /// The step.
    pub step: u64,
    /// What went wrong.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// Predicts the time of a step.
pub trait CostModel: Send + Sync {
    /// The time of a step that runs `work` (its context and tokens by sequence and kind).
    fn step_time(&self, work: &[Work]) -> Duration;
}
