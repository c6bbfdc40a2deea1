//! The search for a capacity, and objectives: on queues with known answers, and as its users run it.

#[path = "../../examples/capacity_check/searches.rs"]
mod searches;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use searches::{Runs, STEADY_CAPACITY, tally};
use serde_json::Value;

use crate::metron::{interrupted, metron, run, simulated, tiny_model};
use crate::queue::{self, Service};

/// The short form of `scripts/capacity-check.sh`.
#[test]
fn brackets_hold_the_truth_of_their_horizon_and_one_run_a_rate_overstates_the_steady_state() {
    for service in [Service::Exponential, Service::Constant] {
        let runs = Runs::new(service, 500);
        let truth = runs.brute_force_capacity(4000, 7);
        assert!(truth > 1.05 * STEADY_CAPACITY, "short runs pass at greater rates: {truth}");
        let found = tally(runs, truth, 0..25, 640);
        assert!(found.covered >= 0.95 && found.narrow >= 0.95, "{found:?}");
        assert!(found.wrong_passes <= 0.02 && found.bias.abs() < 0.01, "{found:?}");
        let bisected: f64 = (0..100).map(|seed| runs.one_run_a_rate(seed)).sum();
        assert!(bisected / 100.0 > 1.04 * STEADY_CAPACITY, "{bisected}");
    }
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

/// A short search in `out`, with more arguments.
fn search(dir: &Path, arguments: &[&str]) -> Value {
    let mut command = simulated(dir, "capacity");
    command.args(["--schedulers", "sarathi", "--num-prompts", "40", "--replicates", "10"]);
    let (code, text, error) = run(command.args(["--json", "-o", "out"]).args(arguments));
    assert_eq!(code, 0, "{error}");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Every saved trace.
fn probes(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        let entries = dir.read_dir().expect("the directory is there");
        entries.map(|entry| entry.expect("it can be read").path()).collect()
    };
    entries(&dir.join("out/probes")).iter().flat_map(|at_rate| entries(at_rate)).collect()
}

fn number(json: &Value) -> f64 {
    json.as_f64().unwrap_or_else(|| panic!("{json} is no number"))
}

#[test]
fn a_capacity_is_a_bracket_below_the_bound_with_every_run_saved() {
    let dir = temporary();
    let printed = search(dir.path(), &["--objective", "e2el <= 2 s for 90%"]);
    let capacity = &printed["capacities"][0];
    let bracket = &capacity["bracket"];
    let (passed, failed) = (number(&bracket["passed"]), number(&bracket["failed"]));
    assert!(passed < failed, "{bracket}");
    assert!(passed <= number(&capacity["upper_bound"]), "{capacity}");
    let runs = capacity["probes"].as_array().expect("a list");
    assert_eq!(runs.len(), probes(dir.path()).len());
    assert_eq!(capacity["binding"], "e2el <= 2s for 90%");
    let html = fs::read_to_string(dir.path().join("out/report.html")).expect("it was written");
    assert!(html.contains("<section id=\"brackets\">") && html.contains("<dt>command</dt>"));
    let doubts: Vec<&Value> = printed["doubts"].as_array().expect("a list").iter().collect();
    assert!(doubts.iter().all(|doubt| doubt["doubt"]["kind"] != "extrapolated"), "{doubts:?}");
    let judged = &runs[0]["judged"][0];
    assert_eq!(judged["n"], 40, "each run has what it says of the objective: {judged}");
    assert_eq!((&printed["probability"], &printed["confidence"]), (&0.5.into(), &0.95.into()));
}

#[test]
fn a_search_goes_on_where_it_was_and_other_objectives_run_only_what_is_missing() {
    let dir = temporary();
    let first = search(dir.path(), &["--objective", "e2el <= 2 s for 90%"]);
    let saved = probes(dir.path());
    // A kill leaves one run half-done and another cut off, at a rate that the bracket rests on.
    let passed = format!("rate-{}", first["capacities"][0]["bracket"]["passed"]);
    let is_at_it = |run: &&PathBuf| run.components().any(|part| part.as_os_str() == &*passed);
    let cut_off = saved.iter().find(is_at_it).expect("there are runs");
    fs::write(cut_off.join("tokens.arrows"), b"").expect("the disk has room");
    fs::create_dir_all(dir.path().join("out/running/sarathi-r4.trace")).expect("it is not there");
    assert_eq!(search(dir.path(), &["--objective", "e2el <= 2 s for 90%"]), first);
    assert_eq!(probes(dir.path()), saved);
    assert!(!dir.path().join("out/running").exists());
    // Objectives may change, and what is shared is not run again.
    let other = search(dir.path(), &["--objective", "e2el <= 1500 ms for 90%"]);
    let runs = other["capacities"][0]["probes"].as_array().expect("a list").len();
    let missing = probes(dir.path()).len() - saved.len();
    assert!(missing < runs, "{missing} of {runs} runs were missing");
    let mut command = simulated(dir.path(), "capacity");
    let (code, _, error) = run(command.args(["-o", "out", "--num-prompts", "50"]));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("`num_prompts = 40` there, `num_prompts = 50` here"), "{error}");
}

