//! The metrics: output tokens scored per second, by the fluidity-index alone, by the search for a
//! request's least decode deadline, and by all metrics of a run together.
//!
//!     cargo bench --bench metrics

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metron::engine::{CostModel, Engine, ObserverError, StepObserver, Submission, TextPiece};
use metron::metrics::{
    CountingRule, DeadlineRule, Deadlined, FirstTokenRule, FluidityRule, Scoring, fluidity,
    least_decode_deadline, summarise,
};
use metron::schedulers::{Defaults, Registry};
use metron::sim::SimExecutor;
use metron::trace::{
    ExecutorInfo, FORMAT_VERSION, Header, Limits, Machine, ModelInfo, Origin, PolicyInfo, Request,
    RequestEnd, RequestId, Sampling, StepRecord, Timestamp, Token, Trace, Work,
};

const MS: u64 = 1_000_000;
const DEADLINES: Deadlined = Deadlined { first_ns: 300 * MS, next_ns: 25 * MS };

/// Gaps around a deadline of 25 ms, every 50th a stall of 400 ms.
fn stream(tokens: usize) -> Vec<u64> {
    let gap = |i: usize| if i % 50 == 49 { 400 * MS } else { 15 * MS + (i as u64 % 13) * MS };
    (0..tokens).map(gap).collect()
}

fn streams(criterion: &mut Criterion) {
    let gaps = stream(1 << 14);
    let mut group = criterion.benchmark_group("fluidity-tokens");
    group.throughput(Throughput::Elements(gaps.len() as u64));
    for counting in [CountingRule::Exact, CountingRule::Etalon] {
        let rule = FluidityRule { counting, ..FluidityRule::default() };
        let id = BenchmarkId::from_parameter(format!("{counting:?}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| fluidity(std::hint::black_box(&gaps), DEADLINES, &rule));
        });
    }
    group.finish();

    let gaps = stream(256);
    let mut group = criterion.benchmark_group("least-deadline-tokens");
    group.throughput(Throughput::Elements(gaps.len() as u64));
    group.bench_function("256", |bencher| {
        let rule = FluidityRule::default();
        let gaps = std::hint::black_box(&gaps);
        bencher.iter(|| least_decode_deadline(gaps, DEADLINES.first_ns, &rule, 0.9));
    });
    group.finish();
}

/// A millisecond a step, and a microsecond a token.
struct Affine;

impl CostModel for Affine {
    fn step_time(&self, work: &[Work]) -> Duration {
        let tokens: u32 = work.iter().map(|work| work.tokens).sum();
        Duration::from_millis(1) + Duration::from_micros(u64::from(tokens))
    }
}

/// Keeps a run in memory.
struct Recorder(Trace);

impl StepObserver for Recorder {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        self.0.requests.push(request.clone());
        Ok(())
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.0.steps.push(step.clone());
        self.0.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        self.0.ends.push(*end);
        Ok(())
    }
}

const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 1 << 14, max_num_seqs: 64, max_model_len: 1024 };

fn header() -> Header {
    Header {
        format_version: FORMAT_VERSION,
        metron_version: String::new(),
        created_at: None,
        command_line: Vec::new(),
        origin: Origin::Simulated,
        seed: 0,
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
        executor: ExecutorInfo { device: String::new(), dtype: None, threads: None },
        machine: Machine::default(),
        limits: LIMITS,
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: None,
    }
}

/// A run of 1,000 requests of 128 and 64 tokens under Sarathi, a request every 2 ms.
fn run() -> Trace {
    let request = |id: u32| Request {
        id: RequestId(id),
        arrived_at: Timestamp::from_nanos(u64::from(id) * 2 * MS),
        prompt_tokens: 128,
        output_tokens: Some(64),
        max_tokens: 64,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    let submissions = (0..1000).map(|id| Submission { request: request(id), prompt: Vec::new() });
    let defaults = Defaults { limits: LIMITS, token_budget: 512 };
    let spec = "sarathi".parse().expect("a policy's name");
    let (mut policy, _) =
        Registry::default().build(&spec, &defaults).expect("the policy is registered");
    let engine =
        Engine { policy: "sarathi", limits: LIMITS, max_concurrency: None, cost_model: None };
    let mut recorder = Recorder(Trace {
        header: header(),
        requests: Vec::new(),
        steps: Vec::new(),
        tokens: Vec::new(),
        ends: Vec::new(),
    });
    engine
        .run(&mut SimExecutor::new(Affine), policy.as_mut(), submissions, &mut recorder)
        .expect("the run ends");
    recorder.0
}

fn summary(criterion: &mut Criterion) {
    let trace = run();
    let scoring = Scoring {
        deadlines: DeadlineRule {
            first_token: FirstTokenRule::Fixed(Duration::from_millis(300)),
            next_token: Some(Duration::from_millis(2)),
        },
        prefill: None,
        fluidity: FluidityRule::default(),
        stall_limit: Duration::from_millis(20),
        goodput: None,
        class_deadlines: std::collections::BTreeMap::new(),
        objectives: metron_metrics::Objectives::default(),
    };
    let mut group = criterion.benchmark_group("summary-tokens");
    group.throughput(Throughput::Elements(trace.tokens.len() as u64));
    group.bench_function("1000-requests", |bencher| {
        bencher.iter(|| summarise(&[std::hint::black_box(&trace)], &scoring));
    });
    group.finish();
}

criterion_group!(benches, streams, summary);
criterion_main!(benches);
