use std::time::Duration;

use metron_engine::{
    Batch, CostModel, Engine, EngineError, Event, Executor, ExecutorError, ObserverError, Outcome,
    Planner, Refused, RunEnd, Scheduler, StepObserver, Submission, TextPiece, Wake,
};
use metron_sim::SimExecutor;
use metron_trace::{
    Limits, Request, RequestEnd, RequestId, Sampling, StepRecord, Timestamp, Token, Work,
};

pub(crate) const LIMITS: Limits =
    Limits { block_size: 4, num_blocks: 16, max_num_seqs: 3, max_model_len: 40 };

pub(crate) struct OneMillisecondAToken;

impl CostModel for OneMillisecondAToken {
    fn step_time(&self, work: &[Work]) -> Duration {
        Duration::from_millis(work.iter().map(|w| u64::from(w.tokens)).sum())
    }
}

type Sim = SimExecutor<OneMillisecondAToken>;
type NextOutcome = fn(&mut Sim, Option<Timestamp>, &mut Outcome) -> Result<bool, ExecutorError>;

/// An executor in virtual time with a way of its own to wait.
pub(crate) struct Odd {
    executor: Sim,
    next_outcome: NextOutcome,
}

impl Odd {
    pub(crate) fn new(next_outcome: NextOutcome) -> Self {
        Self { executor: SimExecutor::new(OneMillisecondAToken), next_outcome }
    }
}

impl Executor for Odd {
    fn now(&self) -> Timestamp {
        self.executor.now()
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        self.executor.submit(batch)
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        (self.next_outcome)(&mut self.executor, until, outcome)
    }
}

/// Remembers everything.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) requests: Vec<Request>,
    pub(crate) steps: Vec<StepRecord>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) ends: Vec<RequestEnd>,
    pub(crate) rejected: Vec<String>,
    pub(crate) stop_after_steps: Option<usize>,
}

impl StepObserver for Record {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        self.requests.push(request.clone());
        Ok(())
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.steps.push(step.clone());
        self.tokens.extend(tokens);
        Ok(())
    }

    fn rejected(&mut self, id: RequestId, reason: &str) -> Result<(), ObserverError> {
        self.rejected.push(format!("{id}: {reason}"));
        Ok(())
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        self.ends.push(*end);
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.stop_after_steps.is_some_and(|most| self.steps.len() >= most)
    }
}

pub(crate) fn submission(
    id: u32,
    arrived_ms: u64,
    prompt_tokens: u32,
    output_tokens: u32,
) -> Submission {
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::from_nanos(arrived_ms * 1_000_000),
        prompt_tokens,
        output_tokens: Some(output_tokens),
        max_tokens: output_tokens,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}

pub(crate) fn run(
    scheduler: &mut dyn Scheduler,
    submissions: Vec<Submission>,
    max_concurrency: Option<u32>,
    record: &mut Record,
) -> Result<RunEnd, EngineError> {
    let engine = Engine { policy: "mine", limits: LIMITS, max_concurrency, cost_model: None };
    engine.run(&mut SimExecutor::new(OneMillisecondAToken), scheduler, submissions, record)
}

/// A policy that is a closure over the requests in progress, in order of arrival.
pub(crate) struct Policy<F> {
    pub(crate) requests: Vec<RequestId>,
    pub(crate) plan: F,
}

pub(crate) fn policy<F>(plan: F) -> Policy<F>
where
    F: FnMut(&mut Planner<'_>, &[RequestId]) -> Result<Wake, Refused> + Send,
{
    Policy { requests: Vec::new(), plan }
}

impl<F> Scheduler for Policy<F>
where
    F: FnMut(&mut Planner<'_>, &[RequestId]) -> Result<Wake, Refused> + Send,
{
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(view) => self.requests.push(view.id()),
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => self.requests.retain(|r| *r != id),
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        (self.plan)(plan, &self.requests)
    }
}

/// Admits and runs the oldest request alone, whole.
pub(crate) fn one_at_a_time(
    plan: &mut Planner<'_>,
    requests: &[RequestId],
) -> Result<Wake, Refused> {
    if let Some(&id) = requests.first() {
        // Admitted already after its first step: the refusal changes nothing.
        let _ = plan.admit(id, 0, 0);
        plan.run(id, u32::MAX)?;
    }
    Ok(Wake::OnEvent)
}
