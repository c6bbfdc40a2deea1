use metron_trace::{PreemptionCause, RequestId, StepRecord, Trace, Work};

use super::cause::{ByCause, Cause};
use super::isolated::{Contents, Isolated};
use super::shortage::Shortage;
use super::waiting::{Reservation, Room, rooms};
use crate::fluidity::nanoseconds;
use crate::timeline::Places;

/// A trace prepared for saying where the time of its requests went.
pub(crate) struct Account<'a> {
    trace: &'a Trace,
    places: Places,
    isolated: Isolated,
    steps: Vec<StepFacts>,
    /// By place of the request in the trace.
    lives: Vec<Life>,
    reservation: Reservation,
    shortage: Shortage,
}

/// A step, as every request sees it. Nanoseconds.
struct StepFacts {
    planned_at: u64,
    ended_at: u64,
    /// The policy's own time.
    schedule: u64,
    /// The rest of the step that was not the model.
    around_model: u64,
    contents: Contents,
    room: Room,
}

/// Steps of the trace in which something happened to one request.
#[derive(Default)]
struct Life {
    /// Steps that ran any of its work.
    worked: Vec<usize>,
    /// Steps in whose plans it was preempted, and why.
    preempted: Vec<(usize, PreemptionCause)>,
}

/// What a request was doing in a step that ran nothing of it, or while nothing ran.
#[derive(Clone, Copy)]
enum Idle {
    /// It had not run yet.
    New,
    /// It had lost its blocks.
    Preempted(PreemptionCause),
    /// It had been admitted, and others ran.
    LeftOut,
}

/// A part of a request's time: of one step, or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The step's place in the trace; `None` while nothing ran.
    pub(crate) step: Option<usize>,
    /// Time that the request's own work would take alone.
    pub(crate) alone_ns: u64,
    /// The rest of the stretch, by what took it.
    pub(crate) delays: ByCause<u64>,
}

/// Stretches together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    /// Time that the request's own work would take alone.
    pub(crate) alone_ns: u64,
    /// The rest, by what took it.
    pub(crate) delays: ByCause<u64>,
}

/// Whole steps for which a request waited before its first.
struct Wait {
    /// When the first of them could be planned: the step before it had ended.
    begin: u64,
    /// When the last of them ended.
    end: u64,
    /// Time of those from which a shortage of blocks kept it.
    shortage_ns: u64,
}

impl Sum {
    pub(crate) fn add_all(&mut self, stretches: &[Stretch]) {
        for stretch in stretches {
            self.alone_ns = self.alone_ns.saturating_add(stretch.alone_ns);
            self.delays.add_all(&stretch.delays);
        }
    }
}

impl<'a> Account<'a> {
    /// `None` for a trace without steps or without a calibration to hold them against.
    pub(crate) fn new(trace: &'a Trace) -> Option<Self> {
        let isolated = Isolated::new(trace.header.calibration.as_ref()?);
        if trace.steps.is_empty() {
            return None;
        }
        let places = Places::new(&trace.requests);
        let reservation = Reservation::of(trace);
        let rooms = rooms(trace, &places, reservation);
        let facts = |(step, room)| StepFacts::new(step, room, &isolated);
        let steps: Vec<StepFacts> = trace.steps.iter().zip(rooms).map(facts).collect();
        let shortage =
            Shortage::of(steps.iter().map(|step| (step.planned_at..step.ended_at, step.room)));
        let lives = lives(trace, &places);
        Some(Self { trace, places, isolated, steps, lives, reservation, shortage })
    }

    /// The stretches between two instants of one request's life together.
    pub(crate) fn sum(&self, request: RequestId, from: u64, to: u64) -> Sum {
        let mut sum = Sum::default();
        let waited = self.places.of(request).and_then(|place| self.wait(place, from, to));
        let Some(Wait { begin, end, shortage_ns }) = waited else {
            sum.add_all(&self.stretches(request, from, to));
            return sum;
        };
        sum.add_all(&self.stretches(request, from, begin));
        sum.delays.add(Cause::Blocks, shortage_ns);
        sum.delays.add(Cause::Queue, (end - begin).saturating_sub(shortage_ns));
        sum.add_all(&self.stretches(request, end, to));
        sum
    }