#[test]
fn a_search_that_goes_on_keeps_its_probability() {
    let dir = temporary();
    let objective = ["--objective", "e2el <= 2 s for 90%"];
    let first = search(dir.path(), &[&objective[..], &["--probability", "0.8"]].concat());
    assert_eq!(first["probability"], 0.8);
    let again = search(dir.path(), &objective);
    assert!(again["probability"] == 0.8 && again["capacities"] == first["capacities"]);
    let mut command = simulated(dir.path(), "capacity");
    command.args(["-o", "out", "--probability", "0.5"]).args(objective);
    let (code, _, error) = run(&mut command);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("`probability = 0.8` there, `probability = 0.5` here"), "{error}");
}

#[test]
fn other_options_under_a_label_are_refused_before_anything_is_written() {
    let dir = temporary();
    let search = |token_budget: u32| {
        let policy = format!(
            "[[scheduler]]\nname = \"sarathi\"\nlabel = \"mine\"\ntoken_budget = {token_budget}\n"
        );
        fs::write(dir.path().join("e.toml"), policy).expect("the disk has room");
        let mut command = simulated(dir.path(), "capacity");
        command.args(["--experiment", "e.toml", "--num-prompts", "40", "--replicates", "10"]);
        run(command.args(["--objective", "e2el <= 2 s for 90%", "-o", "out"]))
    };
    let (code, _, error) = search(89);
    assert_eq!(code, 0, "{error}");
    let result = || fs::read_to_string(dir.path().join("out/capacity.json")).expect("it is there");
    let before = result();
    let (code, _, error) = search(64);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("`mine` has other options in out; give it another label"), "{error}");
    assert_eq!(result(), before);
}

/// As searches were kept when replicates counted from 0 in names, and the probability was forgotten.
#[test]
fn a_search_of_an_older_directory_goes_on() {
    let dir = temporary();
    let objective = ["--objective", "e2el <= 2 s for 90%"];
    let first = search(dir.path(), &objective);
    let saved = probes(dir.path());
    for trace in &saved {
        let name = trace.file_name().expect("it has a name").to_str().expect("it is UTF-8");
        let nth = name.strip_prefix("sarathi-r").and_then(|rest| rest.strip_suffix(".trace"));
        let nth: u32 = nth.expect("names have the replicate").parse().expect("a number");
        let old = trace.with_file_name(format!("sarathi-{}.trace", nth - 1));
        fs::rename(trace, old).expect("it is free");
    }
    let file = dir.path().join("out/experiment.toml");
    let experiment = fs::read_to_string(&file).expect("it was written");
    let old = experiment.replace("probability = 0.5\n", "");
    assert_ne!(old, experiment);
    fs::write(&file, old).expect("the disk has room");
    assert_eq!(search(dir.path(), &objective), first);
    assert_eq!(probes(dir.path()).len(), saved.len(), "no run is repeated");
}

#[test]
fn where_nothing_or_everything_passes_the_range_is_told() {
    let told = |objective: &str| {
        let dir = temporary();
        let mut command = simulated(dir.path(), "capacity");
        command.args(["--schedulers", "sarathi", "--num-prompts", "20", "--replicates", "10"]);
        let (code, text, error) = run(command.args(["--objective", objective]));
        assert_eq!(code, 0, "{error}");
        text
    };
    let nothing = told("ttft <= 1 ms for 99%");
    assert!(nothing.contains("sarathi: nothing passes, not even at"), "{nothing}");
    assert!(
        nothing.contains("the best run kept the bound of `ttft <= 1ms for 99%` for"),
        "{nothing}"
    );
    let everything = told("tbt <= 1 h for 99%");
    assert!(everything.contains("sarathi: everything passes, up to"), "{everything}");
    assert!(everything.contains("There is no rate that no policy can exceed"), "{everything}");
}

#[test]
fn a_run_of_too_few_requests_for_the_share_that_is_asked_is_doubted() {
    let dir = temporary();
    let doubts = search(dir.path(), &["--objective", "e2el <= 2 s for 99%"])["doubts"].clone();
    let doubts = doubts.as_array().expect("a list").iter();
    let too_few = doubts.map(|own| &own["doubt"]).find(|own| own["kind"] == "too_few_requests");
    let too_few = too_few.unwrap_or_else(|| panic!("40 requests don't show 99 %"));
    assert_eq!((&too_few["have"], &too_few["need"]), (&40.into(), &368.into()));
}

