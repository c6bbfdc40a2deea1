//! A run in the form of another tool, and two results side by side.

mod support;

use metron_metrics::{Objectives, Scoring, summarise};
use metron_report::{Diff, Pair, Side, vllm_result};
use metron_trace::{EndStatus, Origin, Trace};
use serde_json::{Map, Value};
use support::with_report;

/// Four requests of ten tokens 40 ms apart, one after the other; one gap is 700 ms.
fn stalled() -> Trace {
    with_report(|report| report.runs[0].trace.clone())
}

fn in_vllms_form(trace: &Trace, with_requests: bool) -> Map<String, Value> {
    with_report(|report| vllm_result(trace, report.scoring, with_requests))
}

fn check(result: &Map<String, Value>, name: &str, expected: f64) {
    let got = result[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", result[name]));
    assert!((got - expected).abs() < 1e-6, "{name} is {got}, not {expected}");
}

#[test]
fn statistics_have_vllms_names_and_numpys_percentiles_in_milliseconds() {
    let result = in_vllms_form(&stalled(), false);
    check(&result, "mean_ttft_ms", 40.0);
    check(&result, "std_ttft_ms", 0.0);
    check(&result, "mean_itl_ms", (35.0 * 40.0 + 700.0) / 36.0);
    check(&result, "p95_itl_ms", 40.0);
    // Between the 35th and the 36th of 36: 0.99 * 35 is 34.65.
    check(&result, "p99_itl_ms", 40.0 + 0.65 * 660.0);
    let stalled_tpot = (8.0 * 40.0 + 700.0) / 9.0;
    check(&result, "median_tpot_ms", 40.0);
    check(&result, "p99_tpot_ms", 40.0 + 0.97 * (stalled_tpot - 40.0));
    // Of the population: three at 400 and one at 1060.
    check(&result, "std_e2el_ms", 660.0 * 3.0_f64.sqrt() / 4.0);
}

#[test]
fn totals_count_finished_requests() {
    let mut trace = stalled();
    let whole = in_vllms_form(&trace, false);
    check(&whole, "duration", 2.26);
    check(&whole, "output_throughput", 40.0 / 2.26);
    check(&whole, "total_token_throughput", (40.0 + 4.0 * 30.0) / 2.26);
    check(&whole, "max_output_tokens_per_s", 18.0);
    check(&whole, "max_concurrent_requests", 1.0);
    trace.ends[0].status = EndStatus::Failed;
    let one_failed = in_vllms_form(&trace, false);
    assert_eq!((&one_failed["completed"], &one_failed["failed"]), (&3.into(), &1.into()));
    check(&one_failed, "total_output_tokens", 30.0);
}

#[test]
fn a_statistic_without_a_sample_is_null_and_not_zero() {
    let mut trace = stalled();
    trace.ends.clear();
    let result = in_vllms_form(&trace, false);
    assert_eq!((&result["mean_ttft_ms"], &result["p99_itl_ms"]), (&Value::Null, &Value::Null));
    let mut trace = stalled();
    trace.header.origin = Origin::ImportedWithoutArrivals;
    let result = in_vllms_form(&trace, true);
    for name in ["duration", "output_throughput", "max_concurrent_requests"] {
        assert_eq!(result[name], Value::Null, "{name}");
    }
    assert!(!result.contains_key("start_times"));
}

#[test]
fn a_simulated_run_says_so() {
    let mut trace = stalled();
    assert_eq!(in_vllms_form(&trace, false)["origin"], "measured");
    trace.header.origin = Origin::Simulated;
    assert_eq!(in_vllms_form(&trace, false)["origin"], "simulated");
}

#[test]
fn lists_have_an_entry_for_each_request_also_for_those_without_a_token() {
    let mut trace = stalled();
    trace.tokens.retain(|token| token.request.index() != 3);
    trace.ends[3].status = EndStatus::Failed;
    let result = in_vllms_form(&trace, true);
    let list = |name: &str| result[name].as_array().expect("a list").clone();
    for name in ["input_lens", "output_lens", "ttfts", "itls", "start_times", "errors"] {
        assert_eq!(list(name).len(), 4, "{name}");
    }
    assert_eq!(list("errors"), ["", "", "", "failed"].map(Value::from));
    assert_eq!((list("ttfts")[3].as_f64(), &list("itls")[3]), (Some(0.0), &Value::Array(vec![])));
    assert!(!in_vllms_form(&trace, false).contains_key("ttfts"));
}

fn side<'a>(trace: &'a Trace, scoring: &Scoring) -> Side<'a> {
    Side {
        policy: "sarathi",
        replicates: 1,
        header: &trace.header,
        summary: summarise(&[trace], scoring),
        scoring: scoring.clone(),
    }
}

