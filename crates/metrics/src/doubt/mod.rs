//! Reasons not to believe a result as it stands: each with the figures that raise it and with what
//! to do about it. `docs/doubts.md` has the thresholds with their reasons.

mod arrivals;
mod growth;
mod machine;
mod repeated;
mod steps;
mod words;

use metron_trace::Trace;
use serde::{Deserialize, Serialize};

use crate::comparison::RunOf;
use crate::objective::Bounded;
use crate::summary::Scoring;

use repeated::Digest;

pub use machine::doubts_of_conditions;
pub use repeated::requests_for;

/// A reason not to believe a result as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Doubt {
    /// Requests were seen later than the loop's first chance after their intended arrival.
    LateArrivals {
        /// How many.
        late: usize,
        /// Of so many.
        of: usize,
        /// The longest delay.
        worst_s: f64,
    },
    /// Other work had the machine's processors. What could not be read is `None`.
    BusyMachine {
        /// The share of the time in which something waited for a processor.
        waiting: Option<f64>,
        /// The share of processor time that a hypervisor gave to others.
        stolen: Option<f64>,
        /// How many processors other processes kept busy.
        others: Option<f64>,
        /// How often a second a thread of the run was taken off its processor.
        switches_per_s: Option<f64>,
    },
    /// The processors ran at another frequency at the end than at the start.
    CpuFrequency {
        /// MHz of the fastest before.
        before_mhz: u32,
        /// MHz of the fastest after.
        after_mhz: u32,
    },
    /// The accelerator ran at another clock at the end than at the start.
    GpuClock {
        /// MHz before.
        before_mhz: u32,
        /// MHz after.
        after_mhz: u32,
    },
    /// The processors or the accelerator slowed down for heat or power.
    Throttling {
        /// How often a processor did; `None` where it was the accelerator.
        events: Option<u64>,
    },
    /// The machine swapped.
    Swap {
        /// Pages in and out.
        pages: u64,
    },
    /// The first steps took longer than the rest, by what their batches should take.
    NoWarmUp {
        /// By what factor.
        factor: f64,
    },
    /// Requests in progress became more and more while others arrived: there is no steady state, and
    /// latencies depend on the length of the run.
    NotStationary {
        /// In progress in the first batch of the window (see `docs/doubts.md`).
        from: f64,
        /// In progress in the last.
        to: f64,
    },
    /// Too few requests for a percentile that is asked.
    TooFewRequests {
        /// The share of requests that a figure is about, from 0 to 1.
        share: f64,
        /// Requests of the policy that has the fewest.
        have: usize,
        /// Requests that it takes, if they are independent.
        need: usize,
    },
    /// The clock's tick is long beside a step.
    ClockResolution {
        /// The tick.
        tick_s: f64,
        /// The median step.
        step_s: f64,
    },
    /// What happens between steps (recording, progress, the policy's notes) takes long beside them.
    ObserverCost {
        /// The share of busy time.
        share: f64,
    },
    /// Isolated prefills scatter around the curve from which deadlines are predicted.
    CalibrationResiduals {
        /// Root mean square of the relative residuals.
        residual: f64,
    },
    /// The first replicate's steps took longer than those of the others.
    FirstReplicateSlower {
        /// By this share, as a mean over the policies.
        by: f64,
    },
    /// Replicates served the same requests in virtual time, where nothing else varies.
    RepeatedRequests {
        /// Runs of a policy that are not another one again.
        distinct: usize,
        /// Runs of the policy.
        of: usize,
    },
    /// Deadlines were predicted for prompts outside the calibrated lengths.
    Extrapolated {
        /// Requests with such a prompt.
        requests: usize,
        /// The prompt farthest outside, in tokens.
        prompt_tokens: u32,
        /// The shortest and the longest calibrated length.
        range: (u32, u32),
    },
}

/// A doubt with whose runs raise it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RaisedDoubt {
    /// The doubt, as the worst of these runs raises it.
    pub doubt: Doubt,
    /// The policies whose runs raise it; empty if it is about the comparison as a whole.
    pub policies: Vec<String>,
    /// Runs that raise it.
    pub runs: usize,
    /// Of so many.
    pub of: usize,
}

