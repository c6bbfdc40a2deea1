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
fn allocations(policy: &str, batch: u32, num_blocks: u32, output_tokens: u32) -> u64 {
    let limits = Limits { block_size: 16, num_blocks, max_num_seqs: 256, max_model_len: 2048 };
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
            let allocations = |output| allocations(policy, batch, 1 << 16, output);
            let (short, long) = (allocations(300), allocations(900));
            assert_eq!(short, long, "{policy} at batch {batch}");
            assert!(short > 0, "the allocator counts");
        }
    }
}

/// 8 sequences of 20 blocks or of 58 in a pool of 60: they are preempted, and recompute. The short
/// ones come to the larger batches, so theirs are the larger buffers.
#[test]
fn preemptions_are_no_allocations() {
    for policy in ["vllm-v0", "sarathi"] {
        let allocations = |output| allocations(policy, 8, 60, output);
        let (short, long) = (allocations(300), allocations(900));
        assert!(long <= short, "{policy}: {long} after {short}");
    }
}
