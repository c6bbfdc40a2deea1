use std::time::Duration;

use metron_trace::{StepRecord, Timestamp, Trace, WorkKind};
use serde::{Deserialize, Serialize};

use crate::percentile::interpolated;

/// What the steps of a run were.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepSummary {
    /// How many.
    pub count: usize,
    /// Mean time of a step, from its plan to its tokens.
    pub mean_s: f64,
    /// Median time of a step.
    pub p50_s: f64,
    /// The longest step.
    pub max_s: f64,
    /// Mean tokens of a step.
    pub mean_tokens: f64,
    /// Mean sequences of a step.
    pub mean_sequences: f64,
    /// Preemptions.
    pub preemptions: usize,
    /// Positions computed again after a preemption.
    pub recomputed_tokens: u64,
    /// The same as a share of all positions computed.
    pub recomputed_share: f64,
    /// The share of busy time that was not the forward pass; `None` where the forward pass was not
    /// timed.
    pub outside_forward: Option<f64>,
    /// The largest share of the KV pool that was in use.
    pub kv_peak: f64,
}

/// The steps of these runs together; `None` if they have none.
pub(crate) fn step_summary(traces: &[&Trace]) -> Option<StepSummary> {
    let steps: Vec<&StepRecord> = traces.iter().flat_map(|trace| &trace.steps).collect();
    if steps.is_empty() {
        return None;
    }
    let count = steps.len() as f64;
    let mut times: Vec<f64> = steps.iter().map(|step| step.took().as_secs_f64()).collect();
    times.sort_unstable_by(f64::total_cmp);
    let positions = positions(&steps, |_| true);
    let recomputed_tokens = self::positions(&steps, |kind| kind == WorkKind::Recompute);
    Some(StepSummary {
        count: steps.len(),
        mean_s: times.iter().sum::<f64>() / count,
        p50_s: interpolated(&times, 0.5).unwrap_or_default(),
        max_s: times.last().copied().unwrap_or_default(),
        mean_tokens: positions as f64 / count,
        mean_sequences: steps.iter().map(|step| sequences(step) as f64).sum::<f64>() / count,
        preemptions: steps.iter().map(|step| step.preemptions.len()).sum(),
        recomputed_tokens,
        recomputed_share: recomputed_tokens as f64 / positions.max(1) as f64,
        outside_forward: outside_forward(traces),
        kv_peak: steps.iter().map(|step| kv_share(step)).fold(0.0, f64::max),
    })
}

fn positions(steps: &[&StepRecord], counts: impl Fn(WorkKind) -> bool) -> u64 {
    let work = steps.iter().flat_map(|step| &step.work).filter(|work| counts(work.kind));
    work.map(|work| u64::from(work.tokens)).sum()
}

/// Sequences of a step; one that goes on after recomputing has two rows of work in succession.
fn sequences(step: &StepRecord) -> usize {
    step.work.chunk_by(|a, b| a.request == b.request).count()
}

fn kv_share(step: &StepRecord) -> f64 {
    let (used, free) = (f64::from(step.blocks_used), f64::from(step.blocks_free));
    used / (used + free).max(1.0)
}

/// The share of busy time that was not the forward pass. Busy time is the steps, and the time
/// between two steps while sequences were in progress.
fn outside_forward(traces: &[&Trace]) -> Option<f64> {
    let (mut busy, mut forward) = (Duration::ZERO, Duration::ZERO);
    for trace in traces {
        for (step, gap) in with_gaps(trace) {
            busy += step.took() + gap;
            forward += step.phases.forward?;
        }
    }
    (!busy.is_zero()).then(|| 1.0 - forward.as_secs_f64() / busy.as_secs_f64())
}

/// Each step with the time since the step before it, as far as sequences were in progress then.
pub(crate) fn with_gaps(trace: &Trace) -> impl Iterator<Item = (&StepRecord, Duration)> {
    let mut ends = trace.ends.iter().peekable();
    let mut busy_since: Option<Timestamp> = None;
    trace.steps.iter().map(move |step| {
        let gap = busy_since.map_or(Duration::ZERO, |since| step.planned_at - since);
        let mut ended = 0;
        while ends.next_if(|end| end.ended_at <= step.ended_at).is_some() {
            ended += 1;
        }
        let in_progress = u64::from(step.num_running) + u64::from(step.num_waiting);
        busy_since = (in_progress > ended).then_some(step.ended_at);
        (step, gap)
    })
}
