//! Every policy serves every workload to its end: in pools of a block or of many, with one slot or
//! several, whatever its options, with one batch in flight or several.

use std::time::Duration;

use metron_engine::{
    Batch, CostModel, Engine, Executor, ExecutorError, ObserverError, Outcome, RunEnd,
    StepObserver, Submission, TextPiece,
};
use metron_schedulers::{Defaults, PolicySpec, Registry};
use metron_sim::SimExecutor;
use metron_trace::{
    EndStatus, Limits, Request, RequestEnd, RequestId, Sampling, StepRecord, Timestamp, Token, Work,
};
use proptest::prelude::*;

/// 1 ms, and 1 ms a token.
struct Costs;

impl CostModel for Costs {
    fn step_time(&self, work: &[Work]) -> Duration {
        Duration::from_millis(1 + work.iter().map(|w| u64::from(w.tokens)).sum::<u64>())
    }
}

/// Takes the next batches while one is in flight.
struct Queued {
    executor: SimExecutor<Costs>,
    depth: usize,
}

impl Executor for Queued {
    fn now(&self) -> Timestamp {
        self.executor.now()
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        self.executor.submit(batch)
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        self.executor.next_outcome(until, outcome)
    }
}

/// What became of every request, and the last step.
#[derive(Default)]
struct Seen {
    steps: u32,
    last_step: StepRecord,
    tokens: Vec<u32>,
    ends: Vec<Option<EndStatus>>,
    rejected: Vec<RequestId>,
}

/// More than any of these workloads needs.
const MOST_STEPS: u32 = 1_000_000;

impl StepObserver for Seen {
    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.steps += 1;
        self.last_step.clone_from(step);
        for token in tokens {
            self.tokens[token.request.index()] += 1;
        }
        Ok(())
    }

    fn rejected(&mut self, id: RequestId, reason: &str) -> Result<(), ObserverError> {
        assert!(!reason.is_empty());
        self.rejected.push(id);
        Ok(())
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        let before = self.ends[end.request.index()].replace(end.status);
        assert_eq!(before, None, "{} ends once", end.request);
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.steps > MOST_STEPS
    }
}

/// Requests of any length that fits, and one long after them, alone.
fn submissions(limits: &Limits, drawn: &[(u64, f64, f64)]) -> Vec<Submission> {
    // The last token is sent, never computed.
    let longest = limits.max_model_len.min(limits.num_blocks * limits.block_size + 1);
    let mut arrives_ms = 0;
    let lengths = drawn.iter().map(|&(gap, share, prompt_share)| {
        let total = between(2, longest, share);
        let prompt_tokens = between(1, total - 1, prompt_share);
        arrives_ms += gap;
        (arrives_ms, prompt_tokens, total - prompt_tokens)
    });
    let lengths: Vec<_> = lengths.chain([(1_000_000_000, 1, 1)]).collect();
    let submission = |(&(ms, prompt_tokens, output_tokens), id)| Submission {
        request: Request {
            id: RequestId(id),
            arrived_at: Timestamp::from_nanos(ms * 1_000_000),
            prompt_tokens,
            output_tokens: Some(output_tokens),
            max_tokens: Request::NO_CAP,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        },
        prompt: Vec::new(),
    };
    lengths.iter().zip(0..).map(submission).collect()
}

fn between(least: u32, most: u32, share: f64) -> u32 {
    #[expect(clippy::cast_sign_loss, reason = "a share is not below 0")]
    let more = (share * f64::from(most - least)).round() as u32;
    least + more
}

/// A share of what is possible; often all of it.
fn share() -> impl Strategy<Value = f64> {
    prop_oneof![Just(1.0), 0.0..=1.0_f64]
}

fn serve(
    policy: &PolicySpec,
    limits: Limits,
    depth: usize,
    submissions: Vec<Submission>,
) -> Result<Seen, TestCaseError> {
    let defaults = Defaults { limits, token_budget: 8 };
    let (mut scheduler, info) =
        Registry::default().build(policy, &defaults).expect("the policy is known");
    let engine = Engine { policy: &info.label, limits, max_concurrency: None, cost_model: None };
    let mut executor = Queued { executor: SimExecutor::new(Costs), depth };
    let count = submissions.len();
    let mut seen = Seen { tokens: vec![0; count], ends: vec![None; count], ..Seen::default() };
    let end = engine.run(&mut executor, scheduler.as_mut(), submissions, &mut seen);
    let end = end.map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(end, RunEnd::Complete, "{} did not come to an end", info.label);
    Ok(seen)
}

/// A request is whole, or rejected for what it needs; and the last one finds the pool empty.
fn check(
    seen: &Seen,
    limits: &Limits,
    policy: &PolicySpec,
    submissions: &[Submission],
) -> Result<(), TestCaseError> {
    let reserves_all = ["static", "orca"].contains(&policy.name.as_str());
    for (at, Submission { request, .. }) in submissions.iter().enumerate() {
        if seen.ends[at] == Some(EndStatus::Failed) {
            prop_assert!(seen.rejected.contains(&request.id));
            prop_assert_eq!(&policy.name, "vllm-v0");
            let needed = limits.blocks_for(request.total_tokens());
            prop_assert!(needed + limits.num_blocks / 100 > limits.num_blocks);
        } else {
            prop_assert_eq!(seen.ends[at], Some(EndStatus::Finished));
            prop_assert_eq!(Some(seen.tokens[at]), request.output_tokens);
        }
    }
    let held = if reserves_all { limits.longest_sequence() } else { 1 };
    prop_assert_eq!(seen.last_step.blocks_used, limits.blocks_for(held));
    prop_assert_eq!(seen.last_step.blocks_free, limits.num_blocks - limits.blocks_for(held));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_request_gets_its_tokens_or_is_rejected_and_no_block_is_lost(
        (block_size, num_blocks) in (1_u32..5, 1_u32..260),
        (max_num_seqs, max_model_len) in (1_u32..6, 2_u32..400),
        (budget, depth) in (1_u32..80, 1_usize..4),
        drawn in proptest::collection::vec((0_u64..300, share(), share()), 1..8),
    ) {
        let limits = Limits { block_size, num_blocks, max_num_seqs, max_model_len };
        let submissions = submissions(&limits, &drawn);
        let budgets = [
            "static".to_owned(),
            "orca".to_owned(),
            format!("vllm-v0:max_num_batched_tokens={budget}"),
            format!("sarathi:token_budget={budget}"),
        ];
        for policy in budgets {
            let policy: PolicySpec = policy.parse().expect("the policy parses");
            let seen = serve(&policy, limits, depth, submissions.clone())?;
            check(&seen, &limits, &policy, &submissions)?;
        }
    }
}