impl Doubt {
    /// Whether it is about a machine that made steps longer, which blame cannot tell from anything
    /// else that is unexplained.
    pub fn slows_steps(&self) -> bool {
        matches!(
            self,
            Self::BusyMachine { .. }
                | Self::CpuFrequency { .. }
                | Self::GpuClock { .. }
                | Self::Throttling { .. }
                | Self::Swap { .. }
        )
    }

    /// Whether it is about predicted deadlines, which matter only where they are asked for.
    fn is_about_deadlines(&self) -> bool {
        matches!(self, Self::CalibrationResiduals { .. } | Self::Extrapolated { .. })
    }

    /// How bad it is, among doubts of its kind.
    fn weight(&self) -> f64 {
        let change = |before: u32, after: u32| f64::from(before.abs_diff(after));
        match *self {
            Self::LateArrivals { worst_s, .. } => worst_s,
            Self::BusyMachine { waiting, stolen, switches_per_s, .. } => {
                waiting.or(stolen).or(switches_per_s).unwrap_or_default()
            }
            Self::CpuFrequency { before_mhz, after_mhz }
            | Self::GpuClock { before_mhz, after_mhz } => change(before_mhz, after_mhz),
            Self::Throttling { events } => events.unwrap_or_default() as f64,
            Self::Swap { pages } => pages as f64,
            Self::NoWarmUp { factor } => factor,
            Self::NotStationary { from, to } => to - from,
            Self::TooFewRequests { need, .. } => need as f64,
            Self::ClockResolution { tick_s, step_s } => tick_s / step_s,
            Self::ObserverCost { share } => share,
            Self::CalibrationResiduals { residual } => residual,
            Self::FirstReplicateSlower { by } => by,
            Self::RepeatedRequests { distinct, of } => (of - distinct) as f64,
            Self::Extrapolated { requests, .. } => requests as f64,
        }
    }
}

/// What is looked for in each run.
const OF_A_RUN: [fn(&Trace, &Scoring) -> Vec<Doubt>; 7] = [
    |trace, _| machine::doubts_of_machine(trace),
    |trace, scoring| arrivals::late_arrivals(trace, scoring).into_iter().collect(),
    |trace, _| steps::no_warm_up(trace).into_iter().collect(),
    |trace, _| growth::not_stationary(trace).into_iter().collect(),
    |trace, _| steps::clock_resolution(trace).into_iter().collect(),
    |trace, _| steps::observer_cost(trace).into_iter().collect(),
    |trace, scoring| arrivals::extrapolated(trace, scoring).into_iter().collect(),
];

/// A trend is a matter of chance: of a policy's runs, more than one in so many has to have it.
const TREND_RUNS: usize = 4;

