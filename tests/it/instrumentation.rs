//! What watching a run does to it: nothing in virtual time, and a disk that is full is named.

use std::fs;
use std::path::Path;

use metron::engine::{
    Batch, CostModel, Engine, Executor, ExecutorError, Outcome, StepObserver, Submission,
};
use metron::lab::DiskRecorder;
use metron::sim::{AffineCost, SimExecutor};
use metron::trace::{
    Limits, Request, RequestId, Sampling, Timestamp, Trace, TraceReader, TraceWriter, Work,
};

use crate::blame::served::{COST, header, registered};
use crate::metron::{metron, run};

/// Few blocks, so that the plans have preemptions.
const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 60, max_num_seqs: 8, max_model_len: 400 };

fn requests(count: u32, lengths: impl Fn(u32) -> (u32, u32)) -> Vec<Submission> {
    let submission = |id: u32| {
        let (prompt_tokens, output_tokens) = lengths(id);
        let request = Request {
            id: RequestId(id),
            arrived_at: Timestamp::ZERO,
            prompt_tokens,
            output_tokens: Some(output_tokens),
            max_tokens: output_tokens,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        };
        Submission { request, prompt: Vec::new() }
    };
    (0..count).map(submission).collect()
}

/// Remembers what it was given to run, and when.
struct Remembering {
    executor: SimExecutor<AffineCost>,
    plans: Vec<(Timestamp, Vec<Work>)>,
}

impl Executor for Remembering {
    fn now(&self) -> Timestamp {
        self.executor.now()
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        self.plans.push((self.now(), batch.work().to_vec()));
        self.executor.submit(batch)
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        self.executor.next_outcome(until, outcome)
    }
}

/// The plans of a run that `observer` watches.
fn plans(
    policy: &str,
    cost_model: Option<&dyn CostModel>,
    observer: &mut dyn StepObserver,
) -> Vec<(Timestamp, Vec<Work>)> {
    let mut executor = Remembering { executor: SimExecutor::new(COST), plans: Vec::new() };
    let engine = Engine { policy, limits: LIMITS, max_concurrency: None, cost_model };
    let requests = requests(60, |id| (20 + id * 37 % 200, 5 + id * 11 % 60));
    engine
        .run(&mut executor, registered(policy, LIMITS).as_mut(), requests, observer)
        .expect("the run ends");
    executor.plans
}

fn recorder(dir: &Path) -> DiskRecorder {
    let header = header(&COST, LIMITS);
    DiskRecorder(TraceWriter::create(dir, &header).expect("the directory is new"))
}

fn in_memory() -> Trace {
    let header = header(&COST, LIMITS);
    Trace { header, requests: Vec::new(), steps: Vec::new(), tokens: Vec::new(), ends: Vec::new() }
}

#[test]
fn plans_are_the_same_at_every_level_of_instrumentation() {
    for policy in ["static", "orca", "vllm-v0", "sarathi"] {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let bare = plans(policy, None, &mut ());
        assert!(bare.len() > 50, "{policy}: {} plans", bare.len());
        let mut memory = in_memory();
        assert_eq!(plans(policy, None, &mut memory), bare, "{policy} in memory");
        let mut disk = recorder(&dir.path().join("disk"));
        assert_eq!(plans(policy, None, &mut disk), bare, "{policy} on disk");
        disk.0.finish().expect("the disk has room");
        let mut both = (recorder(&dir.path().join("both")), in_memory());
        let watched = plans(policy, Some(&COST), &mut (&mut both.0, &mut both.1));
        assert_eq!(watched, bare, "{policy} with everything");
        both.0.0.finish().expect("the disk has room");

        // What was recorded on disk is what was there to be recorded.
        let (read, missing) = TraceReader::read(&dir.path().join("both")).expect("it is whole");
        assert_eq!((read.steps, read.tokens), (both.1.steps, both.1.tokens));
        assert!(missing.is_empty());
    }
}