    /// The whole steps between two instants that a request waited for its first one, but for those
    /// that had begun before it was there; `None` if there are none. A long queue waits for nearly
    /// all steps of a run, so they are not gone through one by one.
    fn wait(&self, place: usize, from: u64, to: u64) -> Option<Wait> {
        let begun = self.steps.partition_point(|step| step.planned_at < from);
        let first = self.steps.partition_point(|step| step.ended_at <= from).max(begun) + 1;
        let ended = self.steps.partition_point(|step| step.ended_at <= to);
        let worked = self.lives[place].worked.first().copied();
        let steps = first..worked.map_or(ended, |worked| worked.min(ended));
        let last = self.steps[..steps.end].last()?.ended_at;
        let begin = self.steps.get(first - 1)?.ended_at;
        (steps.start < steps.end && begin <= last).then(|| Wait {
            begin,
            end: last,
            shortage_ns: self.shortage.ns(steps, self.own_blocks(place)),
        })
    }

    /// The stretches between two instants of one request's life, in order and without a gap:
    /// all their times add up to `to - from`.
    pub(crate) fn stretches(&self, request: RequestId, from: u64, to: u64) -> Vec<Stretch> {
        let Some(place) = self.places.of(request) else { return Vec::new() };
        let mut stretches = Vec::new();
        let mut cursor = from;
        let mut at = self.steps.partition_point(|step| step.ended_at <= from);
        while let Some(step) = self.steps.get(at).filter(|step| step.planned_at < to) {
            if step.planned_at > cursor {
                stretches.push(self.between_steps(place, at, step.planned_at - cursor));
                cursor = step.planned_at;
            }
            let end = step.ended_at.min(to);
            if end > cursor {
                stretches.push(self.in_step(place, at, end - cursor));
                cursor = end;
            }
            at += 1;
        }
        if to > cursor {
            stretches.push(self.between_steps(place, at, to - cursor));
        }
        stretches
    }

    /// Nothing ran before step `at` was planned: that is the engine's time, unless the request
    /// waited for the policy to admit it.
    fn between_steps(&self, place: usize, at: usize, length: u64) -> Stretch {
        let cause = match self.lives[place].idle(at, at) {
            Idle::LeftOut => Cause::Engine,
            Idle::Preempted(PreemptionCause::OutOfBlocks) => Cause::Blocks,
            Idle::New | Idle::Preempted(PreemptionCause::Policy) => Cause::Queue,
        };
        let mut delays = ByCause::default();
        delays.add(cause, length);
        Stretch { step: None, alone_ns: 0, delays }
    }

    /// `length` of step `at`.
    fn in_step(&self, place: usize, at: usize, length: u64) -> Stretch {
        let life = &self.lives[place];
        if life.worked.binary_search(&at).is_ok() {
            return self.at_work(place, at, length);
        }
        let mut delays = ByCause::default();
        match life.idle(at, at + 1) {
            Idle::New => delays.add(self.kept_waiting_by(place, at), length),
            Idle::Preempted(PreemptionCause::OutOfBlocks) => delays.add(Cause::Blocks, length),
            Idle::Preempted(PreemptionCause::Policy) => delays.add(Cause::Queue, length),
            Idle::LeftOut => {
                let contents = self.steps[at].contents;
                let busy = self.steps[at].model_time(length, &mut delays);
                delays.add_all(&self.in_proportion(busy, &contents, Cause::Queue));
            }
        }
        Stretch { step: Some(at), alone_ns: 0, delays }
    }

    /// A step with work of the request: what the work would take alone is the request's own, and
    /// what is beyond is charged to what else was in the step.
    fn at_work(&self, place: usize, at: usize, length: u64) -> Stretch {
        let (request, step) = (self.trace.requests[place].id, &self.steps[at]);
        let work = &self.trace.steps[at].work;
        let own: Vec<&Work> = work.iter().filter(|work| work.request == request).collect();
        let own_contents = self.isolated.contents(own.iter().copied());
        let others = step.contents.without(&own_contents);
        let mut delays = ByCause::default();
        let busy = step.model_time(length, &mut delays);
        let alone_ns = self.isolated.alone(&own).map(|alone| alone.min(busy));
        delays.add_all(&match alone_ns {
            Some(alone) => self.charged(busy - alone, &others),
            None => self.in_proportion(busy, &others, Cause::BatchGrowth),
        });
        Stretch { step: Some(at), alone_ns: alone_ns.unwrap_or(0), delays }
    }

    /// Why a request that has not run yet was not admitted to a step.
    fn kept_waiting_by(&self, place: usize, at: usize) -> Cause {
        let (request, room) = (&self.trace.requests[place], &self.steps[at].room);
        let was_there = request.arrived_at.as_nanos() <= self.steps[at].planned_at;
        let is_shortage = was_there && room.lacks_blocks(self.own_blocks(place));
        if is_shortage { Cause::Blocks } else { Cause::Queue }
    }

