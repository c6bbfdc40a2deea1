//! Tokens a second of SmolLM2-135M's shape (random weights: no download) through the engine's loop:
//! decode at batch 1, 8 and 32, and prefill.
//!
//!     cargo bench --bench forward

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metron::engine::{Engine, ObserverError, StepObserver, Submission, TextPiece};
use metron::llm::hub::{HubEnvironment, LoadFormat, ModelName, ResolveOptions, Silent, resolve};
use metron::llm::{CandleExecutor, KvPool, LoadOptions, LoadedModel, TextStreams};
use metron::schedulers::{Defaults, Registry};
use metron::trace::{Limits, Request, RequestId, Sampling, StepRecord, Timestamp, Token};

/// Orca reserves the longest sequence for each: room for all slots at once.
const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 32 * 65, max_num_seqs: 32, max_model_len: 65 * 16 };

fn executor() -> CandleExecutor {
    let model: ModelName = "smollm2-135m-instruct".parse().expect("a card");
    let options =
        ResolveOptions { load_format: LoadFormat::Dummy, environment: HubEnvironment::from_env() };
    let files = resolve(&model, &options, &mut Silent).expect("a shape needs no download");
    let options =
        LoadOptions { max_model_len: Some(LIMITS.max_model_len), ..LoadOptions::default() };
    let model = LoadedModel::load(&files, &options).expect("the card's shape is fine");
    let pool = KvPool { block_size: LIMITS.block_size, num_blocks: LIMITS.num_blocks };
    CandleExecutor::new(Arc::new(model), pool, None, TextStreams::default()).expect("the pool fits")
}

fn requests(batch: u32, prompt_tokens: u32, output_tokens: u32) -> Vec<Submission> {
    let request = |id| Request {
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
    let prompt = |id| (0..prompt_tokens).map(|at| (at * 37 + id * 101) % 40_000 + 100).collect();
    (0..batch).map(|id| Submission { request: request(id), prompt: prompt(id) }).collect()
}

/// Holds every step of a run to one batch size.
struct AllTogether(usize);

impl StepObserver for AllTogether {
    fn stepped(
        &mut self,
        step: &StepRecord,
        _: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        assert_eq!(step.work.len(), self.0, "sequences in step {}", step.index);
        Ok(())
    }
}

fn serve(executor: &mut CandleExecutor, submissions: Vec<Submission>) {
    let defaults = Defaults { limits: LIMITS, token_budget: 1024 };
    let spec = "orca".parse().expect("a policy's name");
    let (mut policy, _) =
        Registry::default().build(&spec, &defaults).expect("the policy is registered");
    let engine = Engine { policy: "orca", limits: LIMITS, max_concurrency: None, cost_model: None };
    executor.restart();
    let mut together = AllTogether(submissions.len());
    engine.run(executor, policy.as_mut(), submissions, &mut together).expect("the run ends");
}

fn forward(criterion: &mut Criterion) {
    let mut executor = executor();
    let mut group = criterion.benchmark_group("tokens");
    group.sample_size(10);
    for batch in [1, 8, 32] {
        // The prompt's only token is a step like the others.
        let (steps, submissions) = (16, requests(batch, 1, 16));
        group.throughput(Throughput::Elements(u64::from(batch * steps)));
        group.bench_function(BenchmarkId::new("decode at batch", batch), |bencher| {
            bencher.iter(|| serve(&mut executor, submissions.clone()));
        });
    }
    for length in [128, 512, 1024] {
        let submissions = requests(1, length, 1);
        group.throughput(Throughput::Elements(u64::from(length)));
        group.bench_function(BenchmarkId::new("prefill of", length), |bencher| {
            bencher.iter(|| serve(&mut executor, submissions.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
