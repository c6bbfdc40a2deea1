//! Whether runs keep their objectives, and how sure that is.

use metron_trace::Trace;
use serde::{Deserialize, Serialize};

use crate::latency::Absent;
use crate::objective::{Bound, Bounded, Objective};
use crate::percentile::order_statistic;
use crate::proportion::{Unit, discounted, effective_number, share_at_least, share_at_most};
use crate::summary::{Scored, Scoring};

/// Each one-sided bound is wrong in at most so many samples.
const ERROR: f64 = 0.05;

/// With so many runs each is a unit; fewer are divided into batches.
const ENOUGH_RUNS: usize = 10;
/// Batches of all runs together, where runs are divided (Law and Kelton's batch means).
const BATCHES: usize = 20;
/// The dependence of rare values is estimated from at least so many of the worst.
const WORST: f64 = 20.0;

/// What can be said of an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ObjectiveVerdict {
    /// It is kept: the share that keeps its bound is at least what is asked, with 95 % confidence.
    Pass,
    /// It is not, with the same confidence.
    Fail,
    /// The runs do not decide it.
    Undecided,
}

impl ObjectiveVerdict {
    /// Whether several objectives are kept together: an intersection-union test, which needs no
    /// correction for their number.
    pub fn of_all(judged: &[Judged]) -> Self {
        let any = |verdict: Self| judged.iter().any(|one| one.verdict == verdict);
        match (any(Self::Fail), any(Self::Undecided)) {
            (true, _) => Self::Fail,
            (false, true) => Self::Undecided,
            (false, false) => Self::Pass,
        }
    }
}

/// An objective with what some runs say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The objective.
    pub objective: Objective,
    /// What can be said of it.
    pub verdict: ObjectiveVerdict,
    /// Values: of requests, or for TBT of gaps. Each request that failed is one.
    pub n: usize,
    /// Of them: those that do not keep the bound.
    pub violations: usize,
    /// Requests that it cannot apply to, or not yet; left out.
    pub absent: usize,
    /// The share that keeps the bound.
    pub share: Option<f64>,
    /// One-sided 95 % bounds of that share, from below and from above.
    pub bounds: Option<[f64; 2]>,
    /// How many independent values the values are worth.
    pub effective: f64,
}

impl Judged {
    /// Whether the sample itself keeps the objective: its `ceil(share N)`-th best value is within
    /// the bound. `None` without any value.
    pub fn is_met(&self) -> Option<bool> {
        let met = (self.n - self.violations) as f64;
        (self.n > 0).then(|| met >= (self.objective.share * self.n as f64 - 1e-9).ceil())
    }
}

/// Judges runs of one policy by the objectives of `scoring`.
pub fn judge_objectives(traces: &[&Trace], scoring: &Scoring) -> Vec<Judged> {
    let scored = Scored::of_all(traces, scoring);
    judge_scored(&scored, traces, scoring)
}

pub(crate) fn judge_scored(scored: &[Scored], traces: &[&Trace], scoring: &Scoring) -> Vec<Judged> {
    scoring
        .objectives
        .iter()
        .map(|objective| Sample::of(objective, scored, traces).judged())
        .collect()
}

/// The values of an objective, run by run in order of arrival; the larger the worse.
struct Sample<'a> {
    objective: &'a Objective,
    runs: Vec<Vec<f64>>,
    absent: usize,
}

impl<'a> Sample<'a> {
    fn of(objective: &'a Objective, scored: &[Scored], traces: &[&Trace]) -> Self {
        let mut sample = Self { objective, runs: vec![Vec::new(); traces.len()], absent: 0 };
        for request in scored {
            let class = traces[request.run].header.classes.get(request.timeline.class as usize);
            if objective.class.is_none() || objective.class.as_ref() == class {
                sample.add(request);
            }
        }
        sample
    }

    fn add(&mut self, request: &Scored) {
        let run = &mut self.runs[request.run];
        let latencies = &request.latencies;
        let latency = match self.objective.metric {
            Bounded::Tbt => {
                let before = run.len();
                run.extend(request.finished_gaps().iter().map(|ns| *ns as f64 / 1e9));
                match (run.len() == before, request.timeline.has_failed()) {
                    (false, _) => return,
                    (true, true) => Err(Absent::Failed),
                    (true, false) => Err(Absent::Inapplicable),
                }
            }
            Bounded::FluidityIndex => {
                match request.index {
                    Some(index) => run.push(-index),
                    None => self.absent += 1,
                }
                return;
            }
            Bounded::SchedulingDelay => latencies.scheduling_delay,
            Bounded::Ttft => latencies.ttft,
            Bounded::Tpot => latencies.tpot,
            Bounded::EndToEnd => latencies.end_to_end,
            Bounded::Normalized => latencies.normalized,
        };
        match latency {
            _ if request.timeline.has_failed() => run.push(f64::INFINITY),
            Ok(latency) => run.push(latency.as_secs_f64()),
            Err(Absent::Failed) => run.push(f64::INFINITY),
            Err(Absent::Inapplicable) => self.absent += 1,
        }
    }

    fn worst_allowed(&self) -> f64 {
        match self.objective.bound {
            Bound::AtMost(span) => span.as_secs_f64(),
            Bound::AtLeast(index) => -index,
        }
    }

    fn judged(&self) -> Judged {
        let allowed = self.worst_allowed();
        let n = self.runs.iter().map(Vec::len).sum();
        let values = self.runs.iter().flatten();
        let violations = values.filter(|value| **value > allowed).count();
        let effective = self.effective(n);
        let share = (n > 0).then(|| (n - violations) as f64 / n as f64);
        let bounds = share.map(|share| {
            let met = share * effective;
            [share_at_least(met, effective, ERROR), share_at_most(met, effective, ERROR)]
        });
        Judged {
            objective: self.objective.clone(),
            verdict: match bounds {
                Some([least, _]) if least >= self.objective.share => ObjectiveVerdict::Pass,
                Some([_, most]) if most < self.objective.share => ObjectiveVerdict::Fail,
                _ => ObjectiveVerdict::Undecided,
            },
            n,
            violations,
            absent: self.absent,
            share,
            bounds,
            effective,
        }
    }

    /// How many independent values the sample is worth. Dependence is seen in the violations, and,
    /// as there may be none, in the worst values of the sample whatever the bound.
    fn effective(&self, n: usize) -> f64 {
        let mut values: Vec<f64> = self.runs.iter().flatten().copied().collect();
        values.sort_unstable_by(f64::total_cmp);
        let level = self.objective.share.min(1.0 - WORST / n as f64).max(0.5);
        let levels = [Some(self.worst_allowed()), order_statistic(&values, level)];
        let estimates: Vec<(f64, usize)> = levels
            .into_iter()
            .flatten()
            .filter_map(|level| {
                let units = self.units(|value| value > level);
                Some((effective_number(&units)?, units.len()))
            })
            .collect();
        let least = estimates.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        least.map_or(n as f64, |(effective, units)| discounted(effective, n, units, ERROR))
    }

    /// The runs as units if there are enough of them, else each divided into batches.
    fn units(&self, having: impl Fn(f64) -> bool) -> Vec<Unit> {
        let runs = self.runs.iter().filter(|run| !run.is_empty());
        let count = runs.clone().count().max(1);
        let batches = if count >= ENOUGH_RUNS { 1 } else { BATCHES.div_ceil(count) };
        runs.flat_map(|run| run.chunks(run.len().div_ceil(batches)))
            .map(|batch| Unit {
                having: batch.iter().filter(|value| having(**value)).count(),
                all: batch.len(),
            })
            .collect()
    }
}
