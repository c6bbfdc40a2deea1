use std::collections::VecDeque;
use std::fmt;

use metron_engine::{Event, Planner, Refused};
use metron_trace::{PreemptionCause, RequestId};

/// First come, first served: who waits and who runs, oldest first.
///
/// Request ids follow the order of arrival, so sorting by id is sorting by arrival.
#[derive(Debug, Default)]
pub struct Queues {
    waiting: VecDeque<RequestId>,
    running: Vec<RequestId>,
}

impl Queues {
    /// Keeps the queues up to date; a policy passes every event on.
    pub fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(view) => self.waiting.push_back(view.id()),
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => {
                // Both are in order, and thousands may wait.
                if let Ok(at) = self.running.binary_search(&id) {
                    self.running.remove(at);
                } else if let Ok(at) = self.waiting.binary_search(&id) {
                    self.waiting.remove(at);
                }
            }
        }
    }

    /// Who waits, the next to be admitted first.
    pub fn next_waiting(&self) -> Option<RequestId> {
        self.waiting.front().copied()
    }

    /// Who runs, in order of arrival.
    pub fn running(&self) -> &[RequestId] {
        &self.running
    }

    /// The next that waits runs now.
    pub fn start_next(&mut self) {
        if let Some(id) = self.waiting.pop_front() {
            let at = self.running.partition_point(|running| *running < id);
            self.running.insert(at, id);
        }
    }

    /// Gives the next that waits up, for a reason that the user is told.
    pub fn reject_next(
        &mut self,
        plan: &mut Planner<'_>,
        reason: impl fmt::Display,
    ) -> Result<(), Refused> {
        self.waiting.pop_front().map_or(Ok(()), |id| plan.reject(id, reason))
    }

    /// Plans one token for every running sequence that has one pending.
    pub fn run_each(&self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        for &id in &self.running {
            if can_run(plan, id) {
                plan.run(id, 1)?;
            }
        }
        Ok(())
    }

    /// Admits who waits, as long as slots and blocks for the longest sequence are free, and runs
    /// their whole prompts. In a pool that is smaller than the context one alone has it all.
    pub fn start_reserving_whole_length(&mut self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        let whole_length = plan.limits().longest_sequence();
        while let Some(id) = self.next_waiting() {
            if plan.admit(id, whole_length, 0).is_err() {
                break;
            }
            self.start_next();
            plan.run(id, prompt_of(plan, id))?;
        }
        Ok(())
    }

    /// Plans one token for `id`, preempting those that came after it, the newest first, as long as
    /// no block is free: vLLM v0's `can_append_slot`, which wants one even if `id` has room left in
    /// its last.
    ///
    /// `id` itself is preempted only if it can't run: in the sources it goes for want of a free
    /// block too, so a sequence that has the pool to itself recomputes everything for each token
    /// of its last block.
    pub fn decode_or_preempt(
        &mut self,
        plan: &mut Planner<'_>,
        id: RequestId,
    ) -> Result<(), Refused> {
        while plan.free_blocks() < 1 {
            let Some(victim) = self.newest_after(plan, id) else { break };
            self.preempt(plan, victim)?;
        }
        match plan.run(id, 1) {
            Err(Refused::Blocks { .. }) => self.preempt(plan, id),
            answer => answer.map(|_| ()),
        }
    }

    /// The newest that came after `id` and is in no batch in flight.
    fn newest_after(&self, plan: &Planner<'_>, id: RequestId) -> Option<RequestId> {
        let is_idle = |id| plan.view(id).is_some_and(|view| !view.is_in_flight());
        let mut newer = self.running.iter().rev().copied().take_while(|newer| *newer > id);
        newer.find(|newer| is_idle(*newer))
    }

    /// Preempts one that runs, to its place among those who wait.
    fn preempt(&mut self, plan: &mut Planner<'_>, id: RequestId) -> Result<(), Refused> {
        plan.preempt(id, PreemptionCause::OutOfBlocks)?;
        self.running.retain(|running| *running != id);
        let at = self.waiting.partition_point(|waiting| *waiting < id);
        self.waiting.insert(at, id);
        Ok(())
    }
}

/// One percent of the pool: what vLLM v0 and Sarathi-Serve leave free when they admit a prompt.
pub(crate) fn watermark(plan: &Planner<'_>) -> u32 {
    plan.limits().num_blocks / 100
}

/// Whether a request can run: part of its positions is pending, and nothing of it is in flight.
pub(crate) fn can_run(plan: &Planner<'_>, id: RequestId) -> bool {
    plan.view(id).is_some_and(|view| !view.is_in_flight() && view.pending() > 0)
}

/// Whether a request can run and only its newest token is pending.
pub(crate) fn can_decode(plan: &Planner<'_>, id: RequestId) -> bool {
    can_run(plan, id) && plan.view(id).is_some_and(|view| view.is_decoding())
}

/// Positions to reserve for a prompt; a preempted sequence's prompt includes what it generated.
pub(crate) fn prompt_of(plan: &Planner<'_>, id: RequestId) -> u32 {
    plan.view(id).map_or(0, |view| view.target())
}
