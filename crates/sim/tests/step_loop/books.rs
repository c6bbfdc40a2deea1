//! The books balance, whatever a policy does.

use std::collections::BTreeMap;
use std::time::Duration;

use metron_engine::{Planner, Refused, RunEnd, Submission, Wake};
use metron_trace::{PreemptionCause, RequestId, WorkKind};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{LIMITS, Record, policy, run, submission};

/// Plans at random within the rules: admits, runs chunks, preempts, waits.
fn at_random(seed: u64) -> impl FnMut(&mut Planner<'_>, &[RequestId]) -> Result<Wake, Refused> {
    let mut rng = StdRng::seed_from_u64(seed);
    move |plan, requests| {
        for &id in requests {
            if rng.random_bool(0.1) {
                let _ = plan.preempt(id, PreemptionCause::Policy);
            }
            if rng.random_bool(0.7) {
                let _ = plan.admit(id, rng.random_range(0..20), rng.random_range(0..3));
            }
            if rng.random_bool(0.7) {
                let _ = plan.run(id, rng.random_range(1..12));
            }
            if rng.random_bool(0.05) {
                let _ = plan.preempt(id, PreemptionCause::Policy);
            }
        }
        Ok(Wake::At(plan.now() + Duration::from_millis(1)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever a policy does, nothing is lost, computed twice without a preemption, or leaked.
    #[test]
    fn the_books_balance_under_any_policy(
        seed in any::<u64>(),
        lengths in proptest::collection::vec((0_u64..30, 1_u32..20, 1_u32..8), 1..8),
    ) {
        let mut arrived = 0;
        let submissions: Vec<Submission> = lengths.iter().zip(0..).map(|(&(gap, prompt, output), id)| {
            arrived += gap;
            submission(id, arrived, prompt, output)
        }).collect();
        let mut record = Record::default();
        let mut scheduler = policy(at_random(seed));
        let end = run(&mut scheduler, submissions.clone(), None, &mut record);
        prop_assert_eq!(end.unwrap(), RunEnd::Complete);

        check_tokens(&submissions, &record)?;
        check_positions(&record)?;
        for step in &record.steps {
            prop_assert_eq!(step.blocks_used + step.blocks_free, LIMITS.num_blocks);
            prop_assert!(step.num_running <= LIMITS.max_num_seqs);
            prop_assert!(step.planned_at <= step.started_at && step.started_at <= step.ended_at);
        }
    }
}

/// Every request gets exactly its tokens, in order, and one end.
fn check_tokens(submissions: &[Submission], record: &Record) -> Result<(), TestCaseError> {
    for Submission { request, .. } in submissions {
        let own = record.tokens.iter().filter(|token| token.request == request.id);
        let indices: Vec<u32> = own.map(|token| token.index).collect();
        prop_assert_eq!(indices, (0..request.max_tokens).collect::<Vec<_>>());
    }
    let mut ended: Vec<u32> = record.ends.iter().map(|end| end.request.0).collect();
    ended.sort_unstable();
    prop_assert_eq!(ended, (0..submissions.len() as u32).collect::<Vec<_>>());
    Ok(())
}

/// Each sequence computes its positions in order; what it computes again it had lost before.
fn check_positions(record: &Record) -> Result<(), TestCaseError> {
    let mut computed: BTreeMap<RequestId, u32> = BTreeMap::new();
    let mut most: BTreeMap<RequestId, u32> = BTreeMap::new();
    for step in &record.steps {
        for preemption in &step.preemptions {
            // A sequence may be preempted twice in one plan: then it had nothing left to lose.
            let lost = computed.insert(preemption.request, 0).unwrap_or(0);
            prop_assert_eq!(preemption.tokens_lost, lost);
        }
        for work in &step.work {
            let at = computed.entry(work.request).or_default();
            prop_assert_eq!(work.context, *at);
            *at += work.tokens;
            let seen = most.entry(work.request).or_default();
            prop_assert_eq!(work.kind == WorkKind::Recompute, *at <= *seen);
            *seen = (*seen).max(*at);
        }
    }
    Ok(())
}
