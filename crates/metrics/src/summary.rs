use std::time::Duration;

use metron_trace::{Deadlines, EndStatus, PrefillCurve, StepRecord, Trace, WorkKind};
use serde::{Deserialize, Serialize};

use crate::deadline::DeadlineRule;
use crate::fluidity::{CountingRule, Deadlined, FluidityRule, fluidity};
use crate::latency::{Absent, Latencies, Stalls};
use crate::limits::RequestLimits;
use crate::percentile::{Distribution, interpolated};
use crate::rate::{FluidRate, Stream, etalon_rate, fluid_rate_of};
use crate::timeline::{Timeline, timelines};

/// How a trace is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// When tokens are due.
    pub deadlines: DeadlineRule,
    /// The predicted prefill time, for deadlines that adjust to it.
    pub prefill: Option<PrefillCurve>,
    /// How the fluidity-index is counted.
    pub fluidity: FluidityRule,
    /// A TBT above this is a stall.
    pub stall_limit: Duration,
    /// What a request has to meet to count as goodput; `None`: goodput is not reported.
    pub goodput: Option<RequestLimits>,
}

/// Everything that is reported of a run, or of several runs of one policy pooled. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Requests, by how they ended.
    pub requests: RequestCounts,
    /// Length of the measurement: from the start of the run to the last completion.
    pub window_s: f64,
    /// Finished requests a second.
    pub request_throughput: f64,
    /// Output tokens a second.
    pub output_throughput: f64,
    /// Prompt and output tokens a second, of finished requests.
    pub total_throughput: f64,
    /// Finished requests a second that meet every request limit.
    pub goodput: Option<f64>,
    /// From the arrival to the first step that ran any of a request's tokens.
    pub scheduling_delay: Distribution,
    /// From the arrival to the first token.
    pub ttft: Distribution,
    /// Between two tokens, pooled over all gaps of finished requests.
    pub tbt: Distribution,
    /// Mean TBT of a request.
    pub tpot: Distribution,
    /// From the arrival to the last token.
    pub end_to_end: Distribution,
    /// End-to-end latency by output token.
    pub normalized: Distribution,
    /// TBTs above the stall limit.
    pub stalls: Stalls,
    /// The fluidity-index.
    pub fluidity: FluiditySummary,
    /// The fluid token generation rate of the decode phase, the headline figure.
    pub fluid_rate: FluidRate,
    /// The same with the first token's deadline.
    pub fluid_rate_with_first_token: FluidRate,
    /// The original tool's figure, where it is asked for by its rule.
    pub etalon_fluid_rate: Option<f64>,
    /// `1 / mean TPOT`, tokens a second: what the fluid rate is compared with.
    pub tpot_rate: Option<f64>,
    /// `1 / P99 TBT`, tokens a second: likewise.
    pub tail_tbt_rate: Option<f64>,
    /// What the steps were; `None` for a trace without steps.
    pub steps: Option<StepSummary>,
}

/// Requests by how they ended: `scheduled` is the sum of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestCounts {
    /// All that the workload scheduled.
    pub scheduled: usize,
    /// All tokens generated.
    pub finished: usize,
    /// Given up.
    pub failed: usize,
    /// Their client stopped waiting.
    pub timed_out: usize,
    /// Withdrawn, or cut off with the run.
    pub cancelled: usize,
    /// Never sent.
    pub unsent: usize,
    /// In progress when the trace ends.
    pub in_progress: usize,
}

/// The fluidity-index over the requests that have one; failed requests count as 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FluiditySummary {
    /// Requests with an index.
    pub n: usize,
    /// Requests without any deadline.
    pub absent: usize,
    /// Its 1st percentile, where n supports it.
    pub p1: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// Its mean.
    pub mean: Option<f64>,
    /// The share of requests with an index of at least 0.9.
    pub share_fluid: Option<f64>,
    /// Deadlines met.
    pub met: u64,
    /// Deadlines missed.
    pub missed: u64,
}

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
    /// Positions computed again, as a share of all positions computed.
    pub recomputed_share: f64,
    /// The share of busy time that was not the forward pass; `None` where the forward pass was not
    /// timed.
    pub outside_forward: Option<f64>,
    /// The largest share of the KV pool that was in use.
    pub kv_peak: f64,
}

