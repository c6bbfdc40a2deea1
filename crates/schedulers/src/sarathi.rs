use metron_engine::{Event, Planner, Refused, Scheduler, Wake};
use metron_trace::RequestId;
use serde::{Deserialize, Serialize};

use crate::queues::{Queues, can_decode, can_run, prompt_of, watermark};

/// Sarathi-Serve: stall-free batching with chunked prefills.
///
/// *Order* first come, first served; a preempted sequence goes to the head. *Admission* blocks for
/// the whole prompt, leaving 1 % of the pool free unless nothing runs. *Packing* a token of every
/// decoding sequence, then chunks of prefills that have begun, then of new ones, until the step has
/// `token_budget` tokens: no prefill is ever large enough to stall the decodes in its step. *Victim*
/// the newest, by recomputation.
///
/// Source: Sarathi-Serve (Agrawal et al., OSDI'24), section 4.2 and Algorithm 3;
/// `sarathi_scheduler.py`. Departures: where decodes alone exceed the budget the source computes a
/// negative chunk; here nothing is left of the budget. A prompt that needs more than 99 % of the pool
/// waits for ever in the source; here it is admitted when nothing runs that blocks could be kept
/// free for. A sequence that has room left in its last block is not preempted for its own sake
/// ([`Queues::decode_or_preempt`]). A recomputation whose last chunk is a single position ends with
/// a decode, outside of the budget.
#[derive(Debug)]
pub struct Sarathi {
    options: SarathiOptions,
    queues: Queues,
}

/// Options of [`Sarathi`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SarathiOptions {
    /// The most tokens of one step that holds a prefill. Decodes are never left out for it.
    pub token_budget: u32,
}

impl Sarathi {
    /// The policy with these options.
    pub fn new(options: SarathiOptions) -> Self {
        Self { options, queues: Queues::default() }
    }

    fn budget_left(&self, plan: &Planner<'_>) -> u32 {
        self.options.token_budget.saturating_sub(plan.tokens())
    }

    fn run_decodes(&mut self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        let mut next = 0;
        while let Some(&id) = self.queues.running().get(next) {
            if can_decode(plan, id) {
                self.queues.decode_or_preempt(plan, id)?;
            }
            next += 1;
        }
        Ok(())
    }

    fn continue_prefills(&self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        for &id in self.queues.running() {
            if self.budget_left(plan) == 0 {
                break;
            }
            if can_run(plan, id) {
                plan.run(id, self.budget_left(plan))?;
            }
        }
        Ok(())
    }

    fn start_prefills(&mut self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        while let Some(id) = self.next_to_start(plan) {
            self.queues.start_next();
            plan.run(id, self.budget_left(plan))?;
        }
        Ok(())
    }

    fn next_to_start(&self, plan: &mut Planner<'_>) -> Option<RequestId> {
        let id = self.queues.next_waiting().filter(|_| self.budget_left(plan) > 0)?;
        let keep_free = if self.queues.running().is_empty() { 0 } else { watermark(plan) };
        plan.admit(id, prompt_of(plan, id), keep_free).is_ok().then_some(id)
    }
}

impl Scheduler for Sarathi {
    fn observe(&mut self, event: Event<'_>) {
        self.queues.observe(event);
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        self.run_decodes(plan)?;
        self.continue_prefills(plan)?;
        self.start_prefills(plan)?;
        Ok(Wake::OnEvent)
    }
}
