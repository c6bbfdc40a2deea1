use std::collections::VecDeque;

use metron_engine::{Batch, CostModel, Executor, ExecutorError, Outcome, SampledToken};
use metron_trace::{RequestId, Timestamp};

/// Runs batches in virtual time: a batch takes as long as the cost model says, and waiting sets
/// the clock. No policy or observer can tell, and no machine's clock is read, so a run is the same
/// every time. It runs one batch at a time: a batch submitted while another is in flight waits.
#[derive(Debug)]
pub struct SimExecutor<C> {
    cost_model: C,
    now: Timestamp,
    in_flight: VecDeque<Flight>,
    spare: Vec<Flight>,
}

#[derive(Debug, Default)]
struct Flight {
    started_at: Timestamp,
    ended_at: Timestamp,
    samples: Vec<RequestId>,
}

impl<C: CostModel> SimExecutor<C> {
    /// An executor whose clock stands at the start of the run.
    pub fn new(cost_model: C) -> Self {
        Self { cost_model, now: Timestamp::ZERO, in_flight: VecDeque::new(), spare: Vec::new() }
    }
}

impl<C: CostModel> Executor for SimExecutor<C> {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        let mut flight = self.spare.pop().unwrap_or_default();
        flight.started_at = self.in_flight.back().map_or(self.now, |before| before.ended_at);
        flight.ended_at = flight.started_at + self.cost_model.step_time(batch.work());
        flight.samples.clear();
        flight.samples.extend(batch.items().iter().filter(|i| i.samples).map(|i| i.request));
        self.in_flight.push_back(flight);
        Ok(())
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        let ends_at = self.in_flight.front().map(|flight| flight.ended_at);
        let Some(flight) = ends_at
            .filter(|ends_at| until.is_none_or(|until| *ends_at <= until))
            .and_then(|_| self.in_flight.pop_front())
        else {
            self.now = self.now.max(until.unwrap_or(self.now));
            return Ok(false);
        };
        self.now = self.now.max(flight.ended_at);
        outcome.clear();
        outcome.started_at = flight.started_at;
        outcome.ended_at = flight.ended_at;
        outcome.tokens.extend(flight.samples.iter().map(|&request| SampledToken {
            request,
            id: None,
            is_end_of_sequence: false,
        }));
        self.spare.push(flight);
        Ok(true)
    }
}
