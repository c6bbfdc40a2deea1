//! The step loop without a model: nanoseconds per step, and per sequence of a step.
//!
//!     cargo bench --bench step_loop
//!
//! A null executor returns at once and samples nothing but placeholders, so what is timed is the
//! policy (Sarathi), the checked planner, the books and the records.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use metron::engine::{CostModel, Engine, Submission};
use metron::schedulers::{Defaults, Registry};
use metron::sim::SimExecutor;
use metron::trace::{Limits, Request, RequestId, Sampling, Timestamp, Work};

struct Null;

impl CostModel for Null {
    fn step_time(&self, _work: &[Work]) -> Duration {
        Duration::from_nanos(1)
    }
}

const OUTPUT_TOKENS: u32 = 512;

fn submissions(batch: u32) -> Vec<Submission> {
    (0..batch)
        .map(|id| Submission {
            request: Request {
                id: RequestId(id),
                arrived_at: Timestamp::ZERO,
                prompt_tokens: 16,
                output_tokens: Some(OUTPUT_TOKENS),
                max_tokens: OUTPUT_TOKENS,
                class: 0,
                priority: 0,
                deadlines: None,
                sampling: Sampling::GREEDY,
            },
            prompt: Vec::new(),
        })
        .collect()
}

fn step_loop(criterion: &mut Criterion) {
    let limits =
        Limits { block_size: 16, num_blocks: 1 << 16, max_num_seqs: 256, max_model_len: 1024 };
    let defaults = Defaults { limits, token_budget: 1 << 16 };
    let engine = Engine { policy: "sarathi", limits, max_concurrency: None, cost_model: None };
    let spec = "sarathi".parse().expect("a policy's name");
    let mut group = criterion.benchmark_group("sequence-steps");
    for batch in [1, 32, 256] {
        let submissions = submissions(batch);
        group.throughput(Throughput::Elements(u64::from(batch * OUTPUT_TOKENS)));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                let (mut policy, _) =
                    Registry::default().build(&spec, &defaults).expect("the policy is registered");
                let mut executor = SimExecutor::new(Null);
                engine
                    .run(&mut executor, policy.as_mut(), submissions.clone(), &mut ())
                    .expect("the run ends")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, step_loop);
criterion_main!(benches);