    /// KV blocks that a request has to have before it is admitted.
    fn own_blocks(&self, place: usize) -> u32 {
        let request = &self.trace.requests[place];
        self.reservation.blocks(request.prompt_tokens, &self.trace.header.limits)
    }

    /// Each part of the contents is charged what it adds to a step; what is left is unexplained.
    /// Where they add more than there is, all are scaled down alike.
    fn charged(&self, excess: u64, contents: &Contents) -> ByCause<u64> {
        let charges = self.charges(contents, Cause::BatchGrowth);
        let sum = charges.iter().map(|(_, ns)| ns).fold(0, u64::saturating_add);
        let mut delays = if sum > excess { charges.divide(excess) } else { charges };
        delays.add(Cause::Unexplained, excess.saturating_sub(sum));
        delays
    }

    /// A whole step is charged to its contents, in proportion to what they add to one.
    fn in_proportion(&self, busy: u64, contents: &Contents, decodes: Cause) -> ByCause<u64> {
        let charges = self.charges(contents, decodes);
        if charges.iter().any(|(_, ns)| ns > 0) {
            return charges.divide(busy);
        }
        let mut delays = ByCause::default();
        delays.add(decodes, busy);
        delays
    }

    fn charges(&self, contents: &Contents, decodes: Cause) -> ByCause<u64> {
        let mut charges = ByCause::default();
        charges.add(Cause::Prefill, contents.prefill_ns);
        charges.add(Cause::Recomputation, contents.recompute_ns);
        charges.add(decodes, self.isolated.added_by_decodes(contents.decodes));
        charges
    }
}

impl StepFacts {
    fn new(step: &StepRecord, room: Room, isolated: &Isolated) -> Self {
        let phases = &step.phases;
        let known = [phases.prepare, phases.transfer, phases.sample, phases.transfer_back];
        let known = known.into_iter().flatten().fold(phases.schedule, |sum, phase| sum + phase);
        // Without the model's own time, what is known of the rest has to do.
        let not_model = phases.forward.map_or(known, |model| step.took().saturating_sub(model));
        let schedule = nanoseconds(phases.schedule);
        Self {
            planned_at: step.planned_at.as_nanos(),
            ended_at: step.ended_at.as_nanos(),
            schedule,
            around_model: nanoseconds(not_model).saturating_sub(schedule),
            contents: isolated.contents(&step.work),
            room,
        }
    }

    /// What of `length` of the step is the model's; the rest is charged to those whose it is.
    fn model_time(&self, length: u64, delays: &mut ByCause<u64>) -> u64 {
        let schedule = self.schedule.min(length);
        let around_model = self.around_model.min(length - schedule);
        delays.add(Cause::Scheduler, schedule);
        delays.add(Cause::Engine, around_model);
        length - schedule - around_model
    }
}

impl Contents {
    /// The contents but for a request's own; its recomputation stays, for a preemption caused it.
    fn without(&self, own: &Self) -> Self {
        Self {
            prefill_ns: self.prefill_ns.saturating_sub(own.prefill_ns),
            recompute_ns: self.recompute_ns,
            decodes: self.decodes.saturating_sub(own.decodes),
        }
    }
}

impl Life {
    /// What the request was doing behind its work before step `at`, after the plans of all steps
    /// before `planned`.
    fn idle(&self, at: usize, planned: usize) -> Idle {
        let worked = self.worked.partition_point(|step| *step < at);
        let Some(last_worked) = worked.checked_sub(1).map(|last| self.worked[last]) else {
            return Idle::New;
        };
        let until = self.preempted.partition_point(|(step, _)| *step < planned);
        match until.checked_sub(1).map(|last| self.preempted[last]) {
            Some((step, cause)) if step > last_worked => Idle::Preempted(cause),
            _ => Idle::LeftOut,
        }
    }
}

fn lives(trace: &Trace, places: &Places) -> Vec<Life> {
    let mut lives: Vec<Life> = trace.requests.iter().map(|_| Life::default()).collect();
    for (at, step) in trace.steps.iter().enumerate() {
        for preemption in &step.preemptions {
            if let Some(place) = places.of(preemption.request) {
                lives[place].preempted.push((at, preemption.cause));
            }
        }
        for place in step.work.iter().filter_map(|work| places.of(work.request)) {
            let worked = &mut lives[place].worked;
            if worked.last() != Some(&at) {
                worked.push(at);
            }
        }
    }
    lives
}
