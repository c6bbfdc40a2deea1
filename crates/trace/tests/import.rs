//! Results of other tools: what they know becomes a trace, what they do not is absent, and what is
//! wrong in them is named.

use metron_trace::{EndStatus, ImportNote, Imported, Origin, RequestId, Timestamp, Tool, Trace};
use proptest::prelude::*;

const ETALON: &str = r#"{"num_prompt_tokens": [100, 7, 9], "num_output_tokens": [3, 1, 0],
    "tpot": [0.02, 0, 0], "ttft": [0.1000000004, 0.25, 0], "tbt": [[0.0300000004, 0.01], [], []]}"#;
const VLLM: &str = include_str!("data/vllm.json");
const AIPERF: &str = include_str!("data/aiperf.jsonl");

fn import(tool: Tool, text: &str) -> Imported {
    tool.import(text).expect("it is a result")
}

/// When each token of a request came, in nanoseconds since its arrival.
fn tokens(trace: &Trace, request: u32) -> Vec<u64> {
    let arrived_at = trace.requests[request as usize].arrived_at;
    let own = trace.tokens.iter().filter(|token| token.request == RequestId(request));
    own.map(|token| token.at.as_nanos() - arrived_at.as_nanos()).collect()
}

fn statuses(trace: &Trace) -> Vec<EndStatus> {
    let mut ends = trace.ends.clone();
    ends.sort_by_key(|end| end.request);
    ends.iter().map(|end| end.status).collect()
}

fn prompts(trace: &Trace) -> Vec<u32> {
    trace.requests.iter().map(|request| request.prompt_tokens).collect()
}

#[test]
fn etalon_knows_tokens_but_neither_steps_nor_arrivals() {
    let Imported { trace, notes } = import(Tool::Etalon, ETALON);
    assert_eq!(trace.header.origin, Origin::ImportedWithoutArrivals);
    assert!(trace.steps.is_empty() && trace.tokens.iter().all(|token| token.step.is_none()));
    assert_eq!(tokens(&trace, 0), [100_000_000, 130_000_001, 140_000_001]);
    assert_eq!(tokens(&trace, 1), [250_000_000]);
    assert_eq!(prompts(&trace), [100, 7, 9]);
    assert_eq!((trace.header.policy.label.as_str(), notes.len()), ("etalon", 0));
}

#[test]
fn a_request_without_a_token_has_failed_and_has_no_first_token_at_zero() {
    let trace = import(Tool::Etalon, ETALON).trace;
    assert!(tokens(&trace, 2).is_empty());
    assert_eq!(statuses(&trace), [EndStatus::Finished, EndStatus::Finished, EndStatus::Failed]);
}

#[test]
fn vllm_requests_stand_in_order_of_their_start() {
    let Imported { trace, notes } = import(Tool::Vllm, VLLM);
    assert_eq!(trace.header.origin, Origin::Imported);
    let arrivals: Vec<u64> = trace.requests.iter().map(|r| r.arrived_at.as_nanos()).collect();
    assert_eq!(arrivals, [0, 500_000_000, 1_250_000_000, 1_500_000_000]);
    assert_eq!(prompts(&trace), [20, 10, 30, 40]);
    assert_eq!(tokens(&trace, 0), [62_500_000, 562_500_000]);
    assert_eq!(tokens(&trace, 1), [125_000_000, 156_250_000, 171_875_000]);
    assert_eq!(trace.header.policy.label, "baseline");
    assert_eq!(trace.header.model.id, "meta-llama/Llama-3.1-8B-Instruct");
    // The third got four tokens in two chunks.
    assert_eq!(notes, [ImportNote::OtherTimes { requests: 1, all: 4 }]);
}

#[test]
fn a_vllm_request_with_an_error_has_failed() {
    let trace = import(Tool::Vllm, VLLM).trace;
    assert_eq!(statuses(&trace)[3], EndStatus::Failed);
    assert!(tokens(&trace, 3).is_empty());
}

#[test]
fn an_old_vllm_result_has_no_arrivals() {
    let old = VLLM.replace("start_times", "other");
    assert_eq!(import(Tool::Vllm, &old).trace.header.origin, Origin::ImportedWithoutArrivals);
}

#[test]
fn aiperf_records_keep_their_nanoseconds_and_the_warm_up_is_left_out() {
    let Imported { trace, notes } = import(Tool::Aiperf, AIPERF);
    let arrivals: Vec<Timestamp> = trace.requests.iter().map(|r| r.arrived_at).collect();
    assert_eq!(arrivals, [0, 100, 200].map(Timestamp::from_nanos));
    assert_eq!(tokens(&trace, 0), [255_886_568, 260_785_005, 266_101_010]);
    assert_eq!(statuses(&trace), [EndStatus::Finished, EndStatus::Cancelled, EndStatus::Failed]);
    assert_eq!(prompts(&trace), [550, 551, 0]);
    assert_eq!(notes, [ImportNote::WarmUp { records: 1 }]);
}

/// An import that must fail, and how it says why.
fn check(tool: Tool, text: &str, message: &str) {
    let error = tool.import(text).expect_err(message).to_string();
    assert!(error.contains(message), "{error}\ndoes not say\n{message}");
}