fn diff_of(change: impl FnOnce(&mut Trace)) -> String {
    let trace = stalled();
    let mut changed = trace.clone();
    change(&mut changed);
    with_report(|report| {
        let [a, b] = [&trace, &changed].map(|trace| side(trace, report.scoring));
        let (names, alone) = (["old", "new"], [vec!["orca"], vec![]]);
        Diff { names, pairs: vec![Pair { a, b }], alone }.to_text()
    })
}

#[test]
fn a_diff_reads_as_two_tables() {
    let text = diff_of(|trace| {
        trace.header.seed = 7;
        trace.header.machine.cpu = Some("AMD EPYC".to_owned());
        trace.header.created_at = Some("2026-11-24T15:18:44+00:00".to_owned());
        trace.header.policy.options = serde_json::json!({ "token_budget": 64, "chunk": 8 });
        for token in trace.tokens.iter_mut().filter(|token| token.request.0 == 3) {
            token.at = token.at + std::time::Duration::from_millis(20);
        }
    });
    insta::assert_snapshot!(text);
}

/// The same run by two scorings, which `change` makes differ.
fn diff_of_scorings(change: impl FnOnce(&mut Scoring)) -> String {
    let trace = stalled();
    with_report(|report| {
        let (scoring, mut changed) = (report.scoring.clone(), report.scoring.clone());
        change(&mut changed);
        let pair = Pair { a: side(&trace, &scoring), b: side(&trace, &changed) };
        Diff { names: ["old", "new"], pairs: vec![pair], alone: [vec![], vec![]] }.to_text()
    })
}

fn row<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().collect())
}

#[test]
fn what_was_counted_by_different_definitions_does_not_stand_in_one_row() {
    let alike = diff_of_scorings(|_| ());
    for name in ["stalls (> ", "fluid requests (>= ", "fluid token rate"] {
        assert!(row(&alike, name).is_some(), "{alike}");
    }
    let text = diff_of_scorings(|scoring| scoring.rate_target.share = 0.5);
    assert_eq!(row(&text, "fluid requests"), None, "{text}");
    assert_eq!(row(&text, "fluid token rate"), None, "{text}");
    let text = diff_of_scorings(|scoring| scoring.rate_target.index = 0.5);
    assert_eq!(row(&text, "fluid requests"), None, "{text}");
    let text = diff_of_scorings(|scoring| scoring.stall_limit *= 2);
    assert_eq!(row(&text, "stalls"), None, "{text}");
}

#[test]
fn objectives_are_joined_by_what_they_ask_and_not_by_their_place() {
    let objectives = |texts: &[&str]| {
        let parsed = texts.iter().map(|text| text.parse().expect("an objective")).collect();
        Objectives::new(parsed).expect("none follows from another")
    };
    let trace = stalled();
    let text = with_report(|report| {
        let by =
            |texts: &[&str]| Scoring { objectives: objectives(texts), ..report.scoring.clone() };
        let shared = "ttft <= 1us for 95%";
        let (a, b) = (by(&["tbt <= 1s for 50%", shared]), by(&[shared]));
        let pair = Pair { a: side(&trace, &a), b: side(&trace, &b) };
        Diff { names: ["old", "new"], pairs: vec![pair], alone: [vec![], vec![]] }.to_text()
    });
    let shared = row(&text, "ttft <= 1us for 95%").expect("both are judged by it");
    assert_eq!(shared[..6], ["UNDECIDED", "0", "%", "UNDECIDED", "0", "%"], "{text}");
    let alone = row(&text, "tbt <= 1s for 50%").expect("one is judged by it");
    assert_eq!(alone[alone.len() - 3..], ["-", "-", "-"], "{text}");
    assert_eq!(row(&text, "all objectives"), None, "of different ones: {text}");
}

#[test]
fn a_result_does_not_differ_from_itself() {
    let text = diff_of(|_| ());
    assert!(text.contains("Nothing differs in their inputs."), "{text}");
    assert!(!text.contains(" %") || !text.contains('+'), "{text}");
}
