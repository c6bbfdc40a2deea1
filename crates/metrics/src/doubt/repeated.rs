use std::collections::{BTreeMap, BTreeSet};

use metron_trace::{EndStatus, Request, RequestId, Trace};

use super::Doubt;
use crate::comparison::RunOf;
use crate::identity::identity_in_virtual_time;
use crate::objective::Bounded;
use crate::percentile::supports;
use crate::summary::Scoring;

/// Isolated prefills may scatter so much: deadlines that follow the curve are no surer.
const MOST_RESIDUAL: f64 = 0.1;

/// Steps of the first replicate may take so much longer than those of the others, by their
/// predictions: what other seeds make of a mean is below it.
const MOST_SLOWER: f64 = 0.05;

/// The least number of independent requests that says anything of the percentile at `share`;
/// `None` of a share that no number reaches.
pub fn requests_for(share: f64) -> Option<usize> {
    let (mut below, mut enough) = (0, 1);
    while !supports(share, enough) {
        (below, enough) = (enough, enough.checked_mul(2).filter(|n| *n < 1 << 32)?);
    }
    while enough - below > 1 {
        let middle = usize::midpoint(below, enough);
        if supports(share, middle) { enough = middle } else { below = middle }
    }
    Some(enough)
}

/// What is kept of a run, for the doubts about several.
#[derive(Debug, Clone)]
pub(super) struct Digest {
    pub(super) policy: String,
    replicate: u32,
    /// Whether it may have a trend.
    pub(super) may_grow: bool,
    /// Requests that were sent.
    sent: usize,
    /// Those of each class that has a name.
    sent_of: BTreeMap<String, usize>,
    has_deadlines: bool,
    /// Root mean square of the calibration's relative residuals.
    residual: Option<f64>,
    slowness: Option<f64>,
    /// In virtual time, what makes a run another one.
    identity: Option<u64>,
}

impl Digest {
    pub(super) fn of(run: &RunOf<'_>, may_grow: bool) -> Self {
        let trace = run.trace;
        let calibration = trace.header.calibration.as_ref();
        let sent = sent(trace);
        let mut sent_of = BTreeMap::new();
        for class in sent.iter().filter_map(|r| trace.header.classes.get(r.class as usize)) {
            *sent_of.entry(class.clone()).or_default() += 1;
        }
        Self {
            policy: run.policy.to_owned(),
            replicate: run.replicate,
            may_grow,
            sent: sent.len(),
            sent_of,
            has_deadlines: trace.requests.iter().any(|request| request.deadlines.is_some()),
            residual: calibration.map(|calibration| calibration.prefill.relative_residual),
            slowness: slowness(trace),
            identity: identity_in_virtual_time(trace),
        }
    }

    /// Requests that were sent: all, or those of a class.
    fn sent(&self, class: Option<&str>) -> usize {
        class.map_or(self.sent, |class| self.sent_of.get(class).copied().unwrap_or(0))
    }
}

/// The percentile that lacks most: of the fluid token rate, and of objectives on requests; a policy's
/// runs together.
pub(super) fn too_few_requests(runs: &[Digest], scoring: &Scoring) -> Option<Doubt> {
    let knows = !scoring.deadlines.needs_recorded() || runs.iter().any(|run| run.has_deadlines);
    let fluid = knows.then_some((scoring.rate_target.share, None));
    let of_policy = |policy: &str, class| {
        let own = runs.iter().filter(|run| run.policy == policy);
        own.map(|run| run.sent(class)).sum::<usize>()
    };
    let fewest = |class| runs.iter().map(|run| of_policy(&run.policy, class)).min();
    too_few(fewest, asked(scoring).chain(fluid))
}

/// The same of objectives alone, where each run is judged by itself.
pub(super) fn too_few_requests_of_a_run(runs: &[Digest], scoring: &Scoring) -> Option<Doubt> {
    too_few(|class| runs.iter().map(|run| run.sent(class)).min(), asked(scoring))
}

/// The shares that objectives ask of requests, and of which class. The gaps of a few requests are
/// many, so those on TBT are left out.
fn asked(scoring: &Scoring) -> impl Iterator<Item = (f64, Option<&str>)> {
    let on_requests = scoring.objectives.iter().filter(|one| one.metric != Bounded::Tbt);
    on_requests.map(|objective| (objective.share, objective.class.as_deref()))
}

