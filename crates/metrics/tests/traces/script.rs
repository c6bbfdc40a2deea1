//! Traces made by hand, in milliseconds.

use std::time::Duration;

use metron_metrics::{DeadlineRule, FirstTokenRule, FluidityRule, Scoring};
use metron_trace::{
    EndStatus, ExecutorInfo, FORMAT_VERSION, Header, Limits, Machine, ModelInfo, Origin, Phases,
    PolicyInfo, Preemption, PreemptionCause, Request, RequestEnd, RequestId, Sampling, StepRecord,
    Timestamp, Token, Trace, Work, WorkKind,
};

fn ms(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

/// The first token within 20 ms of the arrival, later ones 10 ms apart; above 15 ms is a stall.
pub(crate) fn scoring() -> Scoring {
    Scoring {
        deadlines: DeadlineRule {
            first_token: FirstTokenRule::Fixed(Duration::from_millis(20)),
            next_token: Some(Duration::from_millis(10)),
        },
        prefill: None,
        fluidity: FluidityRule::default(),
        stall_limit: Duration::from_millis(15),
        rate_target: metron_metrics::RateTarget::default(),
        goodput: None,
        class_deadlines: std::collections::BTreeMap::new(),
        objectives: metron_metrics::Objectives::default(),
    }
}

/// A trace without anything yet.
pub(crate) fn trace() -> Trace {
    let limits = Limits { block_size: 16, num_blocks: 100, max_num_seqs: 8, max_model_len: 512 };
    let header = Header {
        format_version: FORMAT_VERSION,
        metron_version: String::new(),
        created_at: None,
        command_line: Vec::new(),
        origin: Origin::Simulated,
        seed: 0,
        replicate: 0,
        max_concurrency: None,
        policy: PolicyInfo {
            label: String::new(),
            name: String::new(),
            options: serde_json::Value::Null,
        },
        model: ModelInfo {
            id: String::new(),
            source: String::new(),
            format: String::new(),
            parameters: 0,
            sha256: None,
            dummy: true,
        },
        executor: ExecutorInfo {
            device: String::new(),
            dtype: None,
            threads: None,
            batch_invariant: None,
        },
        machine: Machine::default(),
        limits,
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: None,
    };
    Trace { header, requests: vec![], steps: vec![], tokens: vec![], ends: vec![] }
}

/// What happens in a trace, in order.
pub(crate) trait Script: Sized {
    /// The next request arrives.
    fn arrives(self, at_ms: u64, prompt_tokens: u32) -> Self;
    /// A step, and the requests that get a token of it. The forward takes all but 1 ms of it.
    fn step(self, from_ms: u64, to_ms: u64, work: &[Work], tokens_for: &[u32]) -> Self;
    /// While the last step was planned, a request was preempted.
    fn preempts(self, request: u32) -> Self;
    /// A request ends.
    fn ends(self, request: u32, status: EndStatus, at_ms: u64) -> Self;
}

pub(crate) fn work(request: u32, kind: WorkKind, tokens: u32) -> Work {
    Work { request: RequestId(request), context: 0, tokens, kind }
}

impl Script for Trace {
    fn arrives(mut self, at_ms: u64, prompt_tokens: u32) -> Self {
        self.requests.push(Request {
            id: RequestId(self.requests.len() as u32),
            arrived_at: ms(at_ms),
            prompt_tokens,
            output_tokens: None,
            max_tokens: 100,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        });
        self
    }

    fn step(mut self, from_ms: u64, to_ms: u64, work: &[Work], tokens_for: &[u32]) -> Self {
        let index = self.steps.len() as u64;
        let forward = Some(Duration::from_millis(to_ms - from_ms - 1));
        self.steps.push(StepRecord {
            index,
            planned_at: ms(from_ms),
            started_at: ms(from_ms),
            ended_at: ms(to_ms),
            phases: Phases { forward, ..Phases::default() },
            work: work.to_vec(),
            blocks_used: 25,
            blocks_free: 75,
            num_running: work.len() as u32,
            ..StepRecord::default()
        });
        for &request in tokens_for {
            let request = RequestId(request);
            let before = self.tokens.iter().filter(|token| token.request == request).count();
            self.tokens.push(Token {
                request,
                index: before as u32,
                step: Some(index),
                id: None,
                at: ms(to_ms),
            });
        }
        self
    }

    fn preempts(mut self, request: u32) -> Self {
        let step = self.steps.last_mut().expect("there is a step");
        step.preemptions.push(Preemption {
            request: RequestId(request),
            cause: PreemptionCause::OutOfBlocks,
            tokens_lost: 1,
        });
        self
    }

    fn ends(mut self, request: u32, status: EndStatus, at_ms: u64) -> Self {
        self.ends.push(RequestEnd { request: RequestId(request), status, ended_at: ms(at_ms) });
        self
    }
}
