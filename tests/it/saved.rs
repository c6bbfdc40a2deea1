//! Saved runs, scored again: which belong together, and which don't.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::metron::{metron, run, simulated};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

/// A run or comparison in virtual time, saved under `output`.
fn save(dir: &Path, command: &str, output: &str, arguments: &[&str]) {
    let (code, _, error) = run(simulated(dir, command).args(["-o", output]).args(arguments));
    assert_eq!(code, 0, "{error}");
}

/// What `score` says: exit code, result, notes.
fn score(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    run(metron(dir).arg("score").args(arguments))
}

const FIXED: [&str; 6] = ["--input-len", "200", "--output-len", "30", "--num-prompts", "60"];

/// The pairs behind the verdict on a measure.
fn pairs(dir: &Path, runs: &str) -> Value {
    let (code, text, error) = score(dir, &[runs, "--json"]);
    assert_eq!(code, 0, "{error}");
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    let measures = &json["comparison"]["judgement"]["measures"];
    let measures = measures.as_array().expect("a list").iter();
    let ttft = measures.clone().find(|measure| measure["measure"] == "ttft_p50_s");
    ttft.expect("it is judged")["policies"][1]["difference"].clone()
}

#[test]
fn a_run_that_is_gone_leaves_the_others_paired_as_they_ran() {
    let dir = temporary();
    let policies = ["--schedulers", "orca,sarathi", "--replicates", "4"];
    save(dir.path(), "compare", "out", &[&FIXED[..], &policies].concat());
    let before = pairs(dir.path(), "out");
    fs::remove_dir_all(dir.path().join("out/orca-r2.trace")).expect("it was written");
    let after = pairs(dir.path(), "out");
    assert_eq!((&before["pairs"], &after["pairs"]), (&4.into(), &3.into()));
    let estimate = |difference: &Value| difference["estimate"].as_f64().expect("a number");
    let moved = estimate(&after) / estimate(&before) - 1.0;
    assert!(moved.abs() < 0.2, "mispaired replicates differ by chance: {before} {after}");
}

