//! Runs in virtual time, as a small model on two cores would have them: every ninth prompt is long.

use std::time::Duration;

use metron_engine::{CostModel, Engine, Submission};
use metron_metrics::{Comparison, DeadlineRule, FluidityRule, RunOf, Scoring};
use metron_report::Report;
use metron_schedulers::{Defaults, Registry};
use metron_sim::{AffineCost, SimExecutor};
use metron_trace::{
    Calibration, Deadlines, DecodePoint, ExecutorInfo, FORMAT_VERSION, Header, Limits, Machine,
    ModelInfo, Origin, PrefillCurve, PrefillFit, Request, RequestId, Sampling, Timestamp, Trace,
    Work, WorkKind,
};

const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 900, max_num_seqs: 16, max_model_len: 1200 };

const COST: AffineCost = AffineCost {
    step_ns: 6e6,
    prefill_token_ns: 0.5e6,
    decode_token_ns: 1.5e6,
    prefill_context_ns: 300.0,
    decode_context_ns: 2_000.0,
};

/// Runs and how they are scored.
pub(crate) struct Experiment {
    pub(crate) policies: Vec<&'static str>,
    pub(crate) runs: Vec<(&'static str, u32, Trace)>,
    pub(crate) scoring: Scoring,
}

impl Experiment {
    /// Two replicates of the same requests under each policy.
    pub(crate) fn of(policies: &[&'static str], num_requests: u32) -> Self {
        let runs = policies.iter().flat_map(|policy| {
            (0..2).map(|replicate| (*policy, replicate, serve(policy, replicate, num_requests)))
        });
        let scoring = Scoring {
            deadlines: DeadlineRule::RECORDED,
            prefill: None,
            fluidity: FluidityRule::default(),
            stall_limit: Duration::from_millis(200),
            rate_target: metron_metrics::RateTarget::default(),
            goodput: None,
            class_deadlines: std::collections::BTreeMap::new(),
            objectives: metron_metrics::Objectives::default(),
        };
        Self { policies: policies.to_vec(), runs: runs.collect(), scoring }
    }

    /// What `use_report` makes of the report.
    pub(crate) fn report<T>(&self, use_report: impl FnOnce(Report<'_>) -> T) -> T {
        let run = |(policy, replicate, trace)| RunOf { policy, replicate, trace };
        let runs: Vec<RunOf<'_>> =
            self.runs.iter().map(|(p, r, trace)| run((p, *r, trace))).collect();
        let comparison = Comparison::new(&self.policies, &runs, &self.scoring);
        use_report(Report {
            title: format!("Metron: {} on toy", self.policies.join(", ")),
            facts: vec![("model".to_owned(), "toy, made of 5 coefficients".to_owned())],
            comparison: &comparison,
            runs: &runs,
            scoring: &self.scoring,
            is_partial: false,
        })
    }
}

fn serve(policy: &str, replicate: u32, num_requests: u32) -> Trace {
    let spec = policy.parse().expect("the policy parses");
    let defaults = Defaults { limits: LIMITS, token_budget: 96 };
    let (mut scheduler, info) =
        Registry::default().build(&spec, &defaults).expect("the policy is known");
    let engine = Engine { policy, limits: LIMITS, max_concurrency: None, cost_model: None };
    let submissions: Vec<Submission> =
        (0..num_requests).map(|id| submission(id, replicate)).collect();
    let header = header(info);
    let mut trace = Trace {
        header,
        requests: Vec::new(),
        steps: Vec::new(),
        tokens: Vec::new(),
        ends: Vec::new(),
    };
    engine
        .run(&mut SimExecutor::new(COST), scheduler.as_mut(), submissions, &mut trace)
        .expect("the run ends");
    trace
}

/// The n-th request: arrivals some 210 ms apart, lengths scattered without a random generator.
fn submission(id: u32, replicate: u32) -> Submission {
    let scattered = |most: u32| (id * 37 + replicate * 11 + id * id * 5) % most;
    let output = 8 + scattered(57);
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::from_nanos(u64::from(id * 210 + scattered(200)) * 1_000_000),
        prompt_tokens: if id % 9 == 5 { 900 + scattered(200) } else { 24 + scattered(120) },
        output_tokens: Some(output),
        max_tokens: output,
        class: 0,
        priority: 0,
        deadlines: Some(Deadlines {
            first_token: Duration::from_millis(400),
            next_token: Duration::from_millis(40),
        }),
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}

fn header(policy: metron_trace::PolicyInfo) -> Header {
    Header {
        format_version: FORMAT_VERSION,
        metron_version: "0.1.0".to_owned(),
        created_at: None,
        command_line: Vec::new(),
        origin: Origin::Simulated,
        seed: 7,
        replicate: 0,
        max_concurrency: None,
        policy,
        model: ModelInfo {
            id: "toy".to_owned(),
            source: "these tests".to_owned(),
            format: "cost model".to_owned(),
            parameters: 0,
            sha256: None,
            dummy: false,
        },
        executor: ExecutorInfo {
            device: "virtual time".to_owned(),
            dtype: None,
            threads: None,
            batch_invariant: None,
        },
        machine: Machine::default(),
        limits: LIMITS,
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: Some(calibration()),
    }
}

/// What the costs are alone, at some context.
fn calibration() -> Calibration {
    const CONTEXT: u32 = 100;
    let curve = PrefillCurve {
        a: COST.step_ns / 1e9,
        b: COST.prefill_token_ns / 1e9,
        c: COST.prefill_context_ns / 2e9,
    };
    let decode = [1, 4, 16].map(|batch| {
        let of = |id| Work {
            request: RequestId(id),
            context: CONTEXT,
            tokens: 1,
            kind: WorkKind::Decode,
        };
        let work: Vec<Work> = (0..batch).map(of).collect();
        DecodePoint { batch, context: CONTEXT, step_time: COST.step_time(&work) }
    });
    let prefill = PrefillFit { curve, points: Vec::new(), relative_residual: 0.0 };
    Calibration { prefill, decode: decode.to_vec() }
}
