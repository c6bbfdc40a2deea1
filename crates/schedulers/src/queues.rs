use std::collections::VecDeque;

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
                self.waiting.retain(|waiting| *waiting != id);
                self.running.retain(|running| *running != id);
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

    /// Preempts the newest that runs, to the head of those who wait.
    pub fn preempt_newest(&mut self, plan: &mut Planner<'_>) -> Result<RequestId, Refused> {
        let victim = self.running.pop().expect("the caller is running");
        plan.preempt(victim, PreemptionCause::OutOfBlocks)?;
        self.waiting.push_front(victim);
        Ok(victim)
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
    /// their whole prompts.
    pub fn start_reserving_whole_length(&mut self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        let whole_length = plan.limits().max_model_len;
        while let Some(id) = self.next_waiting() {
            if plan.admit(id, whole_length, 0).is_err() {
                break;
            }
            self.start_next();
            plan.run(id, prompt_of(plan, id))?;
        }
        Ok(())
    }

    /// Plans one token for `id`, preempting the newest as long as no block is free: vLLM v0's
    /// `can_append_slot`, which wants one even if `id` has room left in its last. False if `id`
    /// itself was the newest and was preempted.
    pub fn decode_or_preempt(
        &mut self,
        plan: &mut Planner<'_>,
        id: RequestId,
    ) -> Result<bool, Refused> {
        while plan.free_blocks() < 1 {
            if self.preempt_newest(plan)? == id {
                return Ok(false);
            }
        }
        plan.run(id, 1)?;
        Ok(true)
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
