use std::time::Duration;

use metron_trace::{Timestamp, Trace};

use super::Doubt;
use crate::summary::Scoring;
use crate::timeline::timelines;

/// A request is late if it was seen so much later than it could have been, ...
const LATE: Duration = Duration::from_millis(5);
/// ... or by a hundredth of its first token's deadline, if that is more.
const LATE_OF_DEADLINE: u64 = 100;

/// The share of requests that may be late.
const MOST_LATE: f64 = 0.001;

/// A prompt may be longer or shorter than what was calibrated by this factor.
const EXTRAPOLATION: f64 = 1.1;

/// A request could have been seen when the loop first was free after its arrival. It was seen in
/// the step whose count of requests in progress includes it.
pub(super) fn late_arrivals(trace: &Trace, scoring: &Scoring) -> Option<Doubt> {
    let timelines = timelines(trace);
    let seen_at = seen_at(trace);
    let (mut late, mut worst) = (0, Duration::ZERO);
    for (timeline, seen_at) in timelines.iter().zip(&seen_at) {
        let delay = *seen_at - free_at(trace, timeline.arrived_at);
        let deadline = scoring.deadlines_in(&trace.header, timeline);
        let first_token = deadline.map_or(0, |deadline| deadline.first_ns);
        if delay > LATE.max(Duration::from_nanos(first_token / LATE_OF_DEADLINE)) {
            late += 1;
            worst = worst.max(delay);
        }
    }
    let of = seen_at.len();
    let raises = late as f64 > MOST_LATE * of as f64;
    raises.then_some(Doubt::LateArrivals { late, of, worst_s: worst.as_secs_f64() })
}

/// For each request in order of arrival, the plan of the first step that knew of it. Requests that
/// no step knew of are left out at the end.
fn seen_at(trace: &Trace) -> Vec<Timestamp> {
    let mut seen_at = Vec::with_capacity(trace.requests.len());
    let mut ended = 0;
    for step in &trace.steps {
        while trace.ends.get(ended).is_some_and(|end| end.ended_at <= step.planned_at) {
            ended += 1;
        }
        let seen = ended + step.num_waiting as usize + step.num_running as usize;
        while seen_at.len() < seen.min(trace.requests.len()) {
            seen_at.push(step.planned_at);
        }
    }
    seen_at
}

/// When the loop was first free after an instant: at the end of the step that was running.
fn free_at(trace: &Trace, at: Timestamp) -> Timestamp {
    let begun = trace.steps.partition_point(|step| step.planned_at < at);
    let running = begun.checked_sub(1).map(|last| trace.steps[last].ended_at);
    running.map_or(at, |ended_at| ended_at.max(at))
}

/// Prompts outside the calibrated lengths, where deadlines are predicted from the calibration.
pub(super) fn extrapolated(trace: &Trace, scoring: &Scoring) -> Option<Doubt> {
    if !scoring.needs_curve() || trace.header.origin.is_imported() {
        return None;
    }
    let range = trace.header.calibration.as_ref()?.prefill.range()?;
    let (shortest, longest) = (f64::from(range.0), f64::from(range.1));
    let factor = |tokens: u32| {
        let tokens = f64::from(tokens.max(1));
        (tokens / longest).max(shortest / tokens)
    };
    let outside = || {
        let requests = trace.requests.iter().map(|request| request.prompt_tokens);
        requests.filter(|tokens| factor(*tokens) > EXTRAPOLATION)
    };
    let prompt_tokens = outside().max_by(|a, b| factor(*a).total_cmp(&factor(*b)))?;
    Some(Doubt::Extrapolated { requests: outside().count(), prompt_tokens, range })
}