/// Every doubt that these runs give cause for, each kind once; `runs` in any order.
pub fn doubts(runs: &[RunOf<'_>], scoring: &Scoring) -> Vec<RaisedDoubt> {
    let mut gathered = GatheredDoubts::default();
    for run in runs {
        gathered.add(run, scoring);
    }
    gathered.of_runs_together(scoring)
}

/// Doubts gathered run by run, for those who can't hold all traces at a time.
#[derive(Debug, Clone, Default)]
pub struct GatheredDoubts {
    /// Those of single runs, in the order of what is looked for.
    of_a_run: [Vec<Raising>; OF_A_RUN.len()],
    runs: Vec<Digest>,
}

/// A doubt of single runs in the making: each policy whose runs raise it, at least one.
#[derive(Debug, Clone)]
struct Raising(Vec<OfPolicy>);

/// What the runs of one policy have of a doubt.
#[derive(Debug, Clone)]
struct OfPolicy {
    policy: String,
    /// Runs that raise it.
    runs: usize,
    /// As the worst of them raises it.
    worst: Doubt,
}

impl GatheredDoubts {
    /// Takes a run in.
    pub fn add(&mut self, run: &RunOf<'_>, scoring: &Scoring) {
        self.take(run, scoring, false);
    }

    /// Takes a run in that was meant to be more than its policy can do: that its requests become
    /// more and more is no reason for doubt.
    pub fn add_overloaded(&mut self, run: &RunOf<'_>, scoring: &Scoring) {
        self.take(run, scoring, true);
    }

    fn take(&mut self, run: &RunOf<'_>, scoring: &Scoring, may_grow: bool) {
        for (find, raised) in OF_A_RUN.iter().zip(&mut self.of_a_run) {
            for doubt in find(run.trace, scoring) {
                if !(may_grow && matches!(doubt, Doubt::NotStationary { .. })) {
                    raise(raised, doubt, run.policy);
                }
            }
        }
        self.runs.push(Digest::of(run, may_grow));
    }

    /// Every doubt there is cause for, each kind once, where a policy's runs are summarised
    /// together.
    pub fn of_runs_together(self, scoring: &Scoring) -> Vec<RaisedDoubt> {
        let of_all = [
            repeated::too_few_requests(&self.runs, scoring),
            repeated::first_replicate_slower(&self.runs),
            repeated::repeated_requests(&self.runs),
            repeated::calibration_residuals(&self.runs, scoring),
        ];
        self.raised(of_all.into_iter().flatten())
    }

    /// The same where each run is judged by its objectives alone, and replicates run under
    /// different loads, so that one can't be called slower than another.
    pub fn of_runs_alone(self, scoring: &Scoring) -> Vec<RaisedDoubt> {
        let of_all = [
            repeated::too_few_requests_of_a_run(&self.runs, scoring),
            repeated::calibration_residuals(&self.runs, scoring),
        ];
        let mut raised = self.raised(of_all.into_iter().flatten());
        let mut objectives = scoring.objectives.iter();
        if !objectives.any(|objective| objective.metric == Bounded::FluidityIndex) {
            raised.retain(|raised| !raised.doubt.is_about_deadlines());
        }
        raised
    }

    fn raised(self, of_all: impl Iterator<Item = Doubt>) -> Vec<RaisedDoubt> {
        let of = self.runs.len();
        let of_a_run = self.of_a_run.into_iter().flatten();
        let of_a_run = of_a_run.filter_map(|raising| raising.beyond_chance(&self.runs));
        let whole = |doubt| RaisedDoubt { doubt, policies: Vec::new(), runs: of, of };
        of_a_run.chain(of_all.map(whole)).collect()
    }
}

impl Raising {
    /// Of the policies whose runs raise it more often than chance would; `None` if there are none.
    fn beyond_chance(self, runs: &[Digest]) -> Option<RaisedDoubt> {
        let is_raised = |own: &OfPolicy| !own.is_chance(runs);
        let policies: Vec<OfPolicy> = self.0.into_iter().filter(is_raised).collect();
        // The first of equals.
        let weight = |own: &&OfPolicy| own.worst.weight();
        let worst = policies.iter().rev().max_by(|a, b| weight(a).total_cmp(&weight(b)))?.worst;
        Some(RaisedDoubt {
            doubt: worst,
            runs: policies.iter().map(|own| own.runs).sum(),
            of: runs.len(),
            policies: policies.into_iter().map(|own| own.policy).collect(),
        })
    }
}

impl OfPolicy {
    /// Whether so few of the policy's runs have a trend that chance alone would do it.
    fn is_chance(&self, runs: &[Digest]) -> bool {
        let own = runs.iter().filter(|run| run.policy == self.policy && !run.may_grow).count();
        matches!(self.worst, Doubt::NotStationary { .. }) && self.runs * TREND_RUNS <= own
    }
}

fn raise(raised: &mut Vec<Raising>, doubt: Doubt, policy: &str) {
    let kind = std::mem::discriminant(&doubt);
    let is_it =
        |own: &&mut Raising| own.0.iter().any(|own| std::mem::discriminant(&own.worst) == kind);
    let first = || OfPolicy { policy: policy.to_owned(), runs: 1, worst: doubt };
    let Some(known) = raised.iter_mut().find(is_it) else {
        raised.push(Raising(vec![first()]));
        return;
    };
    let Some(own) = known.0.iter_mut().find(|own| own.policy == policy) else {
        known.0.push(first());
        return;
    };
    own.runs += 1;
    if doubt.weight() > own.worst.weight() {
        own.worst = doubt;
    }
}
