use std::collections::VecDeque;
use std::fmt;

use metron_trace::{EndStatus, Limits, RequestEnd, RequestId, StepRecord, Timestamp, Token};

use crate::arrivals::{Arrivals, Submission};
use crate::batch::{Batch, BatchItem};
use crate::error::EngineError;
use crate::executor::{CostModel, Executor, Outcome};
use crate::observer::StepObserver;
use crate::planner::{Books, CostModelRef, Draft, Planner, Rejected};
use crate::policy::Policy;
use crate::scheduler::{Event, Scheduler, View, Wake};
use crate::sequence::Sequence;

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
            policy: Policy { name: self.policy, scheduler },
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
            preemptions_since_token: 0,
        };
        run.serve()
    }
}

/// Preemptions without a token in between, for each request in progress, that end a run.
///
/// At this number some request has been admitted and has lost its blocks again so many times while
/// nobody got anything for it. A policy that means to serve preempts one request for another, and
/// the other gets its token; it does not go round in a circle 64 times.
const VAIN_PREEMPTIONS: u64 = 64;

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
    policy: Policy<'a>,
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
    preemptions_since_token: u64,
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
                    Planned::Step | Planned::Changes => continue,
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
            self.wait([next_arrival, wake].into_iter().flatten().min())?;
        }
    }

    /// Waits for the oldest batch in flight, but not beyond `until`, nor when it is to stop.
    fn wait(&mut self, until: Option<Timestamp>) -> Result<(), EngineError> {
        loop {
            if self.executor.next_outcome(until, &mut self.outcome)? {
                return self.apply_outcome();
            }
            let is_over = until.is_none_or(|until| self.executor.now() >= until);
            if is_over || self.observer.wants_stop() {
                return Ok(());
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
                self.policy.tell(Event::Arrived(View(sequence)), self.next_step)?;
            }
        }
        Ok(())
    }

    /// Asks the policy for a step, and submits it if it runs anything.
    fn plan(&mut self) -> Result<Planned, EngineError> {
        let planned_at = self.executor.now();
        self.draft.begin();
        let Self { engine, books, draft, next_step, .. } = self;
        let cost_model = CostModelRef(engine.cost_model);
        let mut planner = Planner { now: planned_at, books, draft, cost_model };
        let wake = self.policy.plan(&mut planner, *next_step)?;
        let schedule = self.executor.now().since(planned_at);
        self.check_progress()?;
        self.end_rejected(planned_at)?;
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
        record.phases.schedule = schedule;
        let batch = Batch::new(self.next_step, &flight.items, &record.work, &self.books.sequences);
        self.executor.submit(&batch)?;
        self.flights.push_back(flight);
        self.next_step += 1;
        Ok(Planned::Step)
    }

    /// Preemptions that bring nobody a token must not go on for ever.
    fn check_progress(&mut self) -> Result<(), EngineError> {
        self.preemptions_since_token += u64::from(self.draft.num_preempted);
        let in_progress = self.books.num_in_progress();
        if self.preemptions_since_token <= VAIN_PREEMPTIONS * u64::from(in_progress.max(1)) {
            return Ok(());
        }
        Err(EngineError::NoProgress {
            policy: self.policy.name.to_owned(),
            step: self.next_step,
            preemptions: self.preemptions_since_token,
            in_progress,
        })
    }

    /// What the policy rejected has left the books already.
    fn end_rejected(&mut self, now: Timestamp) -> Result<(), EngineError> {
        for Rejected { sequence, reason } in std::mem::take(&mut self.draft.rejected) {
            let id = sequence.id();
            self.executor.ended(&sequence);
            self.observer.rejected(id, &reason).map_err(EngineError::Observer)?;
            self.record_end(id, EndStatus::Failed, now)?;
            self.policy.tell(Event::Aborted(id), self.next_step)?;
        }
        Ok(())
    }

    /// A plan that runs nothing is a wait if something is to wake the policy. If it changed who
    /// holds what, another may run something. Else it is a stall.
    fn check_not_stalled(&self, wake: Wake, now: Timestamp) -> Result<Planned, EngineError> {
        match wake {
            _ if self.draft.changes_anything() => Ok(Planned::Changes),
            Wake::At(at) if at > now => Ok(Planned::Nothing(Some(at))),
            _ if !self.flights.is_empty() => Ok(Planned::Nothing(None)),
            _ => Err(EngineError::Stalled {
                policy: self.policy.name.to_owned(),
                step: self.next_step,
                wake,
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
        self.policy.tell(Event::Stepped(&flight.record), self.next_step)?;
        self.outcome.clear();
        let ended_at = flight.record.ended_at;
        self.spare.push(flight);
        while let Some(id) = self.ended.pop() {
            self.end(id, EndStatus::Finished, ended_at)?;
            self.policy.tell(Event::Finished(id), self.next_step)?;
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
            if token.request != item.request {
                return Err(EngineError::WrongToken {
                    step: record.index,
                    sampled: token.request,
                    expected: item.request,
                });
            }
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
        if !self.tokens.is_empty() {
            self.preemptions_since_token = 0;
        }
        self.ended.reverse(); // popped from the back, in the order of the batch
        Ok(())
    }

    fn end(&mut self, id: RequestId, status: EndStatus, at: Timestamp) -> Result<(), EngineError> {
        if let Some(sequence) = self.books.end(id) {
            self.executor.ended(&sequence);
        }
        self.record_end(id, status, at)
    }

    fn record_end(
        &mut self,
        id: RequestId,
        status: EndStatus,
        at: Timestamp,
    ) -> Result<(), EngineError> {
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
            self.policy.tell(Event::Aborted(id), self.next_step)?;
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
    Step,
    /// Nothing to run, but sequences were preempted or rejected: worth asking again at once.
    Changes,
    /// Nothing; to be asked again at this time, if nothing happens before.
    Nothing(Option<Timestamp>),
}
