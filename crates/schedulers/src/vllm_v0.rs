use metron_engine::{Event, Planner, Refused, Scheduler, Wake};
use serde::{Deserialize, Serialize};

use crate::queues::{Queues, can_run, prompt_of, watermark};

/// vLLM v0: prefill first, and never in one step with decodes.
///
/// *Order* first come, first served; a preempted sequence goes to the head. *Admission* blocks for
/// the prompt, leaving 1 % of the pool free; a prompt that could never leave that much is rejected,
/// also one that has grown so long by the time it was preempted. *Packing* whole prompts up to
/// `max_num_batched_tokens`; if no prompt could start, one token of every running sequence.
/// *Victim* the newest, by recomputation.
///
/// Source: vLLM (Kwon et al., SOSP'23), sections 4.3 and 4.5; `_schedule_default` of vLLM 0.10.2
/// and Sarathi-Serve's `vllm_scheduler.py`; what is rejected is `AllocStatus.NEVER` there, and the
/// request is ignored. Departures: no swapping (sequences are alone in their group, for which vLLM
/// recomputes as well); a prompt longer than `max_num_batched_tokens` runs in a step of its own,
/// where vLLM ignores the request; a sequence that has room left in its last block is not preempted
/// for its own sake ([`Queues::decode_or_preempt`]).
#[derive(Debug)]
pub struct VllmV0 {
    options: VllmV0Options,
    queues: Queues,
}

/// Options of [`VllmV0`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VllmV0Options {
    /// The most prompt tokens of one step; vLLM's default is the greater of 2048 and
    /// `max_model_len`.
    pub max_num_batched_tokens: u32,
}

impl VllmV0 {
    /// The policy with these options.
    pub fn new(options: VllmV0Options) -> Self {
        Self { options, queues: Queues::default() }
    }

    fn start_prefills(&mut self, plan: &mut Planner<'_>) -> Result<(), Refused> {
        while let Some(id) = self.queues.next_waiting() {
            let prompt = prompt_of(plan, id);
            if let Some(reason) = never_fits(plan, prompt) {
                self.queues.reject_next(plan, reason)?;
                continue;
            }
            let over_budget = plan.tokens() + prompt > self.options.max_num_batched_tokens;
            if over_budget && plan.num_seqs() > 0
                || plan.admit(id, prompt, watermark(plan)).is_err()
            {
                break;
            }
            self.queues.start_next();
            plan.run(id, prompt)?;
        }
        Ok(())
    }
}

/// Why a prompt can't be admitted even to an empty pool, if it can't.
fn never_fits(plan: &Planner<'_>, prompt: u32) -> Option<String> {
    let (limits, keep_free) = (plan.limits(), watermark(plan));
    let (needed, num_blocks) = (limits.blocks_for(prompt), limits.num_blocks);
    (needed.saturating_add(keep_free) > num_blocks).then(|| {
        format!(
            "its {prompt} tokens need {needed} KV blocks, and {keep_free} (1 %) are to be left \
             free, but the pool has {num_blocks}; give it more blocks"
        )
    })
}

impl Scheduler for VllmV0 {
    fn observe(&mut self, event: Event<'_>) {
        self.queues.observe(event);
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        self.start_prefills(plan)?;
        if plan.num_seqs() > 0 {
            return Ok(Wake::OnEvent);
        }
        let mut next = 0;
        while let Some(&id) = self.queues.running().get(next) {
            if can_run(plan, id) {
                self.queues.decode_or_preempt(plan, id)?;
            }
            next += 1;
        }
        Ok(Wake::OnEvent)
    }
}
