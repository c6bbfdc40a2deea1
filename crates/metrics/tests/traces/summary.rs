//! Every number of a run, worked out by hand.

use std::time::Duration;

use metron_metrics::{
    Absent, CountingRule, DeadlineRule, Latencies, RequestLimits, RunSummary, Scoring, summarise,
    timelines,
};
use metron_trace::{
    Deadlines, EndStatus, Origin, RequestEnd, RequestId, Timestamp, Trace,
    WorkKind::{Decode, Prefill, Recompute},
};
use proptest::prelude::*;

use crate::script::{Script, scoring, trace, work};

/// Request 0 gets three tokens, on time; request 1 one, late; request 2 fails without one; request
/// 3 is in progress without one; request 4 is never sent.
fn every_fate() -> Trace {
    trace()
        .arrives(0, 10)
        .arrives(5, 20)
        .arrives(10, 30)
        .arrives(36, 40)
        .arrives(99, 50)
        .step(0, 10, &[work(0, Prefill, 10)], &[0])
        .step(10, 30, &[work(0, Decode, 1), work(1, Prefill, 20)], &[0, 1])
        .ends(1, EndStatus::Finished, 30)
        .step(30, 40, &[work(0, Decode, 1)], &[0])
        .ends(2, EndStatus::Failed, 35)
        .ends(0, EndStatus::Finished, 40)
        .ends(4, EndStatus::Unsent, 41)
}

fn close(got: Option<f64>, expected: f64) {
    assert!(got.is_some_and(|got| (got - expected).abs() < 1e-9), "{got:?} is not {expected}");
}

#[test]
fn every_request_is_counted_once() {
    let counts = summarise(&[&every_fate()], &scoring()).requests;
    assert_eq!((counts.scheduled, counts.finished, counts.failed), (5, 2, 1));
    assert_eq!((counts.timed_out, counts.cancelled), (0, 0));
    assert_eq!((counts.unsent, counts.in_progress), (1, 1));
}

#[test]
fn throughput_is_of_the_window_that_ends_with_the_last_completion() {
    let summary = summarise(&[&every_fate()], &scoring());
    close(summary.window_s, 0.040);
    close(summary.request_throughput, 2.0 / 0.040);
    close(summary.output_throughput, 4.0 / 0.040);
    close(summary.total_throughput, (4.0 + 10.0 + 20.0) / 0.040);
}

/// What an interrupted run did after its last completion is outside the window.
#[test]
fn tokens_after_the_last_completion_are_not_in_the_throughput() {
    let interrupted =
        every_fate().step(40, 60, &[work(3, Prefill, 40)], &[3]).ends(3, EndStatus::Cancelled, 61);
    let summary = summarise(&[&interrupted], &scoring());
    close(summary.output_throughput, 4.0 / 0.040);
    close(summary.total_throughput, (4.0 + 10.0 + 20.0) / 0.040);
}

/// Ctrl-C cancels what is in progress: request 3 has not failed, and keeps what it got.
#[test]
fn a_request_that_was_cut_off_with_the_run_has_not_failed() {
    let cut =
        every_fate().step(40, 50, &[work(3, Prefill, 40)], &[3]).ends(3, EndStatus::Cancelled, 51);
    let summary = summarise(&[&cut], &scoring());
    assert_eq!((summary.requests.cancelled, summary.ttft.failed), (1, 1));
    // Its one token was on time: 1, 0, 0 and 1, and only the request that failed has no rate.
    close(summary.fluidity.share_fluid, 0.5);
    assert_eq!(summary.fluid_rate.unattainable, 1);
    let mut withdrawn = cut;
    withdrawn.header.origin = Origin::Imported;
    let summary = summarise(&[&withdrawn], &scoring());
    assert_eq!((summary.fluidity.n, summary.fluid_rate.unattainable), (4, 2));
    close(summary.fluidity.share_fluid, 0.25);
}

