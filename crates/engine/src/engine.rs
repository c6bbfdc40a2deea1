use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use metron_trace::{
    EndStatus, Limits, Request, RequestEnd, RequestId, StepRecord, Timestamp, Token,
};

use crate::batch::{Batch, BatchItem};
use crate::error::EngineError;
use crate::executor::{CostModel, Executor, Outcome};
use crate::observer::StepObserver;
use crate::planner::{Books, CostModelRef, Draft, Planner};
use crate::scheduler::{Event, Scheduler, View, Wake};
use crate::sequence::Sequence;

/// A request with the token ids of its prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The request.
    pub request: Request,
    /// `request.prompt_tokens` ids, or none in virtual time, where a prompt is only a length.
    pub prompt: Vec<u32>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// Every request ended.
    Complete,
    /// An observer asked to stop; what was in progress was cancelled.
    Stopped,
}

/// A run's settings: what the step loop works with.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    /// What errors call the policy.
    pub policy: &'a str,
    /// The limits to plan within.
    pub limits: Limits,
    /// Closed loop: the most requests in progress at a time; the next arrives when one ends.
    pub max_concurrency: Option<u32>,
    /// The latency oracle that policies may ask.
    pub cost_model: Option<&'a dyn CostModel>,
}

impl fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Engine<'_> {
    /// Serves `submissions`, in order of arrival, until all have ended or the observer asks to
    /// stop. The same loop for every executor: real time and virtual time differ only in how the
    /// executor waits.
    pub fn run<E: Executor + ?Sized>(
        &self,
        executor: &mut E,
        scheduler: &mut dyn Scheduler,
        submissions: impl IntoIterator<Item = Submission>,
        observer: &mut dyn StepObserver,
    ) -> Result<RunEnd, EngineError> {
        let arrivals = Arrivals::new(submissions, self)?;
        let run = Run {
            engine: self,
            executor,
            scheduler,
            observer,
            books: Books::new(self.limits),
            arrivals,
            draft: Draft::default(),
            flights: VecDeque::new(),
            spare: Vec::new(),
            outcome: Outcome::default(),
            tokens: Vec::new(),
            ended: Vec::new(),
            next_step: 0,
        };
        run.serve()
    }
}

/// Requests that have not arrived yet.
struct Arrivals {
    queue: VecDeque<Submission>,
    /// When the closed loop last had a client become free.
    client_free_at: Timestamp,
}

impl Arrivals {
    fn new(
        submissions: impl IntoIterator<Item = Submission>,
        engine: &Engine<'_>,
    ) -> Result<Self, EngineError> {
        let queue: VecDeque<Submission> = submissions.into_iter().collect();
        let mut latest = Timestamp::ZERO;
        for Submission { request, .. } in &queue {
            check_servable(request, &engine.limits)?;
            if request.arrived_at < latest {
                return Err(EngineError::ArrivalsGoBack { id: request.id });
            }
            latest = request.arrived_at;
        }
        Ok(Self { queue, client_free_at: Timestamp::ZERO })
    }

    /// When the next request arrives; `None` if none is left, or all clients of a closed loop
    /// are waiting for an answer.
    fn next_at(&self, in_progress: u32, max_concurrency: Option<u32>) -> Option<Timestamp> {
        if max_concurrency.is_some_and(|most| in_progress >= most) {
            return None;
        }
        let intended = self.queue.front()?.request.arrived_at;
        Some(intended.max(self.client_free_at))
    }
}

fn check_servable(request: &Request, limits: &Limits) -> Result<(), EngineError> {
    let (id, tokens) = (request.id, request.total_tokens());
    if tokens > limits.max_model_len {
        return Err(EngineError::TooLong { id, tokens, max_model_len: limits.max_model_len });
    }
    // The last token is sent, never computed.
    let needed = limits.blocks_for(tokens.saturating_sub(1));
    if needed > limits.num_blocks {
        return Err(EngineError::NeverFits { id, needed, num_blocks: limits.num_blocks });
    }
    Ok(())
}

/// A batch that is being carried out, with its record in the making.
#[derive(Default)]
struct Flight {
    record: StepRecord,
    items: Vec<BatchItem>,
}

