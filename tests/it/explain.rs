//! `metron explain`, from a comparison on disk.

use std::path::Path;

use serde_json::Value;

use crate::metron::{metron, run, simulated};

/// An overloaded comparison of two policies, and what `explain` says of it.
fn explained(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut compare = simulated(dir, "compare");
    compare.args(["--schedulers", "orca,sarathi", "--num-prompts", "60", "--replicates", "2"]);
    let (code, _, error) = run(compare.args(["-o", "out"]));
    assert_eq!(code, 0, "{error}");
    run(metron(dir).args(["explain", "out"]).args(arguments))
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

#[test]
fn without_a_request_it_says_why_each_policy_missed_deadlines_and_names_the_worst_request() {
    let dir = temporary();
    let (code, text, error) = explained(dir.path(), &[]);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("deadlines missed, for"), "{text}");
    assert!(text.contains("  waiting in the queue"), "{text}");
    assert!(text.contains("estimated"), "{text}");
    assert!(text.contains("orca: request "), "{text}");
}

#[test]
fn the_causes_are_the_same_in_the_reports_json_and_add_up() {
    let dir = temporary();
    let (code, text, error) = explained(dir.path(), &["--json"]);
    assert_eq!(code, 0, "{error}");
    let explained: Value = serde_json::from_str(&text).expect("it is JSON");
    let text = std::fs::read_to_string(dir.path().join("out/metrics.json")).expect("it is there");
    let report: Value = serde_json::from_str(&text).expect("it is JSON");
    for (at, policy) in ["orca", "sarathi"].iter().enumerate() {
        let row = &report["comparison"]["policies"][at];
        let blame = &row["estimated_blame"];
        assert_eq!(
            (&explained[at]["policy"], &explained[at]["estimated_blame"]),
            (&(*policy).into(), blame)
        );
        let causes = blame["causes"].as_array().expect("a list");
        let sum: u64 = causes.iter().filter_map(|cause| cause["missed"].as_u64()).sum();
        assert!(sum > 0, "the run is overloaded");
        assert_eq!(row["pooled"]["fluidity"]["missed"], sum);
    }
}

#[test]
fn a_request_is_explained_under_each_policy() {
    let dir = temporary();
    let (code, text, error) = explained(dir.path(), &["--request", "7"]);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("Request 7 under orca (replicate 1) arrived at"), "{text}");
    assert!(text.contains("Request 7 under sarathi (replicate 1) arrived at"), "{text}");
}

#[test]
fn a_request_is_explained_in_the_replicate_that_is_asked_for() {
    let dir = temporary();
    let (code, text, error) = explained(dir.path(), &["--request", "7", "--replicate", "2"]);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("Request 7 under orca (replicate 2) arrived at"), "{text}");
    let mut json = metron(dir.path());
    json.args(["explain", "out", "--request", "7", "--replicate", "2", "--json"]);
    let (code, told, error) = run(&mut json);
    assert_eq!(code, 0, "{error}");
    let told: Value = serde_json::from_str(&told).expect("it is JSON");
    assert_eq!(told[0]["replicate"], 2, "as it was asked for");
    assert!(told[0]["story"]["arrived_at_ns"].is_u64(), "names say the unit: {told}");
    let mut again = metron(dir.path());
    again.args(["explain", "out", "--request", "7", "--replicate", "9"]);
    let (code, _, error) = run(&mut again);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("--replicate: orca has no such run; there are 1, 2"), "{error}");
}

#[test]
fn other_deadlines_are_missed_for_other_causes() {
    let dir = temporary();
    let lenient = ["--request", "7", "--ttft-deadline", "1h", "--tbt-deadline", "1us"];
    let (code, text, error) = explained(dir.path(), &lenient);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("No token was late."), "an hour of slack: {text}");
}

#[test]
fn a_request_that_is_not_there_is_refused_with_those_that_are() {
    let dir = temporary();
    let (code, output, error) = explained(dir.path(), &["--request", "60"]);
    assert_eq!((code, output.as_str()), (2, ""), "{error}");
    let message = "there is no request 60 in the trace of orca: it has requests 0 to 59";
    assert!(error.contains(message), "{error}");
}