#[test]
fn latencies_are_those_of_the_definitions() {
    let summary = summarise(&[&every_fate()], &scoring());
    let of = |d: metron_metrics::Distribution| (d.n, d.absent, d.failed);
    // TTFT: 10 and 25 ms; the failed one beside those to which it cannot apply.
    assert_eq!(of(summary.ttft), (2, 2, 1));
    close(summary.ttft.mean, 0.0175);
    close(summary.ttft.max, 0.025);
    // Scheduled at once, and 5 ms after the arrival.
    assert_eq!(of(summary.scheduling_delay), (2, 2, 1));
    close(summary.scheduling_delay.max, 0.005);
    // Two gaps of request 0: 20 and 10 ms. A single token has none.
    assert_eq!(of(summary.tbt), (2, 3, 1));
    close(summary.tbt.p50, 0.015);
    assert_eq!(of(summary.tpot), (1, 3, 1));
    close(summary.tpot.mean, 0.015);
    close(summary.tpot_rate, 1.0 / 0.015);
    assert_eq!(summary.tail_tbt_rate, None, "two gaps have no 99th percentile");
    // 40 ms for three tokens, 25 ms for one.
    close(summary.end_to_end.max, 0.040);
    close(summary.normalized.min, 0.040 / 3.0);
    close(summary.normalized.max, 0.025);
}

#[test]
fn what_failed_and_what_cannot_apply_are_told_apart() {
    let all: Vec<Latencies> = timelines(&every_fate()).iter().map(Latencies::of).collect();
    assert_eq!(all[0].prefill_time, Ok(Duration::from_millis(10)));
    assert_eq!(all[1].tpot, Err(Absent::Inapplicable), "one token");
    assert_eq!(all[2].ttft, Err(Absent::Failed));
    assert_eq!(all[3].end_to_end, Err(Absent::Inapplicable), "in progress");
    assert_eq!(all[4].ttft, Err(Absent::Inapplicable), "never sent");
}

#[test]
fn a_gap_above_the_limit_is_a_stall() {
    let stalls = summarise(&[&every_fate()], &scoring()).stalls;
    let stalled = Duration::from_millis(20);
    assert_eq!((stalls.count, stalls.total, stalls.longest), (1, stalled, stalled));
}

#[test]
fn a_failed_request_has_a_fluidity_index_of_zero_and_an_unsent_one_none() {
    let fluidity = summarise(&[&every_fate()], &scoring()).fluidity;
    // 1, 0 (late by 5 of 20 ms), 0 (failed).
    assert_eq!((fluidity.n, fluidity.absent), (3, 2));
    close(fluidity.share_fluid, 1.0 / 3.0);
    close(fluidity.mean, 1.0 / 3.0);
    assert_eq!((fluidity.p1, fluidity.min), (None, Some(0.0)));
    assert_eq!((fluidity.met, fluidity.missed), (3, 1));
}

#[test]
fn the_fluid_rate_counts_failures_and_leaves_out_what_has_no_index() {
    let summary = summarise(&[&every_fate()], &scoring());
    let rate = summary.fluid_rate;
    // Request 0 alone has a decode phase: 50 tokens/s if the failed one did not count.
    assert_eq!((rate.requests, rate.unattainable, rate.excluded), (2, 1, 3));
    close(Some(rate.tokens_per_second), 0.0);
    let with_first = summary.fluid_rate_with_first_token;
    assert_eq!((with_first.requests, with_first.unattainable, with_first.excluded), (3, 2, 2));
}

/// One request: 10 ms to the first token, then 20 and 10 ms.
fn one_request() -> Trace {
    let mut trace = every_fate();
    trace.requests.truncate(1);
    trace
}

#[test]
fn a_rate_needs_no_deadline_but_the_first_tokens() {
    let recorded = Scoring { deadlines: DeadlineRule::RECORDED, ..scoring() };
    let summary = summarise(&[&one_request()], &recorded);
    // 10 ms of the first token are no slack here: 20 ms is the least.
    close(Some(summary.fluid_rate.tokens_per_second), 50.0);
    let with_first = summary.fluid_rate_with_first_token;
    assert_eq!((with_first.requests, with_first.excluded), (0, 1));
    assert_eq!(summary.fluidity.n, 0, "no deadlines were recorded");
}

