use metron_engine::{Event, Planner, Refused, Scheduler, Wake};

use crate::queues::Queues;

/// Request-level (static) batching: what a serving system without continuous batching does.
///
/// *Order* first come, first served. *Admission* only when the last batch has drained, reserving
/// `max_model_len` positions each. *Packing* one step of whole prompts, then decodes until all
/// have finished; the batch shrinks. *Victim* none: the reservation makes it unnecessary.
///
/// Source: the policy that papers call `FasterTransformer` (Orca, OSDI'22, section 2; Vidur's
/// `faster_transformer_replica_scheduler`). Departure: the engine frees a sequence's blocks when
/// it finishes, where Vidur keeps them until the whole batch has; since nobody is admitted before
/// that, no decision differs. In a pool smaller than one reservation a batch is one sequence that has
/// the whole pool, where the sources start nobody.
#[derive(Debug, Default)]
pub struct StaticBatching {
    queues: Queues,
}

impl Scheduler for StaticBatching {
    fn observe(&mut self, event: Event<'_>) {
        self.queues.observe(event);
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        if self.queues.running().is_empty() {
            self.queues.start_reserving_whole_length(plan)?;
        } else {
            self.queues.run_each(plan)?;
        }
        Ok(Wake::OnEvent)
    }
}