#[test]
fn one_run_named_twice_is_no_replicate_of_itself() {
    let dir = temporary();
    save(dir.path(), "run", "ra", &FIXED);
    let (code, text, error) = score(dir.path(), &["ra", "ra"]);
    assert_eq!((code, text.as_str()), (3, ""), "{error}");
    let expected = "ra/sarathi-r1.trace and ra/sarathi-r1.trace: both are replicate 1 of sarathi \
                    with seed 0";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn runs_of_one_seed_at_other_rates_are_no_replicates_and_those_of_other_seeds_are() {
    let dir = temporary();
    save(dir.path(), "run", "slow", &[&FIXED[..], &["--request-rate", "1"]].concat());
    save(dir.path(), "run", "fast", &[&FIXED[..], &["--request-rate", "2"]].concat());
    save(
        dir.path(),
        "run",
        "other",
        &[&FIXED[..], &["--request-rate", "1", "--seed", "1"]].concat(),
    );
    let (code, _, error) = score(dir.path(), &["slow", "fast"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("slow/sarathi-r1.trace and fast/sarathi-r1.trace: both"), "{error}");
    let (code, text, error) = score(dir.path(), &["slow", "other"]);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("2 replicates"), "{text}");
}

#[test]
fn runs_that_were_scored_differently_are_scored_alike_and_said_to_be() {
    let dir = temporary();
    save(dir.path(), "run", "strict", &["--num-prompts", "40", "--tbt-deadline", "20ms"]);
    save(
        dir.path(),
        "run",
        "mild",
        &["--num-prompts", "40", "--tbt-deadline", "1s", "--seed", "1"],
    );
    let (code, _, error) = score(dir.path(), &["strict", "mild"]);
    assert_eq!(code, 0, "{error}");
    let expected = "mild/sarathi-r1.trace had another scoring (deadlines, prefill, stall_limit) than \
                    strict/sarathi-r1.trace, by which all are scored here";
    assert!(error.contains(expected), "{error}");
    let all = ["--ttft-deadline", "1s", "--tbt-deadline", "50ms", "--stall-limit", "1s"];
    let (code, _, error) = score(dir.path(), &[&["strict", "mild"][..], &all].concat());
    assert_eq!((code, error.contains("another scoring")), (0, false), "{error}");
}

#[test]
fn a_runs_own_scoring_can_be_taken_back() {
    let dir = temporary();
    let strict = ["--num-prompts", "40", "--without-first-token", "--max-slack", "0s"];
    save(dir.path(), "run", "strict", &strict);
    save(dir.path(), "run", "plain", &strict[..2]);
    let fluidity = |arguments: &[&str]| {
        let (code, text, error) = score(dir.path(), &[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{error}");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        json["comparison"]["policies"][0]["pooled"]["fluidity"].clone()
    };
    let plain = fluidity(&["plain"]);
    assert_ne!(fluidity(&["strict"]), plain);
    assert_eq!(fluidity(&["strict", "--without-first-token=false", "--max-slack", "none"]), plain);
}

#[test]
fn limits_of_goodput_end_where_the_trace_begins() {
    let dir = temporary();
    save(dir.path(), "run", "out", &FIXED);
    let goodput = |arguments: &[&str]| {
        let (code, text, error) = score(dir.path(), arguments);
        assert_eq!(code, 0, "{error}");
        text.lines().find(|line| line.starts_with("goodput")).map(ToOwned::to_owned)
    };
    let before = goodput(&["--goodput", "ttft:200", "tpot:50", "out"]);
    assert!(before.is_some(), "it is reported");
    assert_eq!(before, goodput(&["out", "--goodput", "ttft:200 tpot:50"]));
}

#[test]
fn the_help_for_saved_runs_says_that_they_are_scored_as_recorded() {
    let dir = temporary();
    for command in ["score", "diff", "explain"] {
        let (code, text, error) = run(metron(dir.path()).args([command, "--help"]));
        assert_eq!(code, 0, "{error}");
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words.join(" ").matches("of saved runs as recorded]").count(), 7, "{text}");
    }
}

#[test]
fn what_is_printed_says_whose_times_they_are() {
    let dir = temporary();
    let label = "Simulated: SmolLM2-135M in f32 on two cores with AVX-512 (cost model) in virtual time; \
                 seed 3; Metron ";
    let mut command = simulated(dir.path(), "run");
    let (code, text, error) =
        run(command.args(["--num-prompts", "30", "--seed", "3", "-o", "out"]));
    assert_eq!(code, 0, "{error}");
    assert!(text.starts_with(label), "{text}");
    let (code, text, error) = score(dir.path(), &["out"]);
    assert_eq!(code, 0, "{error}");
    assert!(text.starts_with(label), "{text}");
    assert!(error.contains("times") && error.contains("simulated, by a cost model"), "{error}");
    save(dir.path(), "run", "other", &["--num-prompts", "30"]);
    let (code, text, error) = score(dir.path(), &["out", "other", "-q"]);
    assert_eq!(code, 0, "{error}");
    assert!(text.lines().next().expect("a line").contains("; seeds 0, 3; "), "{text}");
}

#[test]
fn each_deadline_says_where_it_came_from() {
    let dir = temporary();
    fs::write(
        dir.path().join("classes.toml"),
        "[scoring.classes.chat]\nfirst_token = \"200ms\"\nnext_token = \"30ms\"\n",
    )
    .expect("room for a file");
    let deadlines = |arguments: &[&str], output: &str| {
        let mut command = metron(dir.path());
        command.args(["run", "--num-prompts", "30", "-o", output]).args(arguments);
        let (code, _, error) = run(command.arg("--simulate").arg(crate::metron::data("cost.toml")));
        assert_eq!(code, 0, "{error}");
        let line = error.lines().find(|line| line.starts_with("deadlines"));
        line.expect("they are told").to_owned()
    };
    let derived = deadlines(&["--experiment", "classes.toml"], "derived");
    assert!(derived.contains("(its slack is 12 times the later ones')"), "{derived}");
    assert!(derived.contains("5 isolated decode steps of"), "{derived}");
    assert!(derived.contains(", by the cost model)"), "nothing is measured: {derived}");
    let of_class = "; of class chat: first token within 200ms of the arrival, later ones 30.0 ms \
                    apart (given); ";
    assert!(derived.contains(of_class), "{derived}");
    let given = deadlines(&["--ttft-deadline", "1s", "--tbt-deadline", "50ms"], "given");
    let expected = "first token within 1s of the arrival (given), later ones 50.0 ms apart (given); a \
                    gap above";
    assert!(given.contains(expected), "nothing is predicted: {given}");
    let repeated = deadlines(
        &["--experiment", "derived/experiment.toml", "--tbt-deadline", "60ms"],
        "repeated",
    );
    let expected = "of the arrival (as recorded), later ones 60.0 ms apart (given)";
    assert!(
        repeated.contains(expected),
        "one of its file, and one of the command line: {repeated}"
    );
    let (code, _, error) = score(dir.path(), &["given", "--ttft-deadline", "2s"]);
    assert_eq!(code, 0, "{error}");
    let expected =
        "first token within 2s of the arrival (given), later ones 50.0 ms apart (as recorded)";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_run_that_was_cut_off_stays_partial() {
    let dir = temporary();
    save(dir.path(), "run", "out", &FIXED);
    let tokens = dir.path().join("out/sarathi-r1.trace/tokens.arrows");
    let whole = fs::read(&tokens).expect("it was written");
    fs::write(&tokens, &whole[..whole.len() - 8]).expect("room for a file");
    let (code, text, error) = score(dir.path(), &["out"]);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("PARTIAL: the experiment was cut short."), "{text}");
}
