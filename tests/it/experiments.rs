//! Experiments from the command line to the files.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::metron::{data, interrupted, metron, run, simulated, tiny_model};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("the file is there")).expect("it is JSON")
}

#[test]
fn a_simulated_comparison_is_the_same_every_time_and_scores_to_the_same_bytes() {
    let dir = temporary();
    let compare = |output: &str| {
        let mut command = simulated(dir.path(), "compare");
        command.args(["--replicates", "2", "--num-prompts", "100", "--output", output]);
        let (code, text, error) = run(&mut command);
        assert_eq!(code, 0, "{error}");
        text
    };
    let first = compare("first");
    assert!(first.contains("sarathi"), "{first}");
    assert_eq!(first, compare("second"));

    let (code, scored, error) = run(metron(dir.path()).args(["score", "first"]));
    assert_eq!((code, scored), (0, first.clone()), "{error}");

    let mut repeat = metron(dir.path());
    repeat.args(["run", "--experiment", "first/experiment.toml", "--quiet", "-o", "third"]);
    let (code, repeated, error) = run(&mut repeat);
    assert_eq!((code, repeated), (0, first), "{error}");
}

#[test]
fn replicates_are_added_until_the_verdicts_are_reached() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "compare");
    command.args(["--schedulers", "orca,static", "--num-prompts", "60", "--until", "decided"]);
    command.args(["--replicates", "16", "-o", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let metrics = json(&dir.path().join("out/metrics.json"));
    let judgement = &metrics["comparison"]["judgement"];
    assert_eq!((&judgement["baseline"], &judgement["level"]), (&"orca".into(), &0.0125.into()));
    let replicates = judgement["replicates"].as_u64().expect("a count");
    assert!([2, 4, 8].contains(&replicates), "it looks at fixed counts: {replicates}");
    assert!(!text.contains("UNDECIDED"), "{text}");

    let mut repeat = metron(dir.path());
    repeat.args(["compare", "--experiment", "out/experiment.toml", "--quiet", "-o", "again"]);
    let (code, repeated, error) = run(&mut repeat);
    assert_eq!((code, repeated), (0, text), "{error}");
}

#[test]
fn replicates_end_at_their_limit_and_it_is_said() {
    let dir = temporary();
    let mut command = metron(dir.path());
    command.args(["compare", "--simulate"]).arg(data("cost.toml"));
    command.args(["--schedulers", "sarathi:token_budget=64,sarathi:token_budget=65"]);
    command.args(["--num-prompts", "40", "--until", "decided", "--replicates", "2", "-o", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("UNDECIDED"), "{text}");
    let said = "--until decided ended at its limit of 2 replicates, with verdicts UNDECIDED";
    assert!(error.contains(said), "{error}");
    let html = fs::read_to_string(dir.path().join("out/report.html")).expect("it was written");
    assert!(html.contains("<dt>ended</dt>"), "the page says so too");
}

#[test]
fn replicates_count_from_one_wherever_they_are_seen() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "compare");
    command.args(["--schedulers", "orca,sarathi", "--num-prompts", "30", "--replicates", "2"]);
    let (code, _, error) = run(command.args(["--save-result", "-o", "out"]));
    assert_eq!(code, 0, "{error}");
    let metrics = json(&dir.path().join("out/metrics.json"));
    let runs = metrics["runs"].as_array().expect("a list");
    for run in runs {
        assert_eq!(run["replicate"], run["header"]["replicate"], "{run}");
        let name = format!("{}-r{}", run["policy"].as_str().expect("a text"), run["replicate"]);
        assert!(dir.path().join(format!("out/{name}.trace")).exists(), "{name}");
        assert!(dir.path().join(format!("out/vllm/{name}.json")).exists(), "{name}");
    }
    let replicates: Vec<&Value> = runs.iter().map(|run| &run["replicate"]).collect();
    assert!(replicates.iter().all(|own| **own == 1 || **own == 2), "{replicates:?}");
}

#[test]
fn two_replicates_are_too_few_and_the_baseline_can_be_chosen_later() {
    let dir = temporary();
    let compare = |replicates: &str, output: &str| {
        let mut command = simulated(dir.path(), "compare");
        command.args(["--schedulers", "sarathi:token_budget=64,sarathi:token_budget=65"]);
        command.args(["--num-prompts", "40", "--replicates", replicates, "-o", output]);
        let (code, text, error) = run(&mut command);
        assert_eq!(code, 0, "{error}");
        text
    };
    let two = compare("2", "two");
    assert!(two.contains("10 replicates recommended: 2 say little of what chance does."), "{two}");
    let (code, other, error) =
        run(metron(dir.path()).args(["score", "two", "--baseline", "sarathi:token_budget=65"]));
    assert_eq!(code, 0, "{error}");
    assert!(other.contains("Against sarathi:token_budget=65, 2 replicates"), "{other}");
    let (code, _, error) = run(metron(dir.path()).args(["score", "two", "--baseline", "orca"]));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("the baseline `orca` is not in the comparison"), "{error}");
}

