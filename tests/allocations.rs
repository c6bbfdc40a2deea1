//! The step loop allocates nothing once it is warm.
//!
//! A test binary of its own, since counting takes the place of the allocator.

use std::time::Duration;

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

/// Allocations of a whole run of `batch` sequences that decode together, one token a step.
fn allocations(policy: &str, batch: u32, output_tokens: u32) -> u64 {
    let limits =
        Limits { block_size: 16, num_blocks: 1 << 16, max_num_seqs: 256, max_model_len: 2048 };
    let spec = policy.parse().expect("a policy's name");
    let defaults = Defaults { limits, token_budget: 1 << 16 };
    let (mut scheduler, _) = Registry::default().build(&spec, &defaults).expect("it is known");
    let submission = |id| Submission {
        request: Request {
            id: RequestId(id),
            arrived_at: Timestamp::ZERO,
            prompt_tokens: 16,
            output_tokens: Some(output_tokens),
            max_tokens: 1024,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        },
        prompt: Vec::new(),
    };
    let submissions: Vec<Submission> = (0..batch).map(submission).collect();
    let engine = Engine { policy, limits, max_concurrency: None, cost_model: None };
    let mut executor = SimExecutor::new(Null);
    let counted = allocation_counter::measure(|| {
        engine.run(&mut executor, scheduler.as_mut(), submissions, &mut ()).expect("it ends");
    });
    counted.count_total
}

/// Three times the steps, and not one allocation more.
#[test]
fn more_steps_are_no_more_allocations() {
    for policy in ["static", "orca", "vllm-v0", "sarathi"] {
        for batch in [1, 256] {
            let (short, long) = (allocations(policy, batch, 300), allocations(policy, batch, 900));
            assert_eq!(short, long, "{policy} at batch {batch}");
            assert!(short > 0, "the allocator counts");
        }
    }
}
