//! Lateness by cause, worked out by hand to the nanosecond.

use std::time::Duration;

use metron_metrics::{Cause, Explanation, blame, explain, most_missed};
use metron_trace::{
    Calibration, DecodePoint, EndStatus, PrefillCurve, PrefillFit, RequestId, Trace,
    WorkKind::{Decode, Prefill},
};

use crate::script::{Script, scoring, trace, work};

const MS: u64 = 1_000_000;

/// 10 ms a step, 1 ms a prefill token; a decode alone takes 11 ms, two take 12.
fn calibration() -> Calibration {
    let decode = [(1, 11), (2, 12)].map(|(batch, ms)| DecodePoint {
        batch,
        context: 10,
        step_time: Duration::from_millis(ms),
    });
    let curve = PrefillCurve { a: 0.010, b: 0.001, c: 0.0 };
    let prefill = PrefillFit { curve, points: Vec::new(), relative_residual: 0.0 };
    Calibration { prefill, decode: decode.to_vec() }
}

/// Request 0 is prefilled alone, left out while request 1 is, and then decodes beside it, in a step
/// that is slower than it should be. One millisecond of each step is not the model's.
fn two_requests() -> Trace {
    let mut trace = trace()
        .arrives(0, 10)
        .arrives(5, 30)
        .step(0, 21, &[work(0, Prefill, 10)], &[0])
        .step(23, 64, &[work(1, Prefill, 30)], &[1])
        .step(64, 80, &[work(0, Decode, 1), work(1, Decode, 1)], &[0, 1])
        .ends(0, EndStatus::Finished, 80);
    trace.header.calibration = Some(calibration());
    trace
}

fn story(request: u32) -> Explanation {
    explain(&two_requests(), RequestId(request), &scoring()).expect("the request is there")
}

/// The causes of a request's nth late token with their milliseconds, the largest first.
fn parts(request: u32, nth: usize) -> Vec<(Cause, u64)> {
    let late = &story(request).late[nth];
    late.parts.iter().map(|part| (part.cause, part.lateness_ns / MS)).collect()
}

#[test]
fn a_decode_is_delayed_by_what_ran_in_its_stead_and_beside_it() {
    let late = &story(0).late[1];
    // 10 ms are allowed. Its own work takes 11, so one is the model's; the other 48 are delays: a
    // gap of 2 and 1 ms around each of two models, a prefill, a second decode, and 3 ms too much.
    assert_eq!((late.window_ns, late.allowed_ns, late.late_ns), (59 * MS, 10 * MS, 49 * MS));
    assert_eq!(late.alone_ns, Some(11 * MS));
    let expected = [
        (Cause::Prefill, 40),
        (Cause::Engine, 4),
        (Cause::Unexplained, 3),
        (Cause::BatchGrowth, 1),
        (Cause::Model, 1),
    ];
    assert_eq!(parts(0, 1), expected);
}

#[test]
fn a_first_token_waits_for_the_step_in_progress_and_for_the_plan_behind_it() {
    // 59 ms after the arrival, 20 are allowed and its prefill takes 40.
    assert_eq!(parts(1, 0), [(Cause::Model, 20), (Cause::Queue, 18), (Cause::Engine, 1)]);
}

#[test]
fn deadlines_are_divided_as_the_lateness_by_largest_remainder() {
    // One for the engine; five of 49 ms: 4.08 for the prefill, 0.41 for the engine, 0.31 unexplained.
    let story = story(0);
    let blame = story.estimated_blame.expect("it has a calibration");
    let missed = [Cause::Engine, Cause::Prefill].map(|cause| blame.missed_for(cause));
    assert_eq!((blame.missed, missed), (6, [2, 4]));
}

#[test]
fn the_steps_and_the_others_are_named() {
    let late = &story(0).late[1];
    let place = late.parts[0].place.as_ref().expect("a prefill is in a step");
    assert_eq!((place.steps, place.longest, place.longest_ns), (1, 1, 40 * MS));
    assert_eq!(place.ran, [(RequestId(1), 30)]);
    let engine = late.parts[1].place.as_ref().expect("some of it was in steps");
    assert_eq!((engine.steps, engine.first, engine.last), (2, 1, 2));
}

#[test]
fn the_request_that_missed_most_is_found() {
    let trace = two_requests();
    // Request 1 missed four with its first token, and one with its second.
    assert_eq!(most_missed(&trace, &scoring()), Some((RequestId(0), 6)));
}

#[test]
fn without_steps_or_a_calibration_nobody_is_blamed() {
    let mut without_steps = two_requests();
    without_steps.steps.clear();
    assert_eq!(blame(&[&two_requests(), &without_steps], &scoring()), None);
    let mut without_calibration = two_requests();
    without_calibration.header.calibration = None;
    assert_eq!(blame(&[&without_calibration], &scoring()), None);
}
