//! Profiles, operators in traces, and exports, by the program as a process.

use std::fs;

use serde_json::Value;

use crate::metron::{metron, run, simulated, tiny_model};

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

#[test]
fn a_profile_is_printed_and_saved() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let mut command = metron(dir.path());
    command.arg("profile").arg("--model").arg(tiny_model()).args(["--repeats", "2", "--json"]);
    command.args(["--shapes", "decode:4x30,hybrid:2x20+8@16", "-o", "out"]);
    let (code, output, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let profile = json(&output);
    assert_eq!(profile["profile_version"], 1);
    assert_eq!(profile["shapes"][1]["shape"], "hybrid:2x20+8@16");
    let saved = fs::read_to_string(dir.path().join("out/profile.json")).expect("it is saved");
    assert_eq!(json(&saved), profile);
    let page = fs::read_to_string(dir.path().join("out/profile.html")).expect("it is saved");
    assert_eq!(page.matches("<svg xmlns=").count(), 2, "a roofline a shape");
}

/// The operators of a step lie in its forward pass, and a viewer gets them.
#[test]
fn operators_are_traced_and_exported() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let mut command = metron(dir.path());
    command.args(["run", "--quiet", "--trace-operators", "-o", "out", "--num-prompts", "4"]);
    command.args(["--input-len", "12", "--output-len", "3", "--request-rate", "inf", "--model"]);
    let (code, _, error) = run(command.arg(tiny_model()));
    assert_eq!(code, 0, "{error}");
    let trace = fs::read_dir(dir.path().join("out"))
        .expect("results are there")
        .map(|entry| entry.expect("it can be listed").path())
        .find(|path| path.join("operators.arrows").exists())
        .expect("operators are in the trace");
    let mut export = metron(dir.path());
    export.arg("export").arg(&trace).args(["--format", "perfetto"]);
    let (code, output, error) = run(&mut export);
    assert_eq!(code, 0, "{error}");
    let events = json(&output);
    let events = events["traceEvents"].as_array().expect("a list");
    let downs = events.iter().filter(|event| event["name"] == "down").count();
    let is_step = |event: &&Value| event["args"]["decode_tokens"].is_number();
    let steps = events.iter().filter(is_step).count();
    assert_eq!(downs, 2 * steps, "two layers a step");
    // To a file the same.
    let (code, ..) = run(export.args(["-o", "events.json"]));
    assert_eq!(code, 0);
    assert_eq!(fs::read_to_string(dir.path().join("events.json")).expect("written"), output);
}

#[test]
fn what_can_not_be_profiled_or_exported_is_said() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let refused = |arguments: &[&str], code: i32, message: &str| {
        let (got, output, error) = run(metron(dir.path()).args(arguments));
        assert!(error.contains(message), "{error}\ndoes not say\n{message}");
        assert_eq!((got, output.as_str()), (code, ""), "{error}");
        assert!(!dir.path().join("metron-out").exists(), "nothing is half-written");
    };
    let model = tiny_model();
    let model = model.to_str().expect("a path in UTF-8");
    let profile = |rest: &[&'static str]| [&["profile", "--model", model], rest].concat();
    refused(&profile(&["--shapes", "decode:8"]), 2, "`decode:8` is no batch shape; shapes are");
    refused(&profile(&["--shapes", "prefill:100000"]), 2, "the model's context is");
    refused(&profile(&["--repeats", "0"]), 2, "--repeats is 0; it must be at least 1");
    refused(&["profile", "--model", "no-such-model"], 2, "no-such-model");
    refused(&["export", "nowhere", "--format", "perfetto"], 3, "nowhere");
    let (code, _, error) = run(simulated(dir.path(), "run").arg("--trace-operators"));
    assert_eq!(code, 2);
    assert!(error.contains("--trace-operators can't be honoured in virtual time"), "{error}");
}
