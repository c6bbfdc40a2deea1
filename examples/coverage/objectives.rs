//! How often objectives are called kept or not where they are just at the edge, and where they are
//! surely kept.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use metron::metrics::{
    Bound, Bounded, DeadlineRule, FluidityRule, Objective, ObjectiveVerdict, Objectives,
    RateTarget, Scoring, judge_objectives,
};
use metron::trace::{
    EndStatus, Header, Request, RequestEnd, RequestId, Sampling, Timestamp, Token, Trace,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::experiments::in_parallel;
use super::queue::{Queue, lindley};

/// Requests before those that are judged: the queue is in its steady state, whose percentiles are
/// known.
const BEFORE: usize = 2_000;

/// Runs of a queue, judged together by an objective on the response time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objected {
    pub(crate) queue: Queue,
    /// Of a run.
    pub(crate) requests: usize,
    pub(crate) runs: u64,
    /// Of the requests, that the objective asks to be within its limit.
    pub(crate) asked: f64,
    /// Of the requests, that are within it in truth.
    pub(crate) kept: f64,
}

/// How often a verdict was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reached {
    pub(crate) pass: u32,
    pub(crate) fail: u32,
}

impl Objected {
    pub(crate) fn reached(&self, seeds: Range<u64>) -> Reached {
        let limit = Duration::from_secs_f64(self.queue.percentile(self.kept));
        let objective = Objective {
            class: None,
            metric: Bounded::Ttft,
            bound: Bound::AtMost(limit),
            share: self.asked,
        };
        let scoring = scoring(objective);
        let verdicts = in_parallel(seeds, |seed| {
            let runs = seed * self.runs..(seed + 1) * self.runs;
            let traces: Vec<Trace> = runs.map(|seed| self.run(seed)).collect();
            let traces: Vec<&Trace> = traces.iter().collect();
            judge_objectives(&traces, &scoring)[0].verdict
        });
        let count = |verdict| verdicts.iter().filter(|own| **own == verdict).count() as u32;
        Reached { pass: count(ObjectiveVerdict::Pass), fail: count(ObjectiveVerdict::Fail) }
    }

    /// Requests of one token, which each has when it leaves the queue.
    fn run(&self, seed: u64) -> Trace {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let drawn: Vec<(f64, f64)> =
            self.queue.requests(&mut rng).take(BEFORE + self.requests).collect();
        let responses = lindley(drawn.iter().copied());
        let mut trace = Trace {
            header: header(),
            requests: Vec::new(),
            steps: Vec::new(),
            tokens: Vec::new(),
            ends: Vec::new(),
        };
        let mut arrived = 0.0;
        for (id, ((gap, _), response)) in (0..).zip(drawn.iter().zip(responses).skip(BEFORE)) {
            arrived += gap;
            serve(&mut trace, RequestId(id), arrived, response);
        }
        trace
    }
}

fn serve(trace: &mut Trace, id: RequestId, arrived: f64, response: f64) {
    let arrived_at = Timestamp::ZERO + Duration::from_secs_f64(arrived);
    let at = arrived_at + Duration::from_secs_f64(response);
    trace.requests.push(Request {
        id,
        arrived_at,
        prompt_tokens: 1,
        output_tokens: Some(1),
        max_tokens: 1,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    });
    trace.tokens.push(Token { request: id, index: 0, step: None, id: None, at });
    trace.ends.push(RequestEnd { request: id, status: EndStatus::Finished, ended_at: at });
}

fn scoring(objective: Objective) -> Scoring {
    Scoring {
        deadlines: DeadlineRule::RECORDED,
        class_deadlines: BTreeMap::new(),
        prefill: None,
        fluidity: FluidityRule::default(),
        rate_target: RateTarget::default(),
        stall_limit: Duration::MAX,
        goodput: None,
        objectives: Objectives::new(vec![objective]).expect("it is alone"),
    }
}

fn header() -> Header {
    let json = serde_json::json!({
        "format_version": metron::trace::FORMAT_VERSION, "metron_version": "", "command_line": [],
        "origin": "simulated", "replicate": 0, "seed": 0,
        "policy": { "label": "", "name": "", "options": null },
        "model": { "id": "", "source": "", "format": "", "parameters": 0, "dummy": true },
        "executor": { "device": "" }, "machine": { "cpu_features": [] },
        "limits": { "block_size": 1, "num_blocks": 1, "max_num_seqs": 1, "max_model_len": 1 },
        "experiment": null, "classes": [], "dropped_requests": 0, "truncated_requests": 0,
    });
    serde_json::from_value(json).expect("it is a header")
}
