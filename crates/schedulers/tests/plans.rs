//! Hand-worked examples: the whole plan sequence of each policy, in virtual time.
//!
//! Every step takes 10 ms, whatever is in it, so a plan says when things happened. A plan is
//! written as `request:tokens@context`, with `!request` for a preemption before it and `*` behind
//! recomputed positions; a rejection stands between them with its reason.

use std::time::Duration;

use metron_engine::{CostModel, Engine, ObserverError, StepObserver, Submission, TextPiece};
use metron_schedulers::{Defaults, PolicySpec, Registry};
use metron_sim::SimExecutor;
use metron_trace::{
    Limits, Request, RequestId, Sampling, StepRecord, Timestamp, Token, Work, WorkKind,
};

struct TenMillisecondsAStep;

impl CostModel for TenMillisecondsAStep {
    fn step_time(&self, _work: &[Work]) -> Duration {
        Duration::from_millis(10)
    }
}

/// Writes plans down.
#[derive(Default)]
struct Plans(Vec<String>);

impl StepObserver for Plans {
    fn stepped(
        &mut self,
        step: &StepRecord,
        _: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        let preempted = step.preemptions.iter().map(|p| format!("!{}", p.request.0));
        let work = step.work.iter().map(|w| {
            let recomputed = if w.kind == WorkKind::Recompute { "*" } else { "" };
            format!("{}:{}@{}{recomputed}", w.request.0, w.tokens, w.context)
        });
        self.0.push(preempted.chain(work).collect::<Vec<_>>().join(" "));
        Ok(())
    }

    fn rejected(&mut self, id: RequestId, reason: &str) -> Result<(), ObserverError> {
        self.0.push(format!("no {}: {reason}", id.0));
        Ok(())
    }
}

/// (arrival in ms, prompt tokens, output tokens)
type Arrival = (u64, u32, u32);

fn check(policy: &str, limits: Limits, arrivals: &[Arrival], expected: &[&str]) {
    let submissions = arrivals.iter().zip(0..).map(|(&(ms, prompt_tokens, output), id)| {
        let request = Request {
            id: RequestId(id),
            arrived_at: Timestamp::from_nanos(ms * 1_000_000),
            prompt_tokens,
            output_tokens: Some(output),
            max_tokens: output,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        };
        Submission { request, prompt: Vec::new() }
    });
    let spec: PolicySpec = policy.parse().expect("the policy parses");
    let defaults = Defaults { limits, token_budget: 8 };
    let (mut scheduler, info) =
        Registry::default().build(&spec, &defaults).expect("the policy is known");
    let engine = Engine { policy: &info.label, limits, max_concurrency: None, cost_model: None };
    let mut executor = SimExecutor::new(TenMillisecondsAStep);
    let mut plans = Plans::default();
    engine.run(&mut executor, scheduler.as_mut(), submissions, &mut plans).expect("the run ends");
    assert_eq!(plans.0, expected, "plans of {policy}");
}

/// Blocks of 4 positions.
fn limits(num_blocks: u32, max_num_seqs: u32) -> Limits {
    Limits { block_size: 4, num_blocks, max_num_seqs, max_model_len: 16 }
}

#[test]
fn static_batching_admits_nobody_until_the_batch_has_drained() {
    check(
        "static",
        limits(100, 8),
        &[(0, 5, 2), (0, 3, 3), (5, 4, 1)],
        &["0:5@0 1:3@0", "0:1@5 1:1@3", "1:1@4", "2:4@0"],
    );
}

#[test]
fn static_batching_reserves_the_longest_sequence_for_each() {
    // Two of 16 positions fit into 9 blocks of 4; the third waits, though its 3 tokens would fit.
    check(
        "static",
        limits(9, 8),
        &[(0, 2, 1), (0, 2, 2), (0, 2, 1)],
        &["0:2@0 1:2@0", "1:1@2", "2:2@0"],
    );
}

#[test]
fn orca_runs_a_whole_prompt_beside_decodes() {
    check(
        "orca",
        limits(100, 8),
        &[(0, 3, 4), (15, 9, 2)],
        &["0:3@0", "0:1@3", "0:1@4 1:9@0", "0:1@5 1:1@9"],
    );
}

#[test]
fn orca_admits_when_a_reservation_is_given_back() {
    check(
        "orca",
        limits(8, 8),
        &[(0, 2, 1), (0, 2, 3), (0, 2, 2)],
        &["0:2@0 1:2@0", "1:1@2 2:2@0", "1:1@3 2:1@2"],
    );
}

#[test]
fn orca_stays_within_its_slots() {
    check("orca", limits(100, 1), &[(0, 2, 2), (0, 2, 1)], &["0:2@0", "0:1@2", "1:2@0"]);
}

#[test]
fn vllm_v0_stops_decodes_for_a_prefill() {
    check(
        "vllm-v0",
        limits(100, 8),
        &[(0, 3, 3), (5, 9, 2)],
        &["0:3@0", "1:9@0", "0:1@3 1:1@9", "0:1@4"],
    );
}

#[test]
fn vllm_v0_batches_prompts_up_to_its_token_limit() {
    check(
        "vllm-v0:max_num_batched_tokens=8",
        limits(100, 8),
        &[(0, 4, 1), (0, 4, 1), (0, 4, 1)],
        &["0:4@0 1:4@0", "2:4@0"],
    );
}