#[test]
fn what_applies_to_no_request_is_said_before_anything_is_reported() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "capacity");
    command.args(["--output-len", "1", "--objective", "tbt <= 1 s for 90%"]);
    let (code, text, error) = run(&mut command);
    assert_eq!((code, text.as_str()), (2, ""), "{error}");
    assert!(error.contains("`tbt <= 1s for 90%` applies to no request of a run"), "{error}");
}

#[test]
fn objectives_have_verdicts_in_the_table_and_in_the_files() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "run");
    command.args(["--num-prompts", "400", "--request-rate", "0.5"]);
    command.args(["--objective", "ttft <= 1 h for 80%"]);
    command.args(["--objective", "class chat: P50 TBT <= 1 us", "-o", "out"]);
    let (code, text, error) = run(&mut command);
    assert_eq!(code, 0, "a verdict is no failure of the program: {error}");
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(row("ttft <= 3600s for 80%").ends_with("PASS 100 %"), "{text}");
    assert!(row("class chat: tbt <= 1us for 50%").ends_with("FAIL 0 %"), "{text}");
    assert!(row("all objectives").ends_with("FAIL"), "{text}");
    let html = fs::read_to_string(dir.path().join("out/report.html")).expect("it was written");
    assert!(html.contains("PASS 100 %"));
    // Others may be asked of the saved trace.
    let score = |objective: &str| {
        let (code, text, error) =
            run(metron(dir.path()).args(["score", "out", "--json", "--objective", objective]));
        assert_eq!(code, 0, "{error}");
        let json: Value = serde_json::from_str(&text).expect("it is JSON");
        json["comparison"]["policies"][0]["pooled"]["objectives"][0]["verdict"].clone()
    };
    assert_eq!(score("ttft <= 1 us for 95%"), "FAIL");
    assert_eq!(score("class document: e2el <= 1 h for 99.9%"), "UNDECIDED");
    let (code, _, error) = run(metron(dir.path()).args([
        "score",
        "out",
        "--objective",
        "class chad: ttft <= 1 s for 9%",
    ]));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("(did you mean `chat`?); classes are chat, document"), "{error}");
}

#[test]
fn classes_have_deadlines_of_their_own() {
    let dir = temporary();
    let mut command = simulated(dir.path(), "run");
    command.args(["--num-prompts", "60", "--tbt-deadline", "1h", "--ttft-deadline", "1h"]);
    run(command.args(["-o", "first"]));
    let file = dir.path().join("first/experiment.toml");
    let text = fs::read_to_string(&file).expect("it was written");
    let own = "[scoring.classes.document]\nfirst_token = \"1ns\"\nnext_token = \"1ns\"\n";
    let text = text.replace("[workload]", &format!("{own}\n[workload]"));
    fs::write(&file, text).expect("the disk has room");
    let mut command = metron(dir.path());
    command.args(["run", "--experiment", "first/experiment.toml", "-o", "second", "--json"]);
    let (code, text, error) =
        run(command.args(["--objective", "class chat: fluidity_index >= 1 for 90%"]));
    assert_eq!(code, 0, "{error}");
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    let pooled = &json["comparison"]["policies"][0]["pooled"];
    let share = number(&pooled["fluidity"]["share_fluid"]);
    assert!(share > 0.5 && share < 1.0, "documents are late and chats are not: {share}");
    assert_eq!(pooled["objectives"][0]["violations"], 0);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_search_which_the_same_command_goes_on_with() {
    let dir = temporary();
    let command = || {
        let mut command = metron(dir.path());
        command.arg("capacity").arg("--model").arg(tiny_model()).args(["-o", "out"]);
        command.args(["--input-len", "20", "--output-len", "6", "--num-prompts", "40"]);
        command.args(["--schedulers", "sarathi", "--replicates", "6"]);
        command.args(["--objective", "e2el <= 2 s for 90%"]);
        command
    };
    let is_under_way = || dir.path().join("out/probes").exists();
    let (code, text, error) = interrupted(&mut command(), is_under_way);
    assert_eq!(code, 130, "{error}");
    assert!(text.contains("PARTIAL: the search was cut short"), "{text}");
    let saved = probes(dir.path());
    assert!(!saved.is_empty());
    let (code, _, error) = run(&mut command());
    assert_eq!(code, 0, "{error}");
    assert!(probes(dir.path()).is_superset(&saved));
}