#[test]
fn files_that_are_no_results_are_refused() {
    for tool in [Tool::Etalon, Tool::Vllm, Tool::Aiperf] {
        check(tool, "", "it is empty");
        check(tool, " \n", "it is empty");
        check(tool, "[1, 2]", "not a JSON object: it is a list of 2");
        check(tool, "{\"ttft\": [", "not a JSON object: EOF while parsing");
        check(tool, &"[".repeat(100_000), "not a JSON object: recursion limit exceeded");
    }
    check(Tool::Etalon, "{}", "ttft is not there; Etalon writes it to request_level_metrics.json");
    check(Tool::Vllm, "{}", "ttfts is not there; vLLM writes the lists of a request each with");
    check(Tool::Aiperf, "{}", "line 1: metadata is not there; each line is a record of AIPerf's");
    check(
        Tool::Etalon,
        r#"{"num_prompt_tokens": [], "num_output_tokens": [], "tbt": [], "ttft": []}"#,
        "it has no requests",
    );
}

fn check_change(tool: Tool, text: &str, from: &str, to: &str, message: &str) {
    assert!(text.contains(from), "{from}");
    check(tool, &text.replace(from, to), message);
}

#[test]
fn wrong_values_of_etalon_are_named() {
    let check = |from, to, message| check_change(Tool::Etalon, ETALON, from, to, message);
    check("0.25", "-0.25", "ttft[1] is -0.25; it must be a time of 0 or more");
    check("0.25", "1e300", "ttft[1] is 1e+300; it must be a time of 0 or more");
    check("0.25", "null", "ttft[1] is null; it must be a time of 0 or more");
    check("0.25", "NaN", "expected value at line 2 column 50 (NaN and Infinity are");
    check("[0.0300000004, 0.01]", "3", "tbt[0] is 3; it must be a list");
    check("[0.0300000004, 0.01]", "[0.1, \"x\"]", "tbt[0][1] is `x`; it must be a time");
    check("[0.0300000004, 0.01], ", "", "tbt has 2 entries and ttft has 3; both must have one a");
    check("[100, 7, 9]", "[100, 7.5, 9]", "num_prompt_tokens[1] is 7.5; it must be a whole number");
    check(
        "[3, 1, 0]",
        "[3, -1, 0]",
        "num_output_tokens[1] is -1; it must be a whole number from 0",
    );
    check("\"tbt\"", "\"itl\"", "tbt is not there");
}

#[test]
fn wrong_values_of_vllm_are_named() {
    let check = |from, to, message| check_change(Tool::Vllm, VLLM, from, to, message);
    check("[3, 2, 4, 0]", "[3, 2, 4]", "output_lens has 3 entries and ttfts has 4");
    check("[1001.5, 1001.0,", "[1001.5,", "start_times has 3 entries and ttfts has 4");
    check("1001.5", "-1001.5", "start_times[0] is -1001.5; it must be a time of 0 or more");
    check("[0.5]", "[[0.5]]", "itls[1][0] is a list of 1; it must be a time of 0 or more");
    check("\"Connection refused\"", "7", "errors[3] is 7; it must be a text");
    check("\"baseline\"", "[]", "label is a list of 0; it must be a text");
    // A benchmark without streaming.
    let whole = VLLM.replace("0.0625000000004", "0.0").replace("[0.5]", "[]");
    self::check(Tool::Vllm, &whole, "request 1 got 2 output tokens, and none has a time");
}

#[test]
fn wrong_values_of_aiperf_are_named_with_their_line() {
    let check = |from, to, message| check_change(Tool::Aiperf, AIPERF, from, to, message);
    check("1759813207532900363", "-1", "line 2: metadata.request_start_ns is -1; it must be whole");
    check("[4.898437,", "[-4.898437,", "line 2: metrics.inter_chunk_latency.value[0] is -4.898437");
    check(
        "255.88656799999998, \"unit\": \"ms\"",
        "1, \"unit\": \"days\"",
        "unit is `days`; it must be",
    );
    check(
        "\"input_sequence_length\": {\"value\": 550",
        "\"x\": {\"value\": 550",
        "line 2: metrics.input_sequence_length is not there",
    );
    check(
        "inter_chunk_latency",
        "x",
        "metrics.inter_chunk_latency is not there; AIPerf writes it with --streaming",
    );
    check("\"time_to_first_token\": {\"value\": 255", "\"x\": {\"value\": 255", "none has a time");
    let cut = &AIPERF[..AIPERF.len() - 20];
    self::check(Tool::Aiperf, cut, "line 5: not a JSON object: EOF while parsing");
}

proptest! {
    /// A result whose every value may be anything is refused or read, and never a panic.
    #[test]
    fn no_change_of_a_value_makes_an_import_panic(
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            "null", "-1", "1e308", "1e-320", "18446744073709551616", "[]", "{}", "\"\"", "true", "0.5",
        ]),
    ) {
        for (tool, text) in [(Tool::Etalon, ETALON), (Tool::Vllm, VLLM), (Tool::Aiperf, AIPERF)] {
            let starts: Vec<usize> =
                text.match_indices([':', ',', '[']).map(|(at, _)| at + 1).collect();
            let start = starts[at.index(starts.len())];
            let rest = &text[start..];
            let end = start + rest.find([',', ']', '}']).unwrap_or(rest.len());
            let changed = format!("{} {value} {}", &text[..start], &text[end..]);
            if let Ok(imported) = tool.import(&changed) {
                prop_assert!(imported.trace.steps.is_empty());
            }
        }
    }
}
