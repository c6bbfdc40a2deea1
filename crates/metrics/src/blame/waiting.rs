use std::collections::BTreeMap;

use metron_trace::{Limits, StepRecord, Trace};

use crate::timeline::Places;

/// What nobody could have been admitted without, after one step was planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// A slot is free.
    pub(crate) has_slot: bool,
    /// KV blocks that are free.
    pub(crate) blocks_free: u32,
    /// KV blocks that the request that has waited longest needs; 0 if none waits.
    pub(crate) blocks_wanted: u32,
}

impl Room {
    /// Whether a request that waits lacked nothing but KV blocks: those that it needs itself, or
    /// those of the one before it.
    pub(crate) fn lacks_blocks(&self, own: u32) -> bool {
        self.has_slot && self.blocks_free < own.max(self.blocks_wanted)
    }
}

/// The room after each step was planned. The trace does not say why nobody else was admitted; this
/// is what it can be told from.
pub(crate) fn rooms(trace: &Trace, places: &Places, reservation: Reservation) -> Vec<Room> {
    let limits = &trace.header.limits;
    let mut queue = Queue { trace, places, waiting: BTreeMap::new(), arrived: 0, ended: 0 };
    let room = |step: &StepRecord| {
        queue.plan(step);
        let wanted = queue.waiting.first_key_value().map(|(_, tokens)| *tokens);
        Room {
            has_slot: step.num_running < limits.max_num_seqs,
            blocks_free: step.blocks_free,
            blocks_wanted: wanted.map_or(0, |tokens| reservation.blocks(tokens, limits)),
        }
    };
    trace.steps.iter().map(room).collect()
}

/// What a policy reserves for a sequence that it admits, as far as its steps show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// Blocks for the tokens that it has, if a hundredth of the pool stays free behind it.
    Tokens,
    /// Blocks for the longest sequence.
    WholeLength,
}

impl Reservation {
    /// Every sequence of every step holds the blocks of the longest, or not.
    pub(crate) fn of(trace: &Trace) -> Self {
        let limits = &trace.header.limits;
        let whole = u64::from(blocks(limits.max_model_len, limits));
        let holds_whole =
            |step: &StepRecord| u64::from(step.blocks_used) >= whole * u64::from(step.num_running);
        if trace.steps.iter().all(holds_whole) { Self::WholeLength } else { Self::Tokens }
    }

    /// Blocks that have to be free before a sequence of `tokens` is admitted.
    pub(crate) fn blocks(self, tokens: u32, limits: &Limits) -> u32 {
        match self {
            Self::Tokens => blocks(tokens, limits).saturating_add(limits.num_blocks / 100),
            Self::WholeLength => blocks(limits.max_model_len, limits),
        }
    }
}

/// As [`Limits::blocks_for`], also where a damaged header has blocks without positions.
fn blocks(tokens: u32, limits: &Limits) -> u32 {
    tokens.div_ceil(limits.block_size.max(1))
}

/// Who waits for admission as the steps go by.
struct Queue<'a> {
    trace: &'a Trace,
    places: &'a Places,
    /// Tokens to reserve for, by place in order of arrival.
    waiting: BTreeMap<usize, u32>,
    arrived: usize,
    ended: usize,
}

impl Queue<'_> {
    /// Takes what happened until a step was planned, and its plan.
    fn plan(&mut self, step: &StepRecord) {
        let new = &self.trace.requests[self.arrived..];
        for request in new.iter().take_while(|request| request.arrived_at <= step.planned_at) {
            self.waiting.insert(self.arrived, request.prompt_tokens);
            self.arrived += 1;
        }
        let ends = &self.trace.ends[self.ended..];
        for end in ends.iter().take_while(|end| end.ended_at <= step.planned_at) {
            self.places.of(end.request).map(|place| self.waiting.remove(&place));
            self.ended += 1;
        }
        for preemption in &step.preemptions {
            if let Some(place) = self.places.of(preemption.request) {
                self.waiting.insert(place, preemption.tokens_lost.saturating_add(1));
            }
        }
        for work in &step.work {
            self.places.of(work.request).map(|place| self.waiting.remove(&place));
        }
    }
}