#[test]
fn the_rate_with_the_first_token_has_its_slack() {
    // 10 ms of slack from the first token pay for half of the 20 ms, so 10 ms is enough.
    let summary = summarise(&[&one_request()], &scoring());
    close(Some(summary.fluid_rate.tokens_per_second), 50.0);
    close(Some(summary.fluid_rate_with_first_token.tokens_per_second), 100.0);
    assert_eq!(summary.etalon_fluid_rate, None, "only by its own rule");
    let mut etalon = scoring();
    etalon.fluidity.counting = CountingRule::Etalon;
    let rate = summarise(&[&one_request()], &etalon).etalon_fluid_rate;
    assert!(rate.is_some_and(|rate| (rate - 50.0).abs() < 0.5), "{rate:?}");
}

#[test]
fn deadlines_of_the_trace_are_used_where_the_rule_says_so() {
    let mut trace = one_request();
    let ms = Duration::from_millis;
    trace.requests[0].deadlines = Some(Deadlines { first_token: ms(5), next_token: ms(10) });
    let recorded = Scoring { deadlines: DeadlineRule::RECORDED, ..scoring() };
    let fluidity = summarise(&[&trace], &recorded).fluidity;
    // Late by 5 ms, late by 10 ms, on time.
    assert_eq!((fluidity.met, fluidity.missed), (1, 2));
}

#[test]
fn goodput_counts_the_requests_that_meet_every_limit() {
    let goodput = |limits: &[&str]| {
        let limits = limits.iter().map(|limit| limit.parse().expect("a limit"));
        let goodput = Some(RequestLimits(limits.collect()));
        summarise(&[&every_fate()], &Scoring { goodput, ..scoring() }).goodput
    };
    close(goodput(&["ttft:25", "e2el:40"]), 2.0 / 0.040);
    close(goodput(&["ttft:24.9"]), 1.0 / 0.040);
    close(goodput(&["ttft:24.9", "tpot:14"]), 0.0);
    // One token has no TPOT, and so no limit to break.
    close(goodput(&["tpot:14"]), 1.0 / 0.040);
    close(goodput(&["fluidity_index:0.9"]), 1.0 / 0.040);
    assert_eq!(summarise(&[&every_fate()], &scoring()).goodput, None);
}

#[test]
fn steps_say_what_was_recomputed_and_what_was_not_the_forward() {
    let trace = trace()
        .arrives(0, 10)
        .step(0, 10, &[work(0, Prefill, 10)], &[0])
        .step(12, 22, &[work(0, Recompute, 9), work(0, Decode, 1)], &[0])
        .preempts(0)
        .ends(0, EndStatus::Finished, 22);
    let steps = summarise(&[&trace], &scoring()).steps.expect("there are two");
    assert_eq!((steps.count, steps.preemptions, steps.recomputed_tokens), (2, 1, 9));
    close(Some(steps.recomputed_share), 9.0 / 20.0);
    close(Some(steps.mean_s), 0.010);
    close(Some(steps.mean_tokens), 10.0);
    close(Some(steps.mean_sequences), 1.0);
    close(Some(steps.kv_peak), 0.25);
    // 9 of each 10 ms, and 2 ms between the steps while the request was in progress.
    close(steps.outside_forward, 1.0 - 18.0 / 22.0);
}

#[test]
fn a_trace_without_anything_has_no_numbers() {
    let summary = summarise(&[&trace()], &scoring());
    assert_eq!((summary.requests.scheduled, summary.window_s), (0, Some(0.0)));
    assert_eq!((summary.ttft.mean, summary.fluidity.share_fluid), (None, None));
    assert_eq!(summary.steps, None);
}

#[test]
fn records_of_requests_that_are_not_there_are_left_out() {
    let mut trace = every_fate();
    trace.ends.push(RequestEnd {
        request: RequestId(u32::MAX),
        status: EndStatus::Finished,
        ended_at: Timestamp::ZERO,
    });
    assert_eq!(summarise(&[&trace], &scoring()), summarise(&[&every_fate()], &scoring()));
}

#[test]
fn a_summary_reads_back_as_it_was_written() {
    let summary = summarise(&[&every_fate()], &scoring());
    let json = serde_json::to_string(&summary).expect("it has a form in JSON");
    let read: RunSummary = serde_json::from_str(&json).expect("it is a summary");
    assert_eq!(serde_json::to_string(&read).expect("as before"), json);
}

