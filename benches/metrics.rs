//! The metrics: output tokens scored per second, by the fluidity-index alone, by the search for a
//! request's least decode deadline, and by all metrics of a run together.
//!
//!     cargo bench --bench metrics
//!
//! `SCORING_TRACE` names a saved trace to score instead of one made here; `scripts/scoring-speed.py`
//! compares what comes of it with Python.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metron::engine::{CostModel, Engine, Submission};
use metron::metrics::{
    CountingRule, DeadlineRule, Deadlined, FirstTokenRule, FluidityRule, RateTarget, Scoring,
    Stream, Timeline, blame, fluid_rate, fluidity, least_decode_deadline, summarise, timelines,
};
use metron::schedulers::{Defaults, Registry};
use metron::sim::SimExecutor;
use metron::trace::{
    Calibration, ExecutorInfo, FORMAT_VERSION, Header, Limits, Machine, ModelInfo, Origin,
    PolicyInfo, PrefillCurve, PrefillFit, Request, RequestId, Sampling, Timestamp, Trace,
    TraceReader, Work,
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
    served(1000, 2 * MS)
}

/// The same of so many requests, a request every `gap_ns`.
fn served(requests: u32, gap_ns: u64) -> Trace {
    let request = |id: u32| Request {
        id: RequestId(id),
        arrived_at: Timestamp::from_nanos(u64::from(id) * gap_ns),
        prompt_tokens: 128,
        output_tokens: Some(64),
        max_tokens: 64,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    let submissions =
        (0..requests).map(|id| Submission { request: request(id), prompt: Vec::new() });
    let defaults = Defaults { limits: LIMITS, token_budget: 512 };
    let spec = "sarathi".parse().expect("a policy's name");
    let (mut policy, _) =
        Registry::default().build(&spec, &defaults).expect("the policy is registered");
    let engine =
        Engine { policy: "sarathi", limits: LIMITS, max_concurrency: None, cost_model: None };
    let mut trace = Trace {
        header: header(),
        requests: Vec::new(),
        steps: Vec::new(),
        tokens: Vec::new(),
        ends: Vec::new(),
    };
    engine
        .run(&mut SimExecutor::new(Affine), policy.as_mut(), submissions, &mut trace)
        .expect("the run ends");
    trace
}

fn run_scoring() -> Scoring {
    Scoring {
        deadlines: DeadlineRule {
            first_token: FirstTokenRule::Fixed(Duration::from_millis(300)),
            next_token: Some(Duration::from_millis(2)),
        },
        prefill: None,
        fluidity: FluidityRule::default(),
        stall_limit: Duration::from_millis(20),
        rate_target: metron_metrics::RateTarget::default(),
        goodput: None,
        class_deadlines: std::collections::BTreeMap::new(),
        objectives: metron_metrics::Objectives::default(),
    }
}

/// What missed deadlines are blamed on, where all requests are there at once: most wait for most of
/// the run.
fn backlog(criterion: &mut Criterion) {
    let scoring = run_scoring();
    let curve = PrefillCurve { a: 1e-3, b: 1e-6, c: 0.0 };
    let prefill = PrefillFit { curve, points: Vec::new(), relative_residual: 0.0 };
    let mut group = criterion.benchmark_group("blame-requests");
    group.sample_size(10);
    for requests in [4_000, 16_000] {
        let mut trace = served(requests, 0);
        let decode = Vec::new();
        trace.header.calibration = Some(Calibration { prefill: prefill.clone(), decode });
        group.throughput(Throughput::Elements(u64::from(requests)));
        group.bench_function(BenchmarkId::from_parameter(requests), |bencher| {
            bencher.iter(|| blame(&[std::hint::black_box(&trace)], &scoring));
        });
    }
    group.finish();
}

fn summary(criterion: &mut Criterion) {
    let (trace, scoring) = (run(), run_scoring());
    let mut group = criterion.benchmark_group("summary-tokens");
    group.throughput(Throughput::Elements(trace.tokens.len() as u64));
    group.bench_function("1000-requests", |bencher| {
        bencher.iter(|| summarise(&[std::hint::black_box(&trace)], &scoring));
    });
    group.finish();
}

/// The sum of all requests' fluidity-indices.
fn indices(timelines: &[Timeline], rule: &FluidityRule) -> f64 {
    timelines.iter().filter_map(|timeline| timeline.fluidity(DEADLINES, rule).index()).sum()
}

fn rate(timelines: &[Timeline], rule: &FluidityRule) -> f64 {
    let decode = FluidityRule { with_first_token: false, ..*rule };
    let gaps: Vec<Vec<u64>> = timelines.iter().map(Timeline::inter_token_ns).collect();
    let streams = gaps.iter().map(|gaps| Stream::Served { inter_token_ns: gaps, first_ns: 0 });
    fluid_rate(streams, &decode, RateTarget::default()).tokens_per_second
}

/// From a loaded trace to the fluidity-index of every request, and to the fluid token generation
/// rate besides.
fn scoring(criterion: &mut Criterion) {
    let trace = std::env::var_os("SCORING_TRACE").map_or_else(run, |dir| {
        TraceReader::read(dir.as_ref()).expect("SCORING_TRACE names a trace").0
    });
    let rule = FluidityRule::default();
    let scored = timelines(&trace);
    let mut group = criterion.benchmark_group("scoring");
    group.throughput(Throughput::Elements(trace.tokens.len() as u64));
    group.bench_function("timelines", |bencher| {
        bencher.iter(|| timelines(std::hint::black_box(&trace)));
    });
    group.bench_function("index", |bencher| {
        bencher.iter(|| indices(std::hint::black_box(&scored), &rule));
    });
    group.bench_function("index-and-rate", |bencher| {
        bencher.iter(|| {
            let scored = std::hint::black_box(&scored);
            (indices(scored, &rule), rate(scored, &rule))
        });
    });
    group.finish();
}

criterion_group!(benches, streams, scoring, summary, backlog);
criterion_main!(benches);
