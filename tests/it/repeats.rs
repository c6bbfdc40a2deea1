//! `experiment.toml` repeats the experiment that it stands beside.

use std::fs;
use std::path::{Path, PathBuf};

use crate::metron::{data, metron, run, tiny_model};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

/// Runs with these arguments, and again by its file from another directory: the same result, and the
/// same file.
fn check_repeats(arguments: &[&str]) {
    let dir = temporary();
    fs::copy(data("cost.toml"), dir.path().join("cost.toml")).expect("room for a file");
    let rows = "arrived_at,prompt_tokens,output_tokens\n0,10,5\n0.5,100,6\n1.5,30,9\n";
    fs::write(dir.path().join("recorded.csv"), rows).expect("room for a file");
    let mut first = metron(dir.path());
    first.args(["run", "--quiet", "-o", "out", "--simulate", "cost.toml"]).args(arguments);
    let (code, result, error) = run(&mut first);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    let elsewhere = elsewhere(dir.path());
    let repeated = repeat(&elsewhere);
    assert_eq!(repeated, result, "{arguments:?}");
    let file =
        |dir: &Path| fs::read_to_string(dir.join("out/experiment.toml")).expect("it is there");
    assert_eq!(file(&elsewhere), file(dir.path()), "{arguments:?}");
}

/// The result of the experiment of the directory above.
fn repeat(elsewhere: &Path) -> String {
    let mut again = metron(elsewhere);
    again.args(["run", "--quiet", "-o", "out", "--experiment", "../out/experiment.toml"]);
    let (code, repeated, error) = run(&mut again);
    assert_eq!(code, 0, "{error}");
    repeated
}

#[test]
fn whatever_is_scored_is_scored_again() {
    check_repeats(&["--num-prompts", "30", "--max-slack", "0s", "--stall-limit", "0s"]);
    check_repeats(&["--num-prompts", "30", "--max-slack", "1h 30m", "--without-first-token"]);
    let scoring = ["--rule", "etalon", "--fluid-index", "0.5", "--fluid-share", "0.123456789"];
    check_repeats(
        &[&["--num-prompts", "30", "--goodput", "ttft:200", "tpot:50"], &scoring[..]].concat(),
    );
    let deadlines = ["--ttft-deadline", "predicted * 2.5", "--tbt-deadline", "0.0333s"];
    let objectives =
        ["--objective", "class chat: P99 tbt <= 0.1 s", "--objective", "ttft <= 1 s for 9%"];
    check_repeats(&[&["--num-prompts", "30"][..], &deadlines, &objectives].concat());
}

#[test]
fn whatever_arrives_arrives_again() {
    check_repeats(&[
        "--num-prompts",
        "30",
        "--seed",
        "18446744073709551615",
        "--burstiness",
        "0.3",
    ]);
    check_repeats(&[
        "--num-prompts",
        "30",
        "--arrivals",
        "constant",
        "--request-rate",
        "3.3333333",
    ]);
    check_repeats(&["--num-prompts", "30", "--request-rate", "inf", "--max-concurrency", "3"]);
    check_repeats(&["--num-prompts", "30", "--max-model-len", "300", "--too-long", "drop"]);
    check_repeats(&["--num-prompts", "30", "--input-len", "90", "--random-range-ratio", "0.3"]);
    check_repeats(&["--dataset-path", "recorded.csv"]);
    let engine = ["--kv-blocks", "90", "--block-size", "17", "--max-num-seqs", "5"];
    check_repeats(&[&["--num-prompts", "30", "--stop-at-eos"][..], &engine].concat());
}

#[test]
fn whoever_is_compared_is_compared_again() {
    let policies = "sarathi:token_budget=77,sarathi,orca";
    check_repeats(&["--num-prompts", "30", "--schedulers", policies, "--baseline", "orca"]);
    let until = ["--until", "decided", "--replicates", "4"];
    check_repeats(&[&["--num-prompts", "30", "--schedulers", "orca,static"], &until[..]].concat());
}

#[test]
fn a_run_with_the_last_calibration_repeats_when_there_is_another() {
    let dir = temporary();
    let cache = dir.path().join("cache");
    fs::create_dir(&cache).expect("the directory is new");
    fs::copy(data("cost.toml"), cache.join("last-calibration.toml")).expect("room for a file");
    let mut first = metron(dir.path());
    first.args(["run", "--quiet", "-o", "out", "--num-prompts", "30", "--simulate"]);
    let (code, result, error) = run(&mut first);
    assert_eq!(code, 0, "{error}");
    fs::remove_dir_all(&cache).expect("it is there");
    assert_eq!(repeat(&elsewhere(dir.path())), result);
}

/// A directory beside the output.
fn elsewhere(dir: &Path) -> PathBuf {
    let elsewhere = dir.join("elsewhere");
    fs::create_dir(&elsewhere).expect("the directory is new");
    elsewhere
}

#[cfg(unix)]
#[test]
fn a_model_named_by_a_path_is_found_from_elsewhere() {
    let dir = temporary();
    std::os::unix::fs::symlink(tiny_model(), dir.path().join("tiny")).expect("room for a link");
    let mut first = metron(dir.path());
    first.args(["run", "--quiet", "-o", "out", "--model", "tiny", "--request-rate", "inf"]);
    first.args(["--num-prompts", "2", "--input-len", "8", "--output-len", "2"]);
    let (code, _, error) = run(&mut first);
    assert_eq!(code, 0, "{error}");
    repeat(&elsewhere(dir.path()));
}
