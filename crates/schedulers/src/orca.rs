use metron_engine::{Event, Planner, Refused, Scheduler, Wake};

use crate::queues::Queues;

/// Orca: iteration-level scheduling with hybrid batches.
///
/// *Order* first come, first served. *Admission* whenever a slot and `max_model_len` positions
/// are free. *Packing* a token of every running sequence and the whole prompt of every new one, in
/// the same step: no chunks, no token budget. *Victim* none.
///
/// Source: Orca (Yu et al., OSDI'22), section 4.2, as Sarathi-Serve evaluates it
/// (`orca_scheduler.py`). Departures: the paper's Algorithm 1 reserves the request's own
/// `max_tokens`; the evaluation in Sarathi-Serve, and this, reserve the model's whole length. In a
/// pool smaller than that nobody would ever start; here one sequence has the whole pool.
#[derive(Debug, Default)]
pub struct Orca {
    queues: Queues,
}

impl Scheduler for Orca {
    fn observe(&mut self, event: Event<'_>) {
        self.queues.observe(event);
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        self.queues.run_each(plan)?;
        self.queues.start_reserving_whole_length(plan)?;
        Ok(Wake::OnEvent)
    }
}