fn too_few<'a>(
    fewest: impl Fn(Option<&'a str>) -> Option<usize>,
    asked: impl Iterator<Item = (f64, Option<&'a str>)>,
) -> Option<Doubt> {
    asked
        .filter_map(|(share, class)| {
            let (have, need) = (fewest(class)?, requests_for(share)?);
            (have < need).then_some((share, have, need))
        })
        .max_by_key(|(_, have, need)| need - have)
        .map(|(share, have, need)| Doubt::TooFewRequests { share, have, need })
}

fn sent(trace: &Trace) -> Vec<&Request> {
    let unsent = trace.ends.iter().filter(|end| end.status == EndStatus::Unsent);
    let unsent: BTreeSet<RequestId> = unsent.map(|end| end.request).collect();
    trace.requests.iter().filter(|request| !unsent.contains(&request.id)).collect()
}

/// The curve from which deadlines are predicted, against what was measured.
pub(super) fn calibration_residuals(runs: &[Digest], scoring: &Scoring) -> Option<Doubt> {
    if !scoring.needs_curve() {
        return None;
    }
    let residual = runs.iter().filter_map(|run| run.residual).max_by(f64::total_cmp)?;
    (residual > MOST_RESIDUAL).then_some(Doubt::CalibrationResiduals { residual })
}

/// The first replicate against the others, where it is the slowest of every policy.
pub(super) fn first_replicate_slower(runs: &[Digest]) -> Option<Doubt> {
    let mut policies: Vec<&str> = runs.iter().map(|run| run.policy.as_str()).collect();
    policies.sort_unstable();
    policies.dedup();
    let excesses: Vec<f64> = policies
        .iter()
        .filter_map(|policy| first_excess(runs.iter().filter(|run| run.policy == *policy)))
        .collect();
    let by = excesses.iter().sum::<f64>() / excesses.len() as f64;
    let everywhere = excesses.iter().all(|excess| *excess > 0.0);
    (everywhere && by > MOST_SLOWER).then_some(Doubt::FirstReplicateSlower { by })
}

/// Of the policy whose runs repeat each other most.
pub(super) fn repeated_requests(runs: &[Digest]) -> Option<Doubt> {
    let mut of_policy: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for run in runs {
        of_policy.entry(&run.policy).or_default().push(run.identity?);
    }
    let counts = of_policy
        .into_values()
        .map(|identities| (identities.iter().collect::<BTreeSet<_>>().len(), identities.len()));
    let (distinct, of) = counts.max_by_key(|(distinct, of)| of - distinct)?;
    (distinct < of).then_some(Doubt::RepeatedRequests { distinct, of })
}

/// By what share a policy's first replicate is slower than the mean of its others; not above 0 if
/// another is slower still. `None` of a single replicate, and without predictions.
fn first_excess<'a>(runs: impl Iterator<Item = &'a Digest>) -> Option<f64> {
    let mut first = None;
    let mut others = Vec::new();
    for run in runs {
        let slowness = run.slowness?;
        if run.replicate == 0 { first = Some(slowness) } else { others.push(slowness) }
    }
    let first = first?;
    let slowest = others.iter().copied().max_by(f64::total_cmp)?;
    let mean = others.iter().sum::<f64>() / others.len() as f64;
    Some(if first > slowest { first / mean - 1.0 } else { 0.0 })
}

/// The time of a run's steps over what they were predicted to take.
fn slowness(trace: &Trace) -> Option<f64> {
    let (mut took, mut predicted) = (0.0, 0.0);
    for step in &trace.steps {
        took += step.took().as_secs_f64();
        predicted += step.predicted?.as_secs_f64();
    }
    (predicted > 0.0).then(|| took / predicted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_need_is_the_least_number_that_supports_a_percentile() {
        for (share, need) in [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3688)] {
            assert_eq!(requests_for(share), Some(need));
            assert!(supports(share, need) && !supports(share, need - 1));
        }
        assert_eq!(requests_for(1.0), None, "no sample shows that there is nothing beyond it");
    }
}
