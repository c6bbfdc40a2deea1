use std::collections::BTreeMap;
use std::time::Duration;

use metron_trace::{Deadlines, EndStatus, Header, Origin, PrefillCurve, Timestamp, Trace};
use serde::{Deserialize, Serialize};

use crate::deadline::{ClassDeadlines, DeadlineRule};
use crate::etalon;
use crate::fluidity::{CountingRule, Deadlined, Fluidity, FluidityRule};
use crate::latency::{Absent, Latencies, Stalls};
use crate::limits::RequestLimits;
use crate::measure::RunSeries;
use crate::objective::Objectives;
use crate::objective_verdict::{Judged, judge_scored};
use crate::percentile::{Distribution, interpolated, supports};
use crate::rate::{FluidRate, RateTarget, Stream, fluid_rate};
use crate::steps::{StepSummary, step_summary};
use crate::timeline::{Timeline, timelines};

/// How a trace is scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// When tokens are due.
    pub deadlines: DeadlineRule,
    /// Deadlines of classes that have their own, by the class's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub class_deadlines: BTreeMap<String, ClassDeadlines>,
    /// The predicted prefill time, for deadlines that adjust to it.
    pub prefill: Option<PrefillCurve>,
    /// How the fluidity-index is counted.
    pub fluidity: FluidityRule,
    /// How fluid how many requests have to be.
    #[serde(default)]
    pub rate_target: RateTarget,
    /// A TBT above this is a stall, in seconds.
    #[serde(with = "crate::seconds")]
    pub stall_limit: Duration,
    /// What a request has to meet to count as goodput; `None`: goodput is not reported.
    pub goodput: Option<RequestLimits>,
    /// What runs are judged by.
    #[serde(default)]
    pub objectives: Objectives,
}

impl Scoring {
    /// The deadlines of a request of `class` with a prompt of `prompt_tokens`, for which `recorded`
    /// were in force during the run.
    pub fn deadlines_of(
        &self,
        class: Option<&str>,
        prompt_tokens: u32,
        recorded: Option<Deadlines>,
    ) -> Option<Deadlines> {
        let own = class.and_then(|class| self.class_deadlines.get(class));
        let rule = own.map_or(self.deadlines, |own| own.before(&self.deadlines));
        rule.of(prompt_tokens, recorded, self.prefill.as_ref())
    }

    /// The deadlines of a request of a run, by its class.
    pub fn deadlines_in(&self, header: &Header, timeline: &Timeline) -> Option<Deadlined> {
        let class = header.classes.get(timeline.class as usize).map(String::as_str);
        let deadlines = self.deadlines_of(class, timeline.prompt_tokens, timeline.deadlines);
        deadlines.map(Deadlined::from)
    }

    /// Whether any deadline needs a prefill curve.
    pub fn needs_curve(&self) -> bool {
        let own = self.class_deadlines.values().map(|own| own.before(&self.deadlines));
        own.chain([self.deadlines]).any(|rule| rule.needs_curve())
    }
}

/// Everything that is reported of a run, or of several runs of one policy pooled. Times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Requests, by how they ended.
    pub requests: RequestCounts,
    /// Length of the measurement window: from the start of the run (warm-up is a run of its own)
    /// to the last completion. 0 where nothing finished, and so are the throughputs; `None` where
    /// arrivals are not known, and so are they.
    pub window_s: Option<f64>,
    /// Finished requests a second.
    pub request_throughput: Option<f64>,
    /// Output tokens of the window a second, of whatever request.
    pub output_throughput: Option<f64>,
    /// The same with the prompts whose first token falls into the window.
    pub total_throughput: Option<f64>,
    /// Finished requests a second that meet every request limit.
    pub goodput: Option<f64>,
    /// From the arrival to the first step that ran any of a request's tokens.
    pub scheduling_delay: Distribution,
    /// From the first step that ran any of a request's tokens to the first token.
    pub prefill_time: Distribution,
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
    /// Each objective with its verdict.
    #[serde(default)]
    pub objectives: Vec<Judged>,
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

impl RequestCounts {
    /// Requests that did not come to an end of their own.
    pub const fn num_cut_off(&self) -> usize {
        self.unsent + self.in_progress + self.cancelled
    }

    /// Whether the run went to its end: a run that was cut short is no replicate of one that was
    /// not. Another tool's client withdraws requests for reasons of its own.
    pub fn are_whole(&self, origin: Origin) -> bool {
        let withdrawn = if origin.is_imported() { self.cancelled } else { 0 };
        self.num_cut_off() == withdrawn
    }
}