/// The shell lets no file grow beyond 16 KiB.
#[cfg(unix)]
#[test]
fn a_disk_that_takes_no_more_ends_the_run_and_names_the_file() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let mut metron = metron(dir.path());
    metron.args(["run", "--quiet", "--num-prompts", "2000", "-o", "out", "--simulate"]);
    metron.arg(crate::metron::data("cost.toml"));
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$@\"", "sh"]);
    limited.arg(metron.get_program()).args(metron.get_args()).current_dir(dir.path());
    limited.envs(metron.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (code, _, error) = run(&mut limited);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains(".arrows") && error.contains("File too large"), "{error}");
    assert!(error.contains("the trace is whole up to"), "{error}");
    assert!(dir.path().join("out/experiment.toml").exists(), "what was asked is kept in any case");
}

#[test]
fn doctor_says_what_recording_costs_with_its_interval() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let doctor = |arguments: &[&str]| {
        let mut command = metron(dir.path());
        command.arg("doctor").args(arguments).arg("--quiet");
        run(&mut command)
    };
    let model = crate::metron::tiny_model();
    let model = model.to_str().expect("the path is UTF-8");
    let overhead = ["--overhead", "--pairs", "2", "--model", model];
    let (code, text, error) = doctor(&overhead);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("% [") && text.contains("of a step of"), "{text}");
    assert!(text.contains("a bare loop of") && text.contains("ns a step"), "{text}");
    let (code, text, error) = doctor(&[&overhead[..], &["--json"]].concat());
    assert_eq!(code, 0, "{error}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    for measured in ["on_model", "on_null_executor"] {
        let ratio = json[measured]["ratio"].as_f64().expect("a ratio");
        let low = json[measured]["interval"]["low"].as_f64().expect("an end");
        let high = json[measured]["interval"]["high"].as_f64().expect("an end");
        assert!(low <= ratio && ratio <= high && ratio > 0.0, "{json}");
    }
    let (code, _, error) = doctor(&["--overhead", "--pairs", "1", "--model", model]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("an interval takes at least 2"), "{error}");
}

#[test]
fn doctor_says_what_the_machine_is_and_what_it_is_doing() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let (code, text, error) = run(metron(dir.path()).args(["doctor", "--json"]));
    assert_eq!(code, 0, "{error}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(json["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{json}");
    assert!(json["clock_tick_s"].as_f64().is_some_and(|tick| tick > 0.0), "{json}");
    assert!(json["doubts"].is_array(), "{json}");
}

/// What a measured run's machine was like is in its trace; a simulated run has no machine.
#[test]
fn conditions_are_kept_with_a_measured_run_and_with_no_other() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let conditions = |output: &str| {
        let path = dir.path().join(output).join("sarathi-r1.trace/conditions.json");
        fs::read_to_string(path).ok()
    };
    let mut measured = metron(dir.path());
    measured.arg("run").arg("--model").arg(crate::metron::tiny_model());
    measured.args(["--input-len", "20", "--output-len", "6", "--request-rate", "inf"]);
    measured.args(["--num-prompts", "4", "--quiet", "-o", "measured"]);
    let (code, _, error) = run(&mut measured);
    assert_eq!(code, 0, "{error}");
    let text = conditions("measured").expect("it was watched");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert!(json["watched"].is_object(), "{json}");
    let metrics =
        fs::read_to_string(dir.path().join("measured/metrics.json")).expect("it is there");
    let metrics: serde_json::Value = serde_json::from_str(&metrics).expect("it is JSON");
    assert_eq!(metrics["runs"][0]["header"]["machine"]["conditions"], json);
    assert!(metrics["doubts"].is_array());

    let mut simulated = crate::metron::simulated(dir.path(), "run");
    let (code, _, error) = run(simulated.args(["--num-prompts", "4", "-o", "simulated"]));
    assert_eq!(code, 0, "{error}");
    assert_eq!(conditions("simulated"), None);
}
