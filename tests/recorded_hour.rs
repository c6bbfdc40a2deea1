//! An hour of recording, whole: what it takes of the disk, and of this process' memory.
//!
//! A test binary of its own, since the memory of other tests would count.

use std::fs;
use std::path::Path;

use metron::engine::{Engine, ObserverError, StepObserver, Submission, TextPiece};
use metron::lab::DiskRecorder;
use metron::schedulers::{Defaults, Registry};
use metron::sim::{AffineCost, SimExecutor};
use metron::trace::{
    FORMAT_VERSION, Header, Limits, Request, RequestEnd, RequestId, Sampling, StepRecord,
    Timestamp, Token, TraceWriter,
};

const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 1000, max_num_seqs: 8, max_model_len: 400 };

/// 100 steps a second.
const COST: AffineCost = AffineCost {
    step_ns: 10e6,
    prefill_token_ns: 0.0,
    decode_token_ns: 0.0,
    prefill_context_ns: 0.0,
    decode_context_ns: 0.0,
};

const OUTPUT_TOKENS: u32 = 200;
const STEPS: u32 = 3600 * 100;
const MOST_BYTES: u64 = 100_000_000;

/// What a second at this rate gives to record, several times over.
const A_FEW_SECONDS: usize = 1 << 20;

/// Records a run, and each virtual second waits as long as the disk needs, which is what a loop in
/// real time gives it at least.
struct Paced {
    recorder: DiskRecorder,
    second: u64,
    most_waiting: usize,
}

impl StepObserver for Paced {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        self.recorder.arrived(request)
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        // As a model would name them: ids that do not compress.
        let named = |token: &Token| Token { id: Some(scattered(step.index)), ..*token };
        let tokens: Vec<Token> = tokens.iter().map(named).collect();
        // As a machine would measure it: times that do not compress either.
        let jitter = std::time::Duration::from_nanos(scattered(step.index).into());
        let mut step = step.clone();
        step.phases.schedule = jitter;
        step.phases.prepare = Some(jitter * 2);
        step.phases.forward = step.phases.forward.map(|forward| forward.saturating_sub(jitter * 5));
        step.phases.sample = Some(jitter * 3);
        step.phases.detokenise = Some(jitter * 7);
        self.recorder.stepped(&step, &tokens, text)?;
        self.most_waiting = self.most_waiting.max(self.recorder.0.bytes_waiting());
        let second = step.ended_at.as_nanos() / 1_000_000_000;
        if second > self.second {
            self.second = second;
            while self.recorder.0.bytes_waiting() > A_FEW_SECONDS {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        self.recorder.ended(end)
    }
}

/// A number below 49,152 for each other one, in no order.
fn scattered(index: u64) -> u32 {
    (index as u32).wrapping_mul(0x9E37_79B9) % 49_152
}

fn header() -> Header {
    let header = serde_json::json!({
        "format_version": FORMAT_VERSION, "metron_version": "", "command_line": [],
        "origin": "measured", "seed": 0, "replicate": 0,
        "policy": {"label": "orca", "name": "orca", "options": null},
        "model": {"id": "", "source": "", "format": "", "parameters": 0, "dummy": true},
        "executor": {"device": ""}, "machine": {"cpu_features": []}, "limits": LIMITS, "experiment": null,
        "classes": [], "dropped_requests": 0, "truncated_requests": 0,
    });
    serde_json::from_value(header).expect("it is a header")
}

fn submission(id: u32) -> Submission {
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::ZERO,
        prompt_tokens: 20 + id % 100,
        output_tokens: Some(OUTPUT_TOKENS),
        max_tokens: OUTPUT_TOKENS,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}

/// A figure of this process in bytes; `None` where the kernel does not say.
fn memory(named: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(named))?;
    let kib: u64 = line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// At 100 steps a second and batch 8: each request takes a step for its prompt and one for each
/// further token.
#[test]
fn an_hour_of_recording_takes_less_than_100_megabytes_of_memory_and_of_disk() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let trace = dir.path().join("trace");
    let spec = "orca".parse().expect("a policy's name");
    let defaults = Defaults { limits: LIMITS, token_budget: 512 };
    let (mut scheduler, _) = Registry::default().build(&spec, &defaults).expect("it is known");
    let submissions: Vec<_> = (0..STEPS * 8 / OUTPUT_TOKENS).map(submission).collect();
    let before = memory("VmRSS");

    let recorder = TraceWriter::create(&trace, &header()).expect("the directory is new");
    let mut paced = Paced { recorder: DiskRecorder(recorder), second: 0, most_waiting: 0 };
    let engine = Engine {
        policy: "orca",
        limits: LIMITS,
        max_concurrency: Some(8),
        cost_model: Some(&COST),
    };
    engine
        .run(&mut SimExecutor::new(COST), scheduler.as_mut(), submissions, &mut paced)
        .expect("the run ends");
    paced.recorder.0.finish().expect("the disk has room");
    assert!(paced.second >= 3600, "{} s", paced.second);

    let on_disk = size(&trace);
    assert!(on_disk < MOST_BYTES, "{on_disk} bytes on disk");
    assert!((paced.most_waiting as u64) < MOST_BYTES, "{} bytes waited", paced.most_waiting);
    // With the engine's own, of 14,400 requests.
    let grown = memory("VmHWM").zip(before).map(|(most, before)| most - before);
    assert!(grown.is_none_or(|bytes| bytes < MOST_BYTES), "{grown:?} bytes of memory");
}

fn size(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).expect("it was written");
    files.map(|file| file.expect("a file").metadata().expect("its size").len()).sum()
}