#[test]
fn other_deadlines_score_otherwise() {
    let dir = temporary();
    run(simulated(dir.path(), "run").args(["--num-prompts", "60", "-o", "out"]));
    let score = |arguments: &[&str]| {
        let (code, text, error) =
            run(metron(dir.path()).args(["score", "out", "--json"]).args(arguments));
        assert_eq!(code, 0, "{error}");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        json["comparison"]["policies"][0]["pooled"]["fluidity"]["share_fluid"].clone()
    };
    assert_eq!(score(&["--ttft-deadline", "1h", "--tbt-deadline", "1h"]), 1.0);
    assert_eq!(score(&["--ttft-deadline", "1us", "--tbt-deadline", "1us"]), 0.0);
}

#[test]
fn a_real_model_runs_under_every_policy_and_accounts_for_every_request() {
    let dir = temporary();
    let mut command = metron(dir.path());
    command.arg("compare").arg("--model").arg(tiny_model());
    command.args(["--input-len", "20", "--output-len", "6", "--random-range-ratio", "0.5"]);
    command.args(["--request-rate", "200", "--num-prompts", "30", "--replicates", "2"]);
    command.args(["--json", "--output", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let printed: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(printed, json(&dir.path().join("out/metrics.json")));
    let policies = printed["comparison"]["policies"].as_array().expect("a list");
    let names: Vec<&Value> = policies.iter().map(|policy| &policy["policy"]).collect();
    assert_eq!(names, ["static", "orca", "vllm-v0", "sarathi"]);
    for policy in policies {
        let counts = &policy["pooled"]["requests"];
        assert_eq!((&counts["scheduled"], &counts["finished"]), (&60.into(), &60.into()));
    }
    let html = fs::read_to_string(dir.path().join("out/report.html")).expect("it was written");
    assert!(html.contains("<svg"), "it has figures");
}

#[test]
fn dummy_weights_need_no_download_and_say_so() {
    let dir = temporary();
    let mut command = metron(dir.path());
    command.args(["run", "--model", "smollm2-135m-instruct", "--load-format", "dummy"]);
    command.args(["--input-len", "8", "--output-len", "2", "--request-rate", "inf"]);
    command.args(["--num-prompts", "2", "--output", "out"]);
    let (code, _, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("(Random weights: timings are real, the text isn't)"), "{error}");
    let html = fs::read_to_string(dir.path().join("out/report.html")).expect("it was written");
    assert!(html.contains("Random weights"), "the page says so too");
}

#[test]
fn a_closed_loop_keeps_its_clients_busy_and_no_more() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "run");
    command.args(["--request-rate", "inf", "--num-prompts", "40", "--max-concurrency", "3"]);
    command.args(["--json", "-o", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let printed: Value = serde_json::from_str(&text).expect("it is JSON");
    let steps = &printed["comparison"]["policies"][0]["pooled"]["steps"];
    assert!(steps["mean_sequences"].as_f64().expect("a mean") <= 3.0, "{steps}");
}

#[test]
fn every_run_counts_the_requests_that_were_too_long_for_it() {
    let dir = temporary();
    let counted = |too_long: &str| {
        let mut command = simulated(dir.path(), "compare");
        command.args(["--schedulers", "orca,sarathi", "--replicates", "3", "--num-prompts", "40"]);
        command.args(["--max-model-len", "300", "--too-long", too_long, "-o", too_long]);
        let (code, text, error) = run(&mut command);
        assert_eq!(code, 0, "{error}");
        let count = |replicate: u32| {
            let counts = ["orca", "sarathi"].map(|policy| {
                let trace = format!("{too_long}/{policy}-r{replicate}.trace/header.json");
                let header = json(&dir.path().join(trace));
                ["dropped_requests", "truncated_requests"].map(|count| header[count].clone())
            });
            assert_eq!(counts[0], counts[1], "both policies have the same requests");
            counts[0].clone()
        };
        ([1, 2, 3].map(count), text)
    };
    let (dropped, text) = counted("drop");
    assert_eq!(dropped, [7, 5, 8].map(|count| [count.into(), Value::from(0)]));
    let note = "requests longer than the context or the cache: 5 to 8 a run dropped\n";
    assert!(text.contains(note), "{text}");
    let (cut, text) = counted("truncate");
    assert_eq!(cut, [7, 5, 8].map(|count| [Value::from(0), count.into()]));
    assert!(text.contains("5 to 8 a run cut\n"), "{text}");
}

#[test]
fn a_run_that_fails_leaves_the_runs_before_it_reported_as_partial() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "compare");
    command.args(["--schedulers", "orca,sarathi", "--replicates", "3", "--num-prompts", "12"]);
    command.args(["--input-len", "200", "--output-len", "20", "--random-range-ratio", "0.5"]);
    // One of the third replicate's requests is longer.
    command.args(["--max-model-len", "312", "--seed", "4", "-o", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("replicate 3: the requests of replicate 3 can't be made"), "{error}");
    let kept = "the 4 runs before the failure stay in out: metron score out reads them";
    assert!(error.contains(kept), "{error}");
    assert!(text.contains("PARTIAL: the experiment was cut short."), "{text}");
    assert!(text.contains("Against orca, 2 replicates"), "{text}");
    let metrics = json(&dir.path().join("out/metrics.json"));
    assert_eq!(
        (&metrics["is_partial"], metrics["runs"].as_array().map(Vec::len)),
        (&true.into(), Some(4))
    );
    let experiment =
        fs::read_to_string(dir.path().join("out/experiment.toml")).expect("it is there");
    assert!(experiment.contains("replicates = 3\n"), "as asked: {experiment}");
    let (code, _, error) = run(metron(dir.path()).args(["score", "out"]));
    assert_eq!(code, 0, "{error}");
}

/// An hour of traffic takes seconds.
#[test]
fn an_hour_of_traffic_is_simulated() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "run");
    command.args(["--request-rate", "2", "--num-prompts", "7200", "--json", "-o", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let printed: Value = serde_json::from_str(&text).expect("it is JSON");
    let window = printed["comparison"]["policies"][0]["pooled"]["window_s"].as_f64();
    assert!(window.expect("a window") > 3000.0, "{window:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_run_and_reports_what_was_measured_as_partial() {
    let dir = temporary();
    let mut command = metron(dir.path());
    command.arg("run").arg("--model").arg(tiny_model());
    command.args(["--input-len", "20", "--output-len", "6", "--request-rate", "5"]);
    command.args(["--num-prompts", "500", "--output", "out"]);
    // Once tokens are on disk the run is under way.
    let tokens = dir.path().join("out/sarathi-r1.trace/tokens.arrows");
    let is_under_way = || fs::metadata(&tokens).is_ok_and(|file| file.len() > 2000);
    let (code, text, error) = interrupted(&mut command, is_under_way);
    assert_eq!(code, 130, "{error}");
    assert!(error.contains("interrupted; what was measured is reported and saved"), "{error}");
    assert!(text.contains("PARTIAL"), "{text}");
    let metrics = json(&dir.path().join("out/metrics.json"));
    assert_eq!(metrics["is_partial"], true);
    let counts = &metrics["comparison"]["policies"][0]["pooled"]["requests"];
    let count = |name: &str| counts[name].as_u64().expect("a count");
    assert!(count("finished") > 0 && count("unsent") > 0, "{counts}");
    assert_eq!(count("scheduled"), count("finished") + count("cancelled") + count("unsent"));
}

#[test]
fn a_saved_trace_is_scored_below_the_header_of_its_run() {
    let dir = temporary();
    let run_at = |rate: &str, seed: &str, output: &str| {
        let mut command = simulated(dir.path(), "run");
        command.args(["--num-prompts", "20", "--request-rate", rate, "--seed", seed, "-o", output]);
        let (code, _, error) = run(&mut command);
        assert_eq!(code, 0, "{error}");
    };
    run_at("2", "7", "out");
    run_at("3", "8", "faster");
    let (code, _, header) = run(metron(dir.path()).args(["score", "out"]));
    assert_eq!(code, 0, "{header}");
    for line in [
        "model        SIMULATED: SmolLM2-135M in f32 on two cores with AVX-512, by metron",
        "computed on  virtual time",
        "workload     20 requests a run, Poisson arrivals at 2.000 requests/s; seed 7",
        "schedulers   sarathi (token_budget = ",
        "version      Metron ",
        "times        simulated, by a cost model",
    ] {
        assert!(header.lines().any(|own| own.starts_with(line)), "{line} in {header}");
    }
    assert!(header.contains(" run --simulate "), "the command of the run, not of the scoring");
    let (_, _, header) = run(metron(dir.path()).args(["score", "out", "faster"]));
    let differ = header.lines().find(|line| line.starts_with("not alike")).unwrap_or_default();
    assert!(differ.contains("experiment.workload.arrivals.request_rate"), "{header}");
    let (_, _, header) = run(metron(dir.path()).args(["score", "out", "--quiet"]));
    assert_eq!(header, "");
}
