//! A real run on a machine that other processes keep busy.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::metron::{metron, run, tiny_model};

/// Processes that do nothing but take processors, until this is dropped.
struct Spinning(Vec<Child>);

impl Spinning {
    /// Twice as many as there are processors. Should this test be killed, they end by themselves
    /// after a minute of processor time each.
    fn start() -> Self {
        let processors = std::thread::available_parallelism().expect("there is one").get();
        let spin = || {
            Command::new("sh")
                .args(["-c", "ulimit -t 60; while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .expect("a shell is there")
        };
        Self((0..2 * processors).map(|_| spin()).collect())
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The saved metrics of a run of the tiny model that takes a second or so.
fn measured(dir: &Path) -> Value {
    let mut command = metron(dir);
    command.arg("run").arg("--model").arg(tiny_model());
    command.args(["--input-len", "40", "--output-len", "40", "--request-rate", "inf"]);
    command.args(["--num-prompts", "1500", "--quiet", "-o", "out"]);
    let (code, _, error) = run(&mut command);
    assert_eq!(code, 0, "{error}");
    let text = std::fs::read_to_string(dir.join("out/metrics.json")).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn a_machine_that_other_processes_keep_busy_is_doubted_with_what_was_seen() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let spinning = Spinning::start();
    let metrics = measured(dir.path());
    drop(spinning);
    let conditions = &metrics["runs"][0]["header"]["machine"]["conditions"];
    if conditions["cpu_pressure"].is_null() && conditions["involuntary_switches"].is_null() {
        println!("not tested: this kernel tells neither pressure nor switches");
        return;
    }
    let doubts = metrics["doubts"].as_array().expect("a list");
    let busy = doubts.iter().find(|raised| raised["doubt"]["kind"] == "busy_machine");
    let busy = busy.unwrap_or_else(|| panic!("it was not doubted: {conditions} {doubts:?}"));
    let finding = busy["finding"].as_str().expect("a sentence");
    assert!(finding.contains("other work had the processors"), "{finding}");
    if !conditions["cpu_pressure"].is_null() {
        assert!(finding.contains("something waited for one"), "{finding}");
    }
    if !conditions["involuntary_switches"].is_null() {
        assert!(finding.contains("a thread of the run lost its own"), "{finding}");
    }
    if !conditions["other_work"].is_null() {
        let others = busy["doubt"]["others"].as_f64().expect("it was read");
        assert!(others > 0.1, "{finding}");
        assert!(finding.contains("other processes kept"), "{finding}");
    }
}
