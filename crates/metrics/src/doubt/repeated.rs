use std::collections::BTreeSet;

use metron_trace::{EndStatus, Request, RequestId, Trace};

use super::Doubt;
use crate::comparison::RunOf;
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

/// The percentile that lacks most: of the fluid token rate, and of objectives on requests, whose
/// class may be a few of them. The gaps of a few requests are many, so those on TBT are left out.
pub(super) fn too_few_requests(runs: &[RunOf<'_>], scoring: &Scoring) -> Option<Doubt> {
    let on_requests = scoring.objectives.iter().filter(|one| one.metric != Bounded::Tbt);
    let asked = on_requests.map(|objective| (objective.share, objective.class.as_deref()));
    let fluid = has_deadlines(runs, scoring).then_some((scoring.rate_target.share, None));
    asked
        .chain(fluid)
        .filter_map(|(share, class)| {
            let (have, need) = (fewest_of_a_policy(runs, class)?, requests_for(share)?);
            (have < need).then_some((share, have, need))
        })
        .max_by_key(|(_, have, need)| need - have)
        .map(|(share, have, need)| Doubt::TooFewRequests { share, have, need })
}

/// Requests, or those of a class, of the policy that has the fewest.
fn fewest_of_a_policy(runs: &[RunOf<'_>], class: Option<&str>) -> Option<usize> {
    let of_policy = |policy: &str| {
        let own = runs.iter().filter(|run| run.policy == policy);
        own.map(|run| num_sent(run.trace, class)).sum::<usize>()
    };
    runs.iter().map(|run| of_policy(run.policy)).min()
}

fn has_deadlines(runs: &[RunOf<'_>], scoring: &Scoring) -> bool {
    let recorded = |trace: &Trace| trace.requests.iter().any(|request| request.deadlines.is_some());
    !scoring.deadlines.needs_recorded() || runs.iter().any(|run| recorded(run.trace))
}

fn num_sent(trace: &Trace, class: Option<&str>) -> usize {
    let unsent: BTreeSet<RequestId> = trace
        .ends
        .iter()
        .filter(|end| end.status == EndStatus::Unsent)
        .map(|end| end.request)
        .collect();
    let is_of_class = |request: &Request| {
        let own = trace.header.classes.get(request.class as usize);
        class.is_none() || class == own.map(String::as_str)
    };
    let sent = trace.requests.iter().filter(|request| !unsent.contains(&request.id));
    sent.filter(|request| is_of_class(request)).count()
}

/// The curve from which deadlines are predicted, against what was measured.
pub(super) fn calibration_residuals(runs: &[RunOf<'_>], scoring: &Scoring) -> Option<Doubt> {
    if !scoring.needs_curve() {
        return None;
    }
    let of_run =
        |run: &RunOf<'_>| Some(run.trace.header.calibration.as_ref()?.prefill.relative_residual);
    let residual = runs.iter().filter_map(of_run).max_by(f64::total_cmp)?;
    (residual > MOST_RESIDUAL).then_some(Doubt::CalibrationResiduals { residual })
}

/// The first replicate against the others, where it is the slowest of every policy.
pub(super) fn first_replicate_slower(runs: &[RunOf<'_>]) -> Option<Doubt> {
    let mut policies: Vec<&str> = runs.iter().map(|run| run.policy).collect();
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

/// By what share a policy's first replicate is slower than the mean of its others; not above 0 if
/// another is slower still. `None` of a single replicate, and without predictions.
fn first_excess<'a>(runs: impl Iterator<Item = &'a RunOf<'a>>) -> Option<f64> {
    let mut first = None;
    let mut others = Vec::new();
    for run in runs {
        let slowness = slowness(run.trace)?;
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