#[test]
fn vllm_v0_preempts_the_newest_when_no_block_is_free_and_recomputes_it_later() {
    // 5 blocks of 4: two prompts of 8 take four, and the first decode of request 0 the fifth.
    // Request 1 finds no block free, so the newest, itself, is preempted; its 8 prompt and 1
    // generated tokens need three blocks, which are free when request 0 is done.
    check(
        "vllm-v0",
        limits(5, 8),
        &[(0, 8, 3), (0, 8, 3)],
        &["0:8@0 1:8@0", "!1 0:1@8", "0:1@9", "1:8@0* 1:1@8", "1:1@9"],
    );
}

#[test]
fn vllm_v0_keeps_one_percent_of_the_pool_free_when_it_admits() {
    // 100 blocks, 1 of them the watermark: 25 prompts of four blocks would fit, 24 are admitted.
    let arrivals: Vec<Arrival> = (0..25).map(|_| (0, 16 - 1, 1)).collect();
    let first: Vec<String> = (0..24).map(|id| format!("{id}:15@0")).collect();
    check("vllm", limits(100, 99), &arrivals, &[&first.join(" "), "24:15@0"]);
}

/// A sequence that has the whole pool to itself keeps it to its end: there is room in its last
/// block, though no block is free.
const ALONE_IN_FOUR_BLOCKS: [&str; 7] =
    ["0:1@8", "0:1@9", "0:1@10", "0:1@11", "0:1@12", "0:1@13", "0:1@14"];

#[test]
fn vllm_v0_lets_a_sequence_fill_the_pool() {
    let expected = [&["0:8@0"], &ALONE_IN_FOUR_BLOCKS[..]].concat();
    check("vllm-v0", limits(4, 1), &[(0, 8, 8)], &expected);
}

#[test]
fn sarathi_lets_a_sequence_fill_the_pool() {
    // With a budget of 7, recomputing 15 positions would end with a chunk of a single one.
    let chunked = [&["0:7@0", "0:1@7"], &ALONE_IN_FOUR_BLOCKS[..]].concat();
    check("sarathi:token_budget=7", limits(4, 1), &[(0, 8, 8)], &chunked);
    let whole = [&["0:8@0"], &ALONE_IN_FOUR_BLOCKS[..]].concat();
    check("sarathi", limits(4, 1), &[(0, 8, 8)], &whole);
}

/// 100 blocks, 1 of them the watermark, and a prompt that takes all.
const WHOLE_POOL: Limits =
    Limits { block_size: 1, num_blocks: 100, max_num_seqs: 8, max_model_len: 200 };

#[test]
fn vllm_v0_rejects_a_prompt_that_can_never_leave_the_watermark_free() {
    let reason = "no 0: its 100 tokens need 100 KV blocks, and 1 (1 %) are to be left free, but \
                  the pool has 100; give it more blocks";
    check("vllm-v0", WHOLE_POOL, &[(0, 100, 1), (0, 99, 1)], &[reason, "1:99@0"]);
}

#[test]
fn sarathi_keeps_no_watermark_free_when_nothing_runs() {
    check(
        "sarathi:token_budget=64",
        WHOLE_POOL,
        &[(0, 100, 1), (0, 4, 1)],
        &["0:64@0", "0:36@64", "1:4@0"],
    );
}

#[test]
fn a_pool_smaller_than_the_context_is_reserved_whole() {
    let small = limits(3, 8);
    let expected = ["0:5@0", "0:1@5", "1:3@0"];
    check("static", small, &[(0, 5, 2), (0, 3, 1)], &expected);
    check("orca", small, &[(0, 5, 2), (0, 3, 1)], &expected);
}

#[test]
fn sarathi_splits_a_prompt_so_that_each_step_stays_within_the_token_budget() {
    check(
        "sarathi:token_budget=4",
        limits(100, 8),
        &[(0, 3, 4), (5, 9, 2)],
        &["0:3@0", "0:1@3 1:3@0", "0:1@4 1:3@3", "0:1@5 1:3@6", "1:1@9"],
    );
}

#[test]
fn sarathi_goes_on_with_a_prefill_that_has_begun_before_it_starts_another() {
    check(
        "sarathi:token_budget=4",
        limits(100, 8),
        &[(0, 6, 1), (0, 3, 1)],
        &["0:4@0", "0:2@4 1:2@0", "1:1@2"],
    );
}

#[test]
fn sarathi_runs_all_decodes_even_if_they_exceed_the_budget() {
    check(
        "sarathi:token_budget=2",
        limits(100, 8),
        &[(0, 1, 3), (0, 1, 3), (10, 1, 3), (10, 1, 1)],
        &["0:1@0 1:1@0", "0:1@1 1:1@1", "0:1@2 1:1@2", "2:1@0 3:1@0", "2:1@1", "2:1@2"],
    );
}

#[test]
fn sarathi_may_preempt_a_prefill_that_has_begun() {
    // 4 blocks of 4. Request 0 decodes in blocks 1 and 2, request 1 holds two for its prompt of 8.
    // When request 0 needs its next token no block is free: request 1, half done, is preempted.
    // Its own two blocks are free after that, so it starts again in the same step, as in the
    // source: request 0 still had room in its block, but the rule wants a free one.
    check(
        "sarathi:token_budget=4",
        limits(4, 8),
        &[(0, 4, 3), (0, 8, 1)],
        &["0:4@0", "0:1@4 1:3@0", "!1 0:1@5 1:3@0*", "1:4@3", "1:1@7"],
    );
}