fn any_status() -> impl Strategy<Value = Option<EndStatus>> {
    use EndStatus::{Cancelled, Failed, Finished, TimedOut, Unsent};
    proptest::option::of(prop::sample::select(vec![Finished, Failed, TimedOut, Cancelled, Unsent]))
}

prop_compose! {
    /// One token a step for each of some requests, with gaps up to 40 ms.
    fn any_trace()(
        requests in proptest::collection::vec(
            (0_u64..50, any_status(), proptest::collection::vec(1_u64..40, 0..6)), 1..12,
        ),
    ) -> Trace {
        let mut made = trace();
        for (request, (arrived, status, gaps)) in requests.into_iter().enumerate() {
            made = made.arrives(arrived, 8);
            let (mut now, request) = (arrived, request as u32);
            for gap in gaps {
                made = made.step(now, now + gap, &[work(request, Decode, 1)], &[request]);
                now += gap;
            }
            if let Some(status) = status {
                made = made.ends(request, status, now);
            }
        }
        made.tokens.sort_by_key(|token| token.at);
        made
    }
}

/// Everything that does not depend on when the run began.
fn without_the_window(mut summary: RunSummary) -> RunSummary {
    summary.window_s = None;
    summary.request_throughput = None;
    summary.output_throughput = None;
    summary.total_throughput = None;
    summary
}

fn shifted(mut trace: Trace, by: Duration) -> Trace {
    trace.requests.iter_mut().for_each(|request| request.arrived_at = request.arrived_at + by);
    trace.tokens.iter_mut().for_each(|token| token.at = token.at + by);
    trace.ends.iter_mut().for_each(|end| end.ended_at = end.ended_at + by);
    for step in &mut trace.steps {
        step.planned_at = step.planned_at + by;
        step.started_at = step.started_at + by;
        step.ended_at = step.ended_at + by;
    }
    trace
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_scheduled_is_what_came_of_it(trace in any_trace()) {
        let summary = summarise(&[&trace], &scoring());
        let counts = summary.requests;
        let ended = counts.finished + counts.failed + counts.timed_out + counts.cancelled;
        prop_assert_eq!(counts.scheduled, ended + counts.unsent + counts.in_progress);
        prop_assert_eq!(counts.scheduled, trace.requests.len());
        for latency in [summary.ttft, summary.tpot, summary.end_to_end, summary.scheduling_delay] {
            prop_assert_eq!(latency.n + latency.absent + latency.failed, counts.scheduled);
        }
        for rate in [summary.fluid_rate, summary.fluid_rate_with_first_token] {
            prop_assert_eq!(rate.requests + rate.excluded, counts.scheduled);
        }
    }

    #[test]
    fn inter_token_times_add_up_to_the_end_to_end_latency(trace in any_trace()) {
        for timeline in timelines(&trace).iter().filter(|t| !t.tokens_at.is_empty()) {
            let sum: u64 = timeline.inter_token_ns().iter().sum();
            let last = timeline.tokens_at[timeline.tokens_at.len() - 1];
            prop_assert_eq!(Duration::from_nanos(sum), last - timeline.arrived_at);
        }
    }

    #[test]
    fn shifting_the_clock_changes_nothing(trace in any_trace(), by in 0_u64..1 << 40) {
        let later = shifted(trace.clone(), Duration::from_nanos(by));
        prop_assert_eq!(
            without_the_window(summarise(&[&later], &scoring())),
            without_the_window(summarise(&[&trace], &scoring()))
        );
    }

    #[test]
    fn pooled_runs_have_the_counts_of_all_of_them(a in any_trace(), b in any_trace()) {
        let [one, other, both] =
            [vec![&a], vec![&b], vec![&a, &b]].map(|traces| summarise(&traces, &scoring()));
        prop_assert_eq!(both.tbt.n, one.tbt.n + other.tbt.n);
        prop_assert_eq!(both.fluidity.missed, one.fluidity.missed + other.fluidity.missed);
        prop_assert_eq!(both.stalls.total, one.stalls.total + other.stalls.total);
        prop_assert_eq!(both.ttft.max, [one.ttft.max, other.ttft.max].into_iter().max_by(
            |a, b| a.partial_cmp(b).expect("no latency is NaN"),
        ).flatten());
    }
}