/// The state of one run of the loop.
struct Run<'a, E: Executor + ?Sized> {
    engine: &'a Engine<'a>,
    executor: &'a mut E,
    scheduler: &'a mut dyn Scheduler,
    observer: &'a mut dyn StepObserver,
    books: Books,
    arrivals: Arrivals,
    draft: Draft,
    flights: VecDeque<Flight>,
    spare: Vec<Flight>,
    outcome: Outcome,
    tokens: Vec<Token>,
    ended: Vec<RequestId>,
    next_step: u64,
}

impl<E: Executor + ?Sized> Run<'_, E> {
    fn serve(mut self) -> Result<RunEnd, EngineError> {
        loop {
            self.deliver_arrivals()?;
            if self.observer.wants_stop() {
                return self.stop();
            }
            let mut wake = None;
            if self.flights.len() < self.executor.depth() && self.books.num_in_progress() > 0 {
                match self.plan()? {
                    Planned::Submitted => continue,
                    Planned::Nothing(until) => wake = until,
                }
            }
            let next_arrival = self.next_arrival();
            if self.flights.is_empty()
                && self.books.num_in_progress() == 0
                && next_arrival.is_none()
            {
                return Ok(RunEnd::Complete);
            }
            let until = [next_arrival, wake].into_iter().flatten().min();
            if self.executor.next_outcome(until, &mut self.outcome)? {
                self.apply_outcome()?;
            }
        }
    }

    fn next_arrival(&self) -> Option<Timestamp> {
        self.arrivals.next_at(self.books.num_in_progress(), self.engine.max_concurrency)
    }

    fn deliver_arrivals(&mut self) -> Result<(), EngineError> {
        let now = self.executor.now();
        while let Some(at) = self.next_arrival().filter(|at| *at <= now) {
            let Some(mut submission) = self.arrivals.queue.pop_front() else { break };
            submission.request.arrived_at = at;
            self.observer.arrived(&submission.request).map_err(EngineError::Observer)?;
            let sequence = Sequence::new(submission.request, submission.prompt);
            let id = sequence.id();
            self.books.arrive(sequence);
            if let Some(sequence) = self.books.sequences.get(id) {
                self.scheduler.observe(Event::Arrived(View(sequence)));
            }
        }
        Ok(())
    }

    /// Asks the policy for a step, and submits it if it runs anything.
    fn plan(&mut self) -> Result<Planned, EngineError> {
        let planned_at = self.executor.now();
        self.draft.begin();
        let wake = self.ask_policy(planned_at)?;
        if self.draft.items.is_empty() {
            return self.check_not_stalled(wake, planned_at);
        }
        let mut flight = self.spare.pop().unwrap_or_default();
        let record = &mut flight.record;
        record.index = self.next_step;
        record.planned_at = planned_at;
        record.blocks_used = self.books.pool.num_used();
        record.blocks_free = self.books.pool.num_free();
        record.num_waiting = self.books.num_waiting;
        record.num_running = self.books.num_running;
        record.predicted = self.engine.cost_model.map(|model| model.step_time(&self.draft.work));
        record.work.clone_from(&self.draft.work);
        record.preemptions.clear();
        record.preemptions.append(&mut self.draft.preemptions);
        flight.items.clone_from(&self.draft.items);
        record.phases.schedule = self.executor.now().since(planned_at);
        let batch = Batch::new(self.next_step, &flight.items, &record.work, &self.books.sequences);
        self.executor.submit(&batch)?;
        self.flights.push_back(flight);
        self.next_step += 1;
        Ok(Planned::Submitted)
    }

    fn ask_policy(&mut self, now: Timestamp) -> Result<Wake, EngineError> {
        let Self { engine, scheduler, books, draft, next_step, .. } = self;
        let mut planner =
            Planner { now, books, draft, cost_model: CostModelRef(engine.cost_model) };
        let (policy, step) = (engine.policy, *next_step);
        match catch_unwind(AssertUnwindSafe(|| scheduler.plan(&mut planner))) {
            Ok(Ok(wake)) => Ok(wake),
            Ok(Err(refused)) => {
                Err(EngineError::ImpossiblePlan { policy: policy.to_owned(), step, refused })
            }
            Err(payload) => Err(EngineError::PolicyPanicked {
                policy: policy.to_owned(),
                step,
                message: panic_message(payload.as_ref()),
            }),
        }
    }

    /// A plan that runs nothing is a wait if something is to wake the policy, else a stall.
    fn check_not_stalled(&self, wake: Wake, now: Timestamp) -> Result<Planned, EngineError> {
        match wake {
            Wake::At(at) if at > now => Ok(Planned::Nothing(Some(at))),
            _ if !self.flights.is_empty() => Ok(Planned::Nothing(None)),
            _ => Err(EngineError::Stalled {
                policy: self.engine.policy.to_owned(),
                step: self.next_step,
                waiting: self.books.num_waiting,
                running: self.books.num_running,
                free_blocks: self.books.pool.num_free(),
                num_blocks: self.engine.limits.num_blocks,
                refused: self.draft.last_refusal,
            }),
        }
    }

    /// Takes the outcome of the oldest batch in flight into the books, and tells everybody.
    fn apply_outcome(&mut self) -> Result<(), EngineError> {
        let Some(mut flight) = self.flights.pop_front() else { return Ok(()) };
        let record = &mut flight.record;
        record.started_at = self.outcome.started_at;
        record.ended_at = self.outcome.ended_at;
        record.phases =
            metron_trace::Phases { schedule: record.phases.schedule, ..self.outcome.phases };
        record.operators.clear();
        record.operators.append(&mut self.outcome.operators);
        self.take_tokens(&flight)?;
        self.observer
            .stepped(&flight.record, &self.tokens, &self.outcome.text)
            .map_err(EngineError::Observer)?;
        self.scheduler.observe(Event::Stepped(&flight.record));
        self.outcome.clear();
        let ended_at = flight.record.ended_at;
        self.spare.push(flight);
        while let Some(id) = self.ended.pop() {
            self.end(id, EndStatus::Finished, ended_at)?;
            self.scheduler.observe(Event::Finished(id));
        }
        Ok(())
    }

    fn take_tokens(&mut self, flight: &Flight) -> Result<(), EngineError> {
        self.tokens.clear();
        let record = &flight.record;
        let expected = flight.items.iter().filter(|item| item.samples).count();
        if self.outcome.tokens.len() != expected {
            return Err(EngineError::WrongOutcome {
                step: record.index,
                sampled: self.outcome.tokens.len(),
                expected,
            });
        }
        let mut sampled = self.outcome.tokens.iter();
        for item in &flight.items {
            let token = if item.samples { sampled.next() } else { None };
            let Some(sequence) = self.books.sequences.get_mut(item.request) else { continue };
            sequence.computed += item.tokens;
            sequence.most_computed = sequence.most_computed.max(sequence.computed);
            sequence.in_flight = 0;
            let Some(token) = token else { continue };
            let index = sequence.take_token(token.id, record.ended_at);
            self.tokens.push(Token {
                request: item.request,
                index,
                step: Some(record.index),
                id: token.id,
                at: record.ended_at,
            });
            if sequence.ends_with(index + 1, token.is_end_of_sequence) {
                self.ended.push(item.request);
            }
        }
        self.ended.reverse(); // popped from the back, in the order of the batch
        Ok(())
    }

    fn end(&mut self, id: RequestId, status: EndStatus, at: Timestamp) -> Result<(), EngineError> {
        if let Some(sequence) = self.books.end(id) {
            self.executor.ended(&sequence);
        }
        self.arrivals.client_free_at = at;
        let end = RequestEnd { request: id, status, ended_at: at };
        self.observer.ended(&end).map_err(EngineError::Observer)
    }

    /// Ends the run early: what is in flight is waited for, what is in progress is cancelled,
    /// what has not arrived is recorded as unsent.
    fn stop(mut self) -> Result<RunEnd, EngineError> {
        while !self.flights.is_empty() {
            if self.executor.next_outcome(None, &mut self.outcome)? {
                self.apply_outcome()?;
            }
        }
        let now = self.executor.now();
        let in_progress: Vec<RequestId> = self.books.sequences.iter().map(Sequence::id).collect();
        for id in in_progress {
            self.end(id, EndStatus::Cancelled, now)?;
            self.scheduler.observe(Event::Aborted(id));
        }
        while let Some(Submission { request, .. }) = self.arrivals.queue.pop_front() {
            self.observer.arrived(&request).map_err(EngineError::Observer)?;
            self.end(request.id, EndStatus::Unsent, now)?;
        }
        Ok(RunEnd::Stopped)
    }
}

/// What came of asking for a plan.
enum Planned {
    /// A batch is in flight.
    Submitted,
    /// Nothing; to be asked again at this time, if nothing happens before.
    Nothing(Option<Timestamp>),
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