/// The fluidity-index over the requests that have one; failed requests count as 0, and one that was
/// in progress when the run ended has that of the tokens it got.
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
    /// The index from which a request counts as fluid.
    pub fluid_from: f64,
    /// The share of requests whose index reaches it.
    pub share_fluid: Option<f64>,
    /// Deadlines met.
    pub met: u64,
    /// Deadlines missed.
    pub missed: u64,
}

/// Scores one trace, or the runs of one policy pooled.
pub fn summarise(traces: &[&Trace], scoring: &Scoring) -> RunSummary {
    let scored = Scored::of_all(traces, scoring);
    let window_s: Option<f64> = traces.iter().map(|trace| window_s(trace)).sum();
    let a_second = |count: usize| {
        window_s.map(|window_s| if window_s > 0.0 { count as f64 / window_s } else { 0.0 })
    };
    let sum = |of: fn(&Scored) -> usize| a_second(scored.iter().map(of).sum());
    let finished = || scored.iter().filter(|request| request.timeline.is_finished());
    let good = |limits: &RequestLimits| {
        finished().filter(|request| limits.are_met(&request.latencies, request.index)).count()
    };
    let latency = |of: fn(&Latencies) -> Result<Duration, Absent>| {
        let spans = scored.iter().map(|request| of(&request.latencies));
        Distribution::of(spans.map(|span| span.map(|span| span.as_secs_f64())))
    };
    let tpot = latency(|latencies| latencies.tpot);
    let tbt = tbt(&scored);
    let mut stalls = Stalls::default();
    for request in &scored {
        stalls.add(&request.gaps, scoring.stall_limit);
    }
    let rate_of = |time: Option<f64>| time.filter(|time| *time > 0.0).map(|time| 1.0 / time);
    let is_etalon = scoring.fluidity.counting == CountingRule::Etalon;
    let finished_gaps = || finished().map(|request| request.gaps.as_slice());
    RunSummary {
        requests: counts(&scored),
        window_s,
        request_throughput: a_second(finished().count()),
        output_throughput: sum(|request| request.output_in_window),
        total_throughput: sum(|request| request.output_in_window + request.prompt_in_window),
        goodput: scoring.goodput.as_ref().and_then(|limits| a_second(good(limits))),
        scheduling_delay: latency(|latencies| latencies.scheduling_delay),
        prefill_time: latency(|latencies| latencies.prefill_time),
        ttft: latency(|latencies| latencies.ttft),
        tpot_rate: rate_of(tpot.mean),
        tail_tbt_rate: rate_of(tbt.p99),
        tbt,
        tpot,
        end_to_end: latency(|latencies| latencies.end_to_end),
        normalized: latency(|latencies| latencies.normalized),
        stalls,
        fluidity: fluidity_summary(&scored, scoring.rate_target.index),
        fluid_rate: rate(&scored, scoring, false),
        fluid_rate_with_first_token: rate(&scored, scoring, true),
        etalon_fluid_rate: if is_etalon { etalon::fluid_rate(finished_gaps()) } else { None },
        steps: step_summary(traces),
        objectives: judge_scored(&scored, traces, scoring),
    }
}

/// One run's values in the order of its requests' arrivals.
pub(crate) fn in_order(trace: &Trace, scoring: &Scoring) -> RunSeries {
    let mut series = RunSeries::default();
    for request in Scored::of_all(&[trace], scoring) {
        series.ttft.extend(request.latencies.ttft.map(|span| span.as_secs_f64()));
        series.are_fluid.extend(request.index.map(|index| index >= scoring.rate_target.index));
        if request.timeline.is_finished() {
            series.tbt.extend(request.gaps.iter().skip(1).map(|ns| *ns as f64 / 1e9));
        }
    }
    series
}

/// The end of the measurement window: the last completion.
fn window_end(trace: &Trace) -> Timestamp {
    let finished = trace.ends.iter().filter(|end| end.status == EndStatus::Finished);
    finished.map(|end| end.ended_at).max().unwrap_or_default()
}

/// The length of the window; `None` where no clock spans it.
fn window_s(trace: &Trace) -> Option<f64> {
    trace.header.origin.knows_arrivals().then(|| window_end(trace).as_secs_f64())
}

/// A request with its scores.
pub(crate) struct Scored {
    /// Which of the traces it is of.
    pub(crate) run: usize,
    pub(crate) timeline: Timeline,
    gaps: Vec<u64>,
    pub(crate) latencies: Latencies,
    deadlines: Option<Deadlined>,
    counted: Fluidity,
    /// The fluidity-index; a failed request's is 0.
    pub(crate) index: Option<f64>,
    /// Output tokens up to the end of the measurement window.
    output_in_window: usize,
    /// Prompt tokens, if the first output token came within the window.
    prompt_in_window: usize,
}

