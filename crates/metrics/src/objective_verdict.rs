//! Whether runs keep their objectives, and how sure that is.

use std::collections::BTreeSet;

use metron_trace::Trace;
use serde::{Deserialize, Serialize};

use crate::dependence::{LEAST_TO_VARY, Runs, Value};
use crate::identity::identity_in_virtual_time;
use crate::latency::Absent;
use crate::objective::{Bound, Bounded, Objective};
use crate::proportion::{ERROR, share_at_least, share_at_most, share_by_runs};
use crate::summary::{Scored, Scoring};

/// Bounds from what values are worth are held to a little less than [`ERROR`]: a few samples hold
/// most violations, and the others look calmer than they are (docs/statistics.md has how often
/// verdicts are wrong).
const CAUTIOUS_ERROR: f64 = 0.04;

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

/// What the bounds of a share rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The values, of which as many count as they are worth.
    #[default]
    Values,
    /// The runs alone: the values hardly differ, so that it can't be seen how they depend on each
    /// other.
    NothingVaries,
    /// Likewise: the values are too few to show it.
    TooFew,
    /// Nothing: no run was served to its end.
    CutShort,
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
    /// One-sided bounds of that share, from below and from above, each wrong in 5 % of samples at most;
    /// those that rest on values are held to 4 %. `None` where nothing is known.
    pub bounds: Option<[f64; 2]>,
    /// What they rest on.
    #[serde(default)]
    pub basis: Basis,
    /// How many independent values the values are worth; runs, where they alone count.
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
        .map(|objective| Sample::of(objective, scored, traces, scoring).judged())
        .collect()
}

/// The values of an objective, run by run in order of arrival.
struct Sample<'a> {
    objective: &'a Objective,
    runs: Vec<Vec<Value>>,
    absent: usize,
    /// No run was served to its end.
    is_cut_short: bool,
}

impl<'a> Sample<'a> {
    /// Of the runs that were served to their end, or, if there are none, of all. Of runs in virtual
    /// time that are one and the same, of one.
    fn of(
        objective: &'a Objective,
        scored: &[Scored],
        traces: &[&Trace],
        scoring: &Scoring,
    ) -> Self {
        let mut seen = BTreeSet::new();
        let is_first = |trace: &&Trace| {
            identity_in_virtual_time(trace).is_none_or(|identity| seen.insert(identity))
        };
        let is_first: Vec<bool> = traces.iter().map(is_first).collect();
        let mut is_whole = is_first.clone();
        for open in scored.iter().filter(|request| request.timeline.is_open()) {
            is_whole[open.run] = false;
        }
        let is_cut_short = !is_whole.contains(&true);
        let counts = if is_cut_short { is_first } else { is_whole };
        let mut sample =
            Self { objective, runs: vec![Vec::new(); traces.len()], absent: 0, is_cut_short };
        for request in scored.iter().filter(|own| counts[own.run]) {
            let class = traces[request.run].header.classes.get(request.timeline.class as usize);
            if objective.class.is_none() || objective.class.as_ref() == class {
                sample.add(request, scoring);
            }
        }
        sample.runs.retain(|run| !run.is_empty());
        sample
    }

    fn add(&mut self, request: &Scored, scoring: &Scoring) {
        let latencies = &request.latencies;
        let latency = match self.objective.metric {
            Bounded::Tbt => return self.add_gaps(request),
            Bounded::FluidityIndex => return self.add_index(request, scoring),
            Bounded::SchedulingDelay => latencies.scheduling_delay,
            Bounded::Ttft => latencies.ttft,
            Bounded::Tpot => latencies.tpot,
            Bounded::EndToEnd => latencies.end_to_end,
            Bounded::Normalized => latencies.normalized,
        };
        match latency {
            _ if request.timeline.has_failed() => self.push(request, f64::INFINITY),
            Ok(latency) => self.push(request, latency.as_secs_f64()),
            Err(Absent::Failed) => self.push(request, f64::INFINITY),
            Err(Absent::Inapplicable) => self.absent += 1,
        }
    }

    fn add_gaps(&mut self, request: &Scored) {
        for ns in request.finished_gaps() {
            self.push(request, *ns as f64 / 1e9);
        }
        match (request.finished_gaps(), request.timeline.has_failed()) {
            ([], true) => self.push(request, f64::INFINITY),
            ([], false) => self.absent += 1,
            _ => {}
        }
    }

    fn add_index(&mut self, request: &Scored, scoring: &Scoring) {
        let Some(index) = request.index else {
            self.absent += 1;
            return;
        };
        let failed = request.timeline.has_failed().then_some(f64::INFINITY);
        let margin = failed.or_else(|| request.worst_lateness(&scoring.fluidity));
        let value = Value { value: -index, margin: margin.unwrap_or(f64::INFINITY) };
        self.runs[request.run].push(value);
    }

    fn push(&mut self, request: &Scored, value: f64) {
        self.runs[request.run].push(Value { value, margin: value });
    }

    fn worst_allowed(&self) -> f64 {
        match self.objective.bound {
            Bound::AtMost(span) => span.as_secs_f64(),
            Bound::AtLeast(index) => -index,
        }
    }

    fn judged(&self) -> Judged {
        let kept = self.kept();
        let n = kept.iter().map(|(_, all)| all).sum();
        let met: usize = kept.iter().map(|(met, _)| met).sum();
        let share = (n > 0).then(|| met as f64 / n as f64);
        let (basis, effective, bounds) = self.bounds(&kept, share);
        Judged {
            objective: self.objective.clone(),
            verdict: match bounds {
                Some([least, _]) if least >= self.objective.share => ObjectiveVerdict::Pass,
                Some([_, most]) if most < self.objective.share => ObjectiveVerdict::Fail,
                _ => ObjectiveVerdict::Undecided,
            },
            n,
            violations: n - met,
            absent: self.absent,
            share,
            bounds,
            basis,
            effective,
        }
    }

    /// Values of each run that keep the bound, and all of them.
    fn kept(&self) -> Vec<(usize, usize)> {
        let allowed = self.worst_allowed();
        let met = |run: &Vec<Value>| run.iter().filter(|own| own.value <= allowed).count();
        self.runs.iter().map(|run| (met(run), run.len())).collect()
    }

    /// What the bounds of the share rest on, how much that is worth, and the bounds.
    fn bounds(
        &self,
        kept: &[(usize, usize)],
        share: Option<f64>,
    ) -> (Basis, f64, Option<[f64; 2]>) {
        if self.is_cut_short {
            return (Basis::CutShort, 0.0, None);
        }
        let Some(share) = share else { return (Basis::Values, 0.0, None) };
        let runs = Runs(self.runs.iter().map(Vec::as_slice).collect());
        if let Some(effective) = runs.effective(self.worst_allowed(), self.objective.share) {
            let met = share * effective;
            let bounds = [
                share_at_least(met, effective, CAUTIOUS_ERROR),
                share_at_most(met, effective, CAUTIOUS_ERROR),
            ];
            return (Basis::Values, effective, Some(bounds));
        }
        let shares: Vec<f64> = kept.iter().map(|(met, all)| *met as f64 / *all as f64).collect();
        let n: usize = kept.iter().map(|(_, all)| all).sum();
        let basis = if n < LEAST_TO_VARY { Basis::TooFew } else { Basis::NothingVaries };
        (basis, shares.len() as f64, Some(share_by_runs(&shares, ERROR)))
    }
}
