//! A small comparison, made by hand.

use std::time::Duration;

use metron_metrics::{Comparison, DeadlineRule, FirstTokenRule, FluidityRule, RunOf, Scoring};
use metron_report::Report;
use metron_trace::{
    EndStatus, ExecutorInfo, FORMAT_VERSION, Header, Limits, Machine, ModelInfo, Origin, Phases,
    PolicyInfo, Request, RequestEnd, RequestId, Sampling, StepRecord, Timestamp, Token, Trace,
    Work, WorkKind,
};

/// A policy whose label has to be escaped.
pub(crate) const ANGULAR: &str = "<b>mine</b>";

fn header(policy: &str) -> Header {
    Header {
        format_version: FORMAT_VERSION,
        metron_version: "0.1.0".to_owned(),
        created_at: None,
        command_line: Vec::new(),
        origin: Origin::Measured,
        seed: 0,
        replicate: 0,
        max_concurrency: Some(1),
        policy: PolicyInfo {
            label: policy.to_owned(),
            name: policy.to_owned(),
            options: serde_json::Value::Null,
        },
        model: ModelInfo {
            id: "tiny".to_owned(),
            source: "a test".to_owned(),
            format: "dummy".to_owned(),
            parameters: 1,
            sha256: None,
            dummy: true,
        },
        executor: ExecutorInfo {
            device: "cpu".to_owned(),
            dtype: None,
            threads: Some(2),
            batch_invariant: Some(true),
        },
        machine: Machine::default(),
        limits: Limits { block_size: 16, num_blocks: 8, max_num_seqs: 2, max_model_len: 64 },
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: None,
    }
}

/// Four requests of ten tokens, 40 ms apart but for one stall of `stall_ms`, during which the
/// prefill of another runs.
pub(crate) fn trace(policy: &str, stall_ms: u64) -> Trace {
    let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
    let mut trace = Trace {
        header: header(policy),
        requests: Vec::new(),
        steps: Vec::new(),
        tokens: Vec::new(),
        ends: Vec::new(),
    };
    let mut now = 0;
    for id in 0..4 {
        let request = RequestId(id);
        trace.requests.push(Request {
            id: request,
            arrived_at: at(now),
            prompt_tokens: 30,
            output_tokens: Some(10),
            max_tokens: 10,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        });
        for index in 0..10 {
            let stalls = id == 1 && index == 5;
            let took = if stalls { stall_ms } else { 40 };
            let decode = Work { request, context: 30 + index, tokens: 1, kind: WorkKind::Decode };
            let prefill = Work {
                request: RequestId(id + 1),
                context: 0,
                tokens: 30,
                kind: WorkKind::Prefill,
            };
            let first = Work { request, context: 0, tokens: 30, kind: WorkKind::Prefill };
            let step = trace.steps.len() as u64;
            trace.steps.push(StepRecord {
                index: step,
                planned_at: at(now),
                started_at: at(now),
                ended_at: at(now + took),
                phases: Phases {
                    forward: Some(Duration::from_millis(took - 1)),
                    ..Phases::default()
                },
                work: match (index, stalls) {
                    (0, _) => vec![first],
                    (_, true) => vec![decode, prefill],
                    (_, false) => vec![decode],
                },
                blocks_used: 3,
                blocks_free: 5,
                num_running: 1,
                ..StepRecord::default()
            });
            now += took;
            trace.tokens.push(Token { request, index, step: Some(step), id: Some(7), at: at(now) });
        }
        trace.ends.push(RequestEnd { request, status: EndStatus::Finished, ended_at: at(now) });
    }
    trace
}

pub(crate) fn scoring() -> Scoring {
    Scoring {
        deadlines: DeadlineRule {
            first_token: FirstTokenRule::Fixed(Duration::from_millis(100)),
            next_token: Some(Duration::from_millis(50)),
        },
        prefill: None,
        fluidity: FluidityRule::default(),
        stall_limit: Duration::from_millis(100),
        rate_target: metron_metrics::RateTarget::default(),
        goodput: None,
        class_deadlines: std::collections::BTreeMap::new(),
        objectives: metron_metrics::Objectives::default(),
    }
}

/// Calls `with` with the report of two policies, the first of which stalls.
pub(crate) fn with_report<T>(with: impl FnOnce(&Report<'_>) -> T) -> T {
    let traces = [trace("stalls", 700), trace(ANGULAR, 60)];
    let scoring = scoring();
    let runs: Vec<RunOf<'_>> = traces.iter().map(RunOf::of).collect();
    let comparison = Comparison::new(&["stalls", ANGULAR], &runs, &scoring);
    with(&Report {
        title: "Two policies".to_owned(),
        facts: vec![("model".to_owned(), "tiny & small".to_owned())],
        comparison: &comparison,
        runs: &runs,
        scoring: &scoring,
        is_partial: false,
    })
}