/// Scores one trace, or the runs of one policy pooled.
pub fn summarise(traces: &[&Trace], scoring: &Scoring) -> RunSummary {
    let scored: Vec<Scored> = traces
        .iter()
        .flat_map(|trace| timelines(trace))
        .map(|timeline| Scored::new(timeline, scoring))
        .collect();
    let window_s: f64 = traces.iter().map(|trace| window(trace)).sum();
    let a_second = |count: f64| if window_s > 0.0 { count / window_s } else { 0.0 };
    let finished = || scored.iter().filter(|request| request.timeline.is_finished());
    let total_tokens =
        |request: &Scored| f64::from(request.timeline.prompt_tokens) + request.gaps.len() as f64;
    let goodput = scoring.goodput.as_ref().map(|limits| {
        let good =
            finished().filter(|request| limits.are_met(&request.latencies, request.index)).count();
        a_second(good as f64)
    });
    let latency = |of: fn(&Latencies) -> Result<Duration, Absent>| distribution(&scored, of);
    let tpot = latency(|l| l.tpot);
    let tbt = tbt(&scored);
    let mut stalls = Stalls::default();
    for request in &scored {
        stalls.add(&request.gaps, scoring.stall_limit);
    }
    let rate = |with_first_token: bool| fluid_rate(&scored, scoring, with_first_token);
    let is_etalon = scoring.fluidity.counting == CountingRule::Etalon;
    RunSummary {
        requests: counts(&scored),
        window_s,
        request_throughput: a_second(finished().count() as f64),
        output_throughput: a_second(scored.iter().map(|r| r.gaps.len() as f64).sum()),
        total_throughput: a_second(finished().map(total_tokens).sum()),
        goodput,
        scheduling_delay: latency(|l| l.scheduling_delay),
        ttft: latency(|l| l.ttft),
        tpot_rate: tpot.mean.filter(|mean| *mean > 0.0).map(|mean| 1.0 / mean),
        tail_tbt_rate: tbt.p99.filter(|p99| *p99 > 0.0).map(|p99| 1.0 / p99),
        tbt,
        tpot,
        end_to_end: latency(|l| l.end_to_end),
        normalized: latency(|l| l.normalized),
        stalls,
        fluidity: fluidity_summary(&scored),
        fluid_rate: rate(false),
        fluid_rate_with_first_token: rate(true),
        etalon_fluid_rate: is_etalon.then(|| etalon_rate(finished().map(|r| r.gaps.as_slice()))),
        steps: step_summary(traces),
    }
}

/// A request with its scores.
struct Scored {
    timeline: Timeline,
    gaps: Vec<u64>,
    latencies: Latencies,
    deadlines: Option<Deadlines>,
    met: u64,
    missed: u64,
    /// The fluidity-index; a failed request's is 0.
    index: Option<f64>,
}

impl Scored {
    fn new(timeline: Timeline, scoring: &Scoring) -> Self {
        let gaps = timeline.inter_token_ns();
        let (prompt, recorded) = (timeline.prompt_tokens, timeline.deadlines);
        let deadlines = scoring.deadlines.of(prompt, recorded, scoring.prefill.as_ref());
        let counted = deadlines.map(|due| fluidity(&gaps, due.into(), &scoring.fluidity));
        let index = counted.and_then(|counted| counted.index());
        Self {
            latencies: Latencies::of(&timeline),
            met: counted.map_or(0, |counted| counted.met),
            missed: counted.map_or(0, |counted| counted.missed),
            index: if timeline.has_failed() && deadlines.is_some() { Some(0.0) } else { index },
            deadlines,
            gaps,
            timeline,
        }
    }
}

/// From the start of the run to the last completion.
fn window(trace: &Trace) -> f64 {
    let ended = trace.ends.iter().filter(|end| end.status == EndStatus::Finished);
    ended.map(|end| end.ended_at).max().unwrap_or_default().as_secs_f64()
}

fn counts(scored: &[Scored]) -> RequestCounts {
    let of = |status: Option<EndStatus>| {
        scored.iter().filter(|request| request.timeline.status == status).count()
    };
    RequestCounts {
        scheduled: scored.len(),
        finished: of(Some(EndStatus::Finished)),
        failed: of(Some(EndStatus::Failed)),
        timed_out: of(Some(EndStatus::TimedOut)),
        cancelled: of(Some(EndStatus::Cancelled)),
        unsent: of(Some(EndStatus::Unsent)),
        in_progress: of(None),
    }
}

fn distribution(scored: &[Scored], of: fn(&Latencies) -> Result<Duration, Absent>) -> Distribution {
    let values: Vec<f64> = scored
        .iter()
        .filter_map(|r| of(&r.latencies).ok())
        .map(|span| span.as_secs_f64())
        .collect();
    let absent = scored.len() - values.len();
    Distribution::of(values, absent)
}

