use std::time::Duration;

use metron_trace::{Origin, StepRecord, Trace};

use super::Doubt;
use crate::percentile::interpolated;
use crate::steps::with_gaps;

/// The first steps of a run, by whose median a missing warm-up is seen: one slow step is chance.
const FIRST_STEPS: usize = 5;
/// They may take longer than the rest by this factor: cost models are wrong by some tenths.
const MOST_SLOWER: f64 = 1.5;
/// A run with fewer steps than this has no rest to compare with.
const LEAST_STEPS: usize = 50;

/// The tick of a clock may be so much of a step.
const MOST_TICK: f64 = 0.01;

/// What happens between steps may take so much of busy time.
const MOST_BETWEEN: f64 = 0.01;

/// The first steps against the rest, each by what its batch was predicted to take.
pub(super) fn no_warm_up(trace: &Trace) -> Option<Doubt> {
    if trace.steps.len() < LEAST_STEPS {
        return None;
    }
    let (first, rest) = trace.steps.split_at(FIRST_STEPS);
    let factor = median(first.iter().filter_map(over_prediction))?
        / median(rest.iter().filter_map(over_prediction))?;
    (factor > MOST_SLOWER).then_some(Doubt::NoWarmUp { factor })
}

/// A step's time over its prediction.
fn over_prediction(step: &StepRecord) -> Option<f64> {
    let predicted = step.predicted.filter(|predicted| !predicted.is_zero())?;
    Some(step.took().as_secs_f64() / predicted.as_secs_f64())
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    interpolated(&values, 0.5)
}

/// The clock's tick is what all times of a trace are multiples of.
pub(super) fn clock_resolution(trace: &Trace) -> Option<Doubt> {
    if trace.header.origin != Origin::Measured {
        return None;
    }
    let times = trace.steps.iter().flat_map(|step| [step.planned_at, step.ended_at]);
    let tick = times.fold(0, |tick, at| gcd(tick, at.as_nanos()));
    let tick_s = Duration::from_nanos(tick).as_secs_f64();
    let step_s = median(trace.steps.iter().map(|step| step.took().as_secs_f64()))?;
    // Of two steps the times are multiples of nearly anything.
    let raises = trace.steps.len() >= LEAST_STEPS && tick_s > MOST_TICK * step_s;
    raises.then_some(Doubt::ClockResolution { tick_s, step_s })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The time between steps while requests were in progress, without turning tokens into text.
pub(super) fn observer_cost(trace: &Trace) -> Option<Doubt> {
    if trace.header.origin != Origin::Measured {
        return None;
    }
    let (mut busy, mut between, mut text) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for (step, gap) in with_gaps(trace) {
        busy += step.took() + gap;
        between += gap.saturating_sub(text);
        text = step.phases.detokenise.unwrap_or_default();
    }
    let share = between.as_secs_f64() / busy.as_secs_f64();
    (share > MOST_BETWEEN).then_some(Doubt::ObserverCost { share })
}
