//! Runs as trace events: what a viewer relies on. `scripts/check-perfetto` asks Perfetto itself.

mod served;

use std::collections::{BTreeMap, BTreeSet};

use metron_report::write_perfetto;
use metron_trace::{Preemption, PreemptionCause, RequestId, StepRecord, Trace};
use serde_json::Value;
use served::Experiment;

fn events(policy: &'static str) -> Vec<Value> {
    Experiment::of(&[policy], 40).report(|report| events_of(report.runs[0].trace))
}

fn events_of(trace: &Trace) -> Vec<Value> {
    let mut bytes = Vec::new();
    write_perfetto(trace, &mut bytes).expect("memory takes everything");
    let whole: Value = serde_json::from_slice(&bytes).expect("it is one JSON object");
    whole["traceEvents"].as_array().expect("a list of events").clone()
}

fn of_phase<'a>(events: &'a [Value], phase: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["ph"] == phase)
}

fn track(event: &Value) -> (u64, u64) {
    let number = |key: &str| event[key].as_u64().expect("a number");
    (number("pid"), number("tid"))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn at(event: &Value) -> f64 {
    event["ts"].as_f64().expect("a time")
}

/// The events of each request, by its id.
fn by_request(events: &[Value]) -> BTreeMap<&str, Vec<&Value>> {
    let mut requests: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in events {
        if let Some(id) = event["id2"]["local"].as_str() {
            requests.entry(id).or_default().push(event);
        }
    }
    requests
}

/// What begins in a track begins when what was before it has ended, or both mean the same: viewers
/// drop slices that overlap in part.
#[test]
fn slices_of_a_track_follow_one_another() {
    let events = events("sarathi");
    let mut tracks: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    for event in of_phase(&events, "X") {
        let dur = event["dur"].as_f64().expect("a time");
        tracks.entry(track(event)).or_default().push((at(event), at(event) + dur));
    }
    for (track, slices) in tracks {
        for pair in slices.windows(2) {
            assert!(pair[1].0 >= pair[0].1 - 1e-6, "{track:?}: {pair:?}");
        }
    }
}

/// Viewers close what began last, whatever the name of the end.
#[test]
fn what_happens_to_a_request_lies_within_it_in_order_of_time() {
    for policy in ["vllm-v0", "sarathi"] {
        let events = events(policy);
        let requests = by_request(&events);
        assert_eq!(requests.len(), 40);
        for events in requests.values() {
            assert!(events.is_sorted_by(|a, b| at(a) <= at(b)), "{events:?}");
            let mut open = Vec::new();
            for event in events {
                match text(&event["ph"]) {
                    "b" => open.push(&event["name"]),
                    "e" => assert_eq!(open.pop(), Some(&event["name"])),
                    phase => assert_eq!((phase, open.len()), ("n", 1), "{event}"),
                }
                assert!(open.len() <= 2, "{event}");
            }
            assert!(open.is_empty(), "every request ended");
        }
    }
}

#[test]
fn a_preempted_request_waits_until_it_runs_again() {
    let Experiment { mut runs, .. } = Experiment::of(&["sarathi"], 40);
    let trace = &mut runs[0].2;
    let victim = RequestId(0);
    let runs_it = |step: &StepRecord| step.work.iter().any(|work| work.request == victim);
    let last = trace.steps.iter().rposition(runs_it).expect("it ran");
    // As if it had been preempted one step before its last, and its blocks were not lost.
    let before = &mut trace.steps[last - 1];
    before.work.retain(|work| work.request != victim);
    let cause = PreemptionCause::Policy;
    before.preemptions.push(Preemption { request: victim, cause, tokens_lost: 7 });
    let events = events_of(trace);
    let of_victim = &by_request(&events)["0"];
    let at = of_victim.iter().position(|event| event["name"] == "preempted").expect("it was");
    let after = of_victim[at..].iter().map(|event| (text(&event["name"]), text(&event["ph"])));
    let after: Vec<(&str, &str)> = after.take(4).collect();
    assert_eq!(after, [("preempted", "n"), ("waiting", "b"), ("waiting", "e"), ("decode", "b")]);
    assert_eq!(of_victim[at]["args"]["tokens_lost"], 7);
    assert_eq!(of_victim[at]["args"]["cause"], "policy");
}

/// A request that was in progress when a run was cut off is not shown as one that ended.
#[test]
fn a_request_that_did_not_end_stays_open() {
    let Experiment { mut runs, .. } = Experiment::of(&["sarathi"], 40);
    let trace = &mut runs[0].2;
    trace.ends.clear();
    let events = events_of(trace);
    let phases = |phase| of_phase(&events, phase).count();
    assert_eq!(phases("b") - phases("e"), 40);
}

/// Of another tool's trace nobody knows whether a request waited.
#[test]
fn without_steps_a_request_is_only_from_when_to_when() {
    let Experiment { mut runs, .. } = Experiment::of(&["sarathi"], 40);
    let trace = &mut runs[0].2;
    trace.steps.clear();
    let events = events_of(trace);
    assert_eq!((of_phase(&events, "b").count(), events.len()), (40, 1 + 2 * 40));
}

#[test]
fn every_track_has_a_name_and_none_is_taken_for_a_main_thread() {
    let events = events("sarathi");
    let named: BTreeSet<(u64, u64)> =
        of_phase(&events, "M").filter(|event| event["name"] == "thread_name").map(track).collect();
    for event in of_phase(&events, "X") {
        assert!(named.contains(&track(event)), "{event}");
    }
    let groups: BTreeSet<u64> = named.iter().map(|(group, _)| *group).collect();
    assert!(named.iter().all(|(_, track)| *track > 0 && !groups.contains(track)));
}

#[test]
fn counters_and_slices_say_what_ran() {
    let events = events("sarathi");
    let sum = |name: &str, phase: &str, key: &str| -> u64 {
        let events = of_phase(&events, phase).filter(|event| {
            event["name"]
                .as_str()
                .is_some_and(|of| of == name || of.starts_with(&format!("{name} ")))
        });
        events.map(|event| event["args"][key].as_u64().expect("a count")).sum()
    };
    let prefill = sum("step", "X", "prefill_tokens");
    assert!(prefill > 0);
    assert_eq!(prefill, sum("tokens", "C", "prefill"));
    assert_eq!(prefill, sum("prefill", "b", "tokens"));
    assert_eq!(prefill, sum("request", "b", "prompt_tokens"));
}

#[test]
fn while_nothing_runs_the_batch_is_empty() {
    let events = events("sarathi");
    let batches: Vec<&Value> =
        of_phase(&events, "C").filter(|event| event["name"] == "batch").collect();
    let steps: Vec<&Value> =
        of_phase(&events, "X").filter(|event| event["args"]["sequences"].is_number()).collect();
    let end = |step: &Value| at(step) + step["dur"].as_f64().expect("a time");
    let pauses = steps.windows(2).filter(|pair| at(pair[1]) - end(pair[0]) > 1e3).count();
    let empty = batches.iter().filter(|batch| batch["args"]["sequences"] == 0).count();
    assert_eq!(empty, pauses + 1, "and at the end");
}