fn tbt(scored: &[Scored]) -> Distribution {
    let finished = || scored.iter().filter(|request| request.timeline.is_finished());
    let gaps = finished().flat_map(|request| request.gaps.iter().skip(1));
    let absent = finished().filter(|request| request.gaps.len() < 2).count();
    Distribution::of(gaps.map(|ns| *ns as f64 / 1e9).collect(), absent)
}

fn fluidity_summary(scored: &[Scored]) -> FluiditySummary {
    let indices: Vec<f64> = scored.iter().filter_map(|request| request.index).collect();
    let n = indices.len();
    let fluid = indices.iter().filter(|index| **index >= 0.9).count();
    let mut sorted = indices;
    sorted.sort_unstable_by(f64::total_cmp);
    let supports_p1 = crate::percentile::supports(0.01, n);
    FluiditySummary {
        n,
        absent: scored.len() - n,
        p1: supports_p1.then(|| interpolated(&sorted, 0.01)).flatten(),
        min: sorted.first().copied(),
        p50: interpolated(&sorted, 0.5),
        mean: (n > 0).then(|| sorted.iter().sum::<f64>() / n as f64),
        share_fluid: (n > 0).then(|| fluid as f64 / n as f64),
        met: scored.iter().map(|request| request.met).sum(),
        missed: scored.iter().map(|request| request.missed).sum(),
    }
}

fn fluid_rate(scored: &[Scored], scoring: &Scoring, with_first_token: bool) -> FluidRate {
    let rule = FluidityRule { with_first_token, ..scoring.fluidity };
    let streams = scored.iter().map(|request| Stream {
        inter_token_ns: &request.gaps,
        first_ns: request.deadlines.map_or(0, |due| Deadlined::from(due).first_ns),
        failed: request.timeline.has_failed(),
    });
    fluid_rate_of(streams, &rule)
}

fn step_summary(traces: &[&Trace]) -> Option<StepSummary> {
    let steps: Vec<&StepRecord> = traces.iter().flat_map(|trace| &trace.steps).collect();
    if steps.is_empty() {
        return None;
    }
    let count = steps.len() as f64;
    let mut times: Vec<f64> = steps.iter().map(|step| step.took().as_secs_f64()).collect();
    times.sort_unstable_by(f64::total_cmp);
    let positions: u64 = steps.iter().map(|step| u64::from(step.tokens())).sum();
    let recomputed: u64 =
        steps.iter().map(|step| u64::from(step.tokens_of(WorkKind::Recompute))).sum();
    let kv_share = |step: &&StepRecord| {
        f64::from(step.blocks_used) / f64::from((step.blocks_used + step.blocks_free).max(1))
    };
    Some(StepSummary {
        count: steps.len(),
        mean_s: times.iter().sum::<f64>() / count,
        p50_s: interpolated(&times, 0.5).unwrap_or_default(),
        max_s: times.last().copied().unwrap_or_default(),
        mean_tokens: positions as f64 / count,
        mean_sequences: steps.iter().map(|step| sequences(step) as f64).sum::<f64>() / count,
        preemptions: steps.iter().map(|step| step.preemptions.len()).sum(),
        recomputed_share: recomputed as f64 / (positions.max(1)) as f64,
        outside_forward: outside_forward(traces),
        kv_peak: steps.iter().map(kv_share).fold(0.0, f64::max),
    })
}

/// Sequences of a step; one that goes on after recomputing has two rows of work.
fn sequences(step: &StepRecord) -> usize {
    step.work.iter().filter(|work| work.kind != WorkKind::Recompute || is_alone(step, work)).count()
}

fn is_alone(step: &StepRecord, work: &metron_trace::Work) -> bool {
    step.work.iter().filter(|other| other.request == work.request).count() == 1
}

/// The share of busy time that was not the forward pass. Busy time is the steps, and the time
/// between two steps while sequences were in progress.
fn outside_forward(traces: &[&Trace]) -> Option<f64> {
    let (mut busy, mut forward) = (Duration::ZERO, Duration::ZERO);
    for trace in traces {
        let mut ends = trace.ends.iter().peekable();
        let mut before: Option<(&StepRecord, bool)> = None;
        for step in &trace.steps {
            busy += step.took();
            forward += step.phases.forward?;
            if let Some((previous, true)) = before {
                busy += step.planned_at - previous.ended_at;
            }
            let mut ended = 0;
            while ends.next_if(|end| end.ended_at <= step.ended_at).is_some() {
                ended += 1;
            }
            before = Some((step, step.num_running + step.num_waiting > ended));
        }
    }
    (!busy.is_zero()).then(|| 1.0 - forward.as_secs_f64() / busy.as_secs_f64())
}
