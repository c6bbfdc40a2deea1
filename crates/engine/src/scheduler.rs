use std::time::Duration;

use metron_trace::{Deadlines, RequestId, StepRecord, Timestamp};

use crate::planner::{Planner, Refused};
use crate::sequence::{Sequence, SequenceState};

/// A batching policy.
///
/// The policy owns order: it keeps its own queues of request ids and decides who runs next. The
/// engine owns truth: sequences, blocks, what is in flight. A policy never sees a clock, an
/// executor, or a request's true output length.
pub trait Scheduler: Send {
    /// Something happened. Called in the order of events, each exactly once.
    fn observe(&mut self, event: Event<'_>);

    /// Plans the next step through the checked transaction `plan`. A plan that runs nothing
    /// waits; [`Wake`] says until when. One that only preempts or rejects is followed by another
    /// at once. A refusal that the policy did not expect may be let out
    /// with `?`: it ends the run with an error that names the policy, the step and the numbers.
    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused>;
}

/// What a policy is told.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A request arrived and waits for admission.
    Arrived(View<'a>),
    /// A step is done; its tokens are counted in the sequences. Sequences that it ended are
    /// reported next.
    Stepped(&'a StepRecord),
    /// A sequence generated its last token; its blocks are free.
    Finished(RequestId),
    /// A sequence was rejected by the policy, or withdrawn; its blocks are free.
    Aborted(RequestId),
}

/// When to ask the policy again, if its plan ran nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// At the next event. If requests could run, nothing is planned and nothing is in flight,
    /// this is a stall, which ends the run with an error.
    OnEvent,
    /// At the next event, or at this time if it comes first.
    At(Timestamp),
}

/// What a policy may see of a request in progress.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(pub(crate) &'a Sequence);

impl View<'_> {
    /// Its name.
    pub fn id(&self) -> RequestId {
        self.0.id()
    }

    /// When it arrived, as the workload intended.
    pub fn arrived_at(&self) -> Timestamp {
        self.0.request.arrived_at
    }

    /// Length of its prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.0.request.prompt_tokens
    }

    /// The most output tokens it may get: the cap that the client sent, or what fits the context.
    pub fn max_tokens(&self) -> u32 {
        self.0.request.max_tokens
    }

    /// Tokens generated so far.
    pub fn generated(&self) -> u32 {
        self.0.generated
    }

    /// Positions in the KV cache.
    pub fn computed(&self) -> u32 {
        self.0.computed
    }

    /// Positions to compute before its next token, all told: prompt and generated tokens.
    pub fn target(&self) -> u32 {
        self.0.target()
    }

    /// Positions that could run now.
    pub fn pending(&self) -> u32 {
        self.0.pending()
    }

    /// Whether only its newest token is left to run: it decodes. So does a sequence that was
    /// preempted and has recomputed all but that.
    pub fn is_decoding(&self) -> bool {
        self.0.generated > 0 && self.0.target() - self.0.computed == 1
    }

    /// Whether part of it is being carried out now.
    pub fn is_in_flight(&self) -> bool {
        self.0.in_flight > 0
    }

    /// Where it stands.
    pub fn state(&self) -> SequenceState {
        self.0.state
    }

    /// Its class in the workload.
    pub fn class(&self) -> u32 {
        self.0.request.class
    }

    /// Larger is more urgent.
    pub fn priority(&self) -> i32 {
        self.0.request.priority
    }

    /// Its deadlines, if the run has any.
    pub fn deadlines(&self) -> Option<Deadlines> {
        self.0.request.deadlines
    }

    /// When its first token was ready.
    pub fn first_token_at(&self) -> Option<Timestamp> {
        self.0.first_token_at
    }

    /// When its newest token was ready.
    pub fn last_token_at(&self) -> Option<Timestamp> {
        self.0.last_token_at
    }

    /// How long ago it arrived.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.arrived_at())
    }

    /// Times it lost its blocks.
    pub fn preemptions(&self) -> u32 {
        self.0.preemptions
    }
}