impl Scored {
    /// The requests of some runs, run by run, each in order of arrival.
    pub(crate) fn of_all(traces: &[&Trace], scoring: &Scoring) -> Vec<Self> {
        let of_run = |(run, trace): (usize, &&Trace)| {
            let until = window_end(trace);
            timelines(trace)
                .into_iter()
                .map(|timeline| {
                    let deadlines = scoring.deadlines_in(&trace.header, &timeline);
                    Self::new(run, timeline, until, deadlines, scoring)
                })
                .collect::<Vec<_>>()
        };
        traces.iter().enumerate().flat_map(of_run).collect()
    }

    fn new(
        run: usize,
        timeline: Timeline,
        until: Timestamp,
        deadlines: Option<Deadlined>,
        scoring: &Scoring,
    ) -> Self {
        let gaps = timeline.inter_token_ns();
        let counted = deadlines.map_or(Fluidity { met: 0, missed: 0 }, |deadlines| {
            timeline.fluidity(deadlines, &scoring.fluidity)
        });
        let failed = timeline.has_failed() && deadlines.is_some();
        let output_in_window = timeline.tokens_at.partition_point(|at| *at <= until);
        Self {
            latencies: Latencies::of(&timeline),
            index: if failed { Some(0.0) } else { counted.index() },
            counted,
            deadlines,
            gaps,
            output_in_window,
            prompt_in_window: if output_in_window > 0 {
                timeline.prompt_tokens as usize
            } else {
                0
            },
            timeline,
            run,
        }
    }

    /// The gaps that count for TBT: those of a finished request.
    pub(crate) fn finished_gaps(&self) -> &[u64] {
        let gaps = self.gaps.get(1..).unwrap_or_default();
        if self.timeline.is_finished() { gaps } else { &[] }
    }

    /// How late the token was that was the farthest behind its place in a stream without a miss, in
    /// seconds; below 0 if all were early. It varies where the fluidity-index is 1 for all. `None`
    /// without deadlines, or tokens that have one.
    pub(crate) fn worst_lateness(&self, rule: &FluidityRule) -> Option<f64> {
        let deadlines = self.deadlines?;
        let (mut late, mut worst) = (0, None);
        for (token, gap) in self.gaps.iter().enumerate() {
            let allowed = match token {
                0 if rule.with_first_token => i128::from(deadlines.first_ns),
                0 => continue,
                _ => i128::from(deadlines.next_ns),
            };
            late += i128::from(*gap) - allowed;
            worst = Some(worst.map_or(late, |worst: i128| worst.max(late)));
        }
        worst.map(|ns| ns as f64 / 1e9)
    }

    fn stream(&self, with_first_token: bool) -> Stream<'_> {
        match self.deadlines {
            None if with_first_token => Stream::Unscored,
            _ if self.timeline.has_failed() => Stream::Failed,
            deadlines => Stream::Served {
                inter_token_ns: &self.gaps,
                first_ns: deadlines.map_or(0, |deadlines| deadlines.first_ns),
            },
        }
    }
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

/// Every gap of every finished request.
fn tbt(scored: &[Scored]) -> Distribution {
    Distribution::of(scored.iter().flat_map(|request| {
        let gaps = request.finished_gaps();
        let cause =
            if request.timeline.has_failed() { Absent::Failed } else { Absent::Inapplicable };
        let absent = gaps.is_empty().then_some(Err(cause));
        gaps.iter().map(|ns| Ok(*ns as f64 / 1e9)).chain(absent)
    }))
}

fn fluidity_summary(scored: &[Scored], fluid_from: f64) -> FluiditySummary {
    let mut indices: Vec<f64> = scored.iter().filter_map(|request| request.index).collect();
    indices.sort_unstable_by(f64::total_cmp);
    let n = indices.len();
    let below = indices.partition_point(|index| *index < fluid_from);
    let sum = |of: fn(&Fluidity) -> u64| {
        scored.iter().map(|request| of(&request.counted)).fold(0, u64::saturating_add)
    };
    FluiditySummary {
        n,
        absent: scored.len() - n,
        p1: supports(0.01, n).then(|| interpolated(&indices, 0.01)).flatten(),
        min: indices.first().copied(),
        p50: interpolated(&indices, 0.5),
        mean: (n > 0).then(|| indices.iter().sum::<f64>() / n as f64),
        fluid_from,
        share_fluid: (n > 0).then(|| (n - below) as f64 / n as f64),
        met: sum(|counted| counted.met),
        missed: sum(|counted| counted.missed),
    }
}

fn rate(scored: &[Scored], scoring: &Scoring, with_first_token: bool) -> FluidRate {
    let rule = FluidityRule { with_first_token, ..scoring.fluidity };
    let streams = scored.iter().map(|request| request.stream(with_first_token));
    fluid_rate(streams, &rule, scoring.rate_target)
}
