//! Runs as trace events: what a viewer relies on.

mod served;

use std::collections::{BTreeMap, BTreeSet};

use metron_report::write_perfetto;
use serde_json::Value;
use served::Experiment;

fn events(policy: &'static str) -> Vec<Value> {
    let bytes = Experiment::of(&[policy], 40).report(|report| {
        let mut bytes = Vec::new();
        write_perfetto(report.runs[0].trace, &mut bytes).expect("memory takes everything");
        bytes
    });
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

/// What begins in a track begins when what was before it has ended, or both mean the same: viewers
/// drop slices that overlap in part.
#[test]
fn slices_of_a_track_follow_one_another() {
    for policy in ["vllm-v0", "sarathi"] {
        let events = events(policy);
        let mut tracks: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
        for event in of_phase(&events, "X") {
            let time = |key: &str| event[key].as_f64().expect("a time");
            tracks.entry(track(event)).or_default().push((time("ts"), time("ts") + time("dur")));
        }
        assert!(tracks.len() > 40, "a track a request, and the engine's");
        for (track, mut slices) in tracks {
            slices.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in slices.windows(2) {
                assert!(pair[1].0 >= pair[0].1 - 1e-6, "{track:?}: {pair:?}");
            }
        }
    }
}

#[test]
fn every_track_has_a_name() {
    let events = events("sarathi");
    let named: BTreeSet<(u64, u64)> =
        of_phase(&events, "M").filter(|event| event["name"] == "thread_name").map(track).collect();
    for event in of_phase(&events, "X").chain(of_phase(&events, "i")) {
        assert!(named.contains(&track(event)), "{event}");
    }
}

#[test]
fn counters_and_slices_say_what_ran() {
    let events = events("sarathi");
    let steps = of_phase(&events, "X").filter(|event| track(event) == (1, 1));
    let sum = |events: Vec<&Value>, key: &str| -> u64 {
        events.iter().map(|event| event["args"][key].as_u64().expect("a count")).sum()
    };
    let prefill = sum(steps.collect(), "prefill_tokens");
    let counted = of_phase(&events, "C").filter(|event| event["name"] == "tokens");
    assert_eq!(prefill, sum(counted.collect(), "prefill"));
    let chunks = of_phase(&events, "X").filter(|event| event["name"] == "prefill");
    assert_eq!(prefill, sum(chunks.collect(), "tokens"));
    let waits = of_phase(&events, "X").filter(|event| event["name"] == "waiting");
    assert_eq!(prefill, sum(waits.collect(), "prompt_tokens"));
}
