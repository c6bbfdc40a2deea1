//! The step loop under policies that do everything a policy may do, and some that it may not.

use std::collections::BTreeMap;
use std::time::Duration;

use metron_engine::{
    CostModel, Engine, EngineError, Event, ObserverError, Planner, Refused, RunEnd, Scheduler,
    StepObserver, Submission, TextPiece, Wake,
};
use metron_sim::SimExecutor;
use metron_trace::{
    EndStatus, Limits, PreemptionCause, Request, RequestEnd, RequestId, Sampling, StepRecord,
    Timestamp, Token, Work, WorkKind,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const LIMITS: Limits = Limits { block_size: 4, num_blocks: 16, max_num_seqs: 3, max_model_len: 40 };

struct OneMillisecondAToken;

impl CostModel for OneMillisecondAToken {
    fn step_time(&self, work: &[Work]) -> Duration {
        Duration::from_millis(work.iter().map(|w| u64::from(w.tokens)).sum())
    }
}

/// Remembers everything.
#[derive(Default)]
struct Record {
    requests: Vec<Request>,
    steps: Vec<StepRecord>,
    tokens: Vec<Token>,
    ends: Vec<RequestEnd>,
    stop_after_steps: Option<usize>,
}

impl StepObserver for Record {
    fn arrived(&mut self, request: &Request) -> Result<(), ObserverError> {
        self.requests.push(request.clone());
        Ok(())
    }

    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.steps.push(step.clone());
        self.tokens.extend(tokens);
        Ok(())
    }

    fn ended(&mut self, end: &RequestEnd) -> Result<(), ObserverError> {
        self.ends.push(*end);
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.stop_after_steps.is_some_and(|most| self.steps.len() >= most)
    }
}

fn submission(id: u32, arrived_ms: u64, prompt_tokens: u32, output_tokens: u32) -> Submission {
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::from_nanos(arrived_ms * 1_000_000),
        prompt_tokens,
        output_tokens: Some(output_tokens),
        max_tokens: output_tokens,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}

fn run(
    scheduler: &mut dyn Scheduler,
    submissions: Vec<Submission>,
    max_concurrency: Option<u32>,
    record: &mut Record,
) -> Result<RunEnd, EngineError> {
    let engine = Engine { policy: "mine", limits: LIMITS, max_concurrency, cost_model: None };
    engine.run(&mut SimExecutor::new(OneMillisecondAToken), scheduler, submissions, record)
}

/// A policy that is a closure over the requests in progress, in order of arrival.
struct Policy<F> {
    requests: Vec<RequestId>,
    plan: F,
}

fn policy<F>(plan: F) -> Policy<F>
where
    F: FnMut(&mut Planner<'_>, &[RequestId]) -> Result<Wake, Refused> + Send,
{
    Policy { requests: Vec::new(), plan }
}

impl<F> Scheduler for Policy<F>
where
    F: FnMut(&mut Planner<'_>, &[RequestId]) -> Result<Wake, Refused> + Send,
{
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(view) => self.requests.push(view.id()),
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => self.requests.retain(|r| *r != id),
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        (self.plan)(plan, &self.requests)
    }
}

/// Admits and runs the oldest request alone, whole.
fn one_at_a_time(plan: &mut Planner<'_>, requests: &[RequestId]) -> Result<Wake, Refused> {
    if let Some(&id) = requests.first() {
        // Admitted already after its first step: the refusal changes nothing.
        let _ = plan.admit(id, 0, 0);
        plan.run(id, u32::MAX)?;
    }
    Ok(Wake::OnEvent)
}

#[test]
fn a_request_gets_its_first_token_from_its_prefill_and_the_others_one_a_step() {
    let mut record = Record::default();
    let end = run(&mut policy(one_at_a_time), vec![submission(0, 3, 5, 3)], None, &mut record);
    assert_eq!(end.unwrap(), RunEnd::Complete);
    let times: Vec<u64> = record.tokens.iter().map(|t| t.at.as_nanos() / 1_000_000).collect();
    assert_eq!(times, [8, 9, 10]);
    let kinds: Vec<WorkKind> = record.steps.iter().map(|s| s.work[0].kind).collect();
    assert_eq!(kinds, [WorkKind::Prefill, WorkKind::Decode, WorkKind::Decode]);
}

#[test]
fn in_a_closed_loop_the_next_request_arrives_when_one_ends() {
    let mut record = Record::default();
    let submissions = (0..3).map(|id| submission(id, 0, 4, 1)).collect();
    run(&mut policy(one_at_a_time), submissions, Some(1), &mut record).unwrap();
    let arrivals: Vec<u64> =
        record.requests.iter().map(|r| r.arrived_at.as_nanos() / 1_000_000).collect();
    assert_eq!(arrivals, [0, 4, 8]);
}

#[test]
fn a_run_that_is_stopped_accounts_for_every_request() {
    let mut record = Record { stop_after_steps: Some(2), ..Record::default() };
    let submissions =
        vec![submission(0, 0, 4, 1), submission(1, 0, 4, 9), submission(2, 60_000, 4, 1)];
    let end = run(&mut policy(one_at_a_time), submissions, None, &mut record);
    assert_eq!(end.unwrap(), RunEnd::Stopped);
    let statuses: Vec<EndStatus> = record.ends.iter().map(|end| end.status).collect();
    assert_eq!(statuses, [EndStatus::Finished, EndStatus::Cancelled, EndStatus::Unsent]);
    assert_eq!(record.requests.len(), 3);
}

#[test]
fn a_policy_may_wait_for_a_time() {
    let at = Timestamp::from_nanos(50_000_000);
    let mut patient =
        policy(
            move |plan, requests| {
                if plan.now() < at { Ok(Wake::At(at)) } else { one_at_a_time(plan, requests) }
            },
        );
    let mut record = Record::default();
    run(&mut patient, vec![submission(0, 0, 4, 1)], None, &mut record).unwrap();
    assert_eq!(record.steps[0].planned_at, at);
}

/// Runs a misbehaving policy against one request, and compares the error's text.
fn check_error(
    plan: impl FnMut(&mut Planner<'_>, &[RequestId]) -> Result<Wake, Refused> + Send,
    expected: &str,
) {
    let submissions = vec![submission(0, 0, 4, 3)];
    let error = run(&mut policy(plan), submissions, None, &mut Record::default());
    let error = error.expect_err("the policy misbehaves");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_policy_that_waits_for_ever_is_named() {
    check_error(
        |_, _| Ok(Wake::OnEvent),
        "policy `mine` is stalled in step 0: it planned nothing and set no time to wake, though \
         1 requests wait, 0 are running, nothing is in flight and 16 of 16 KV blocks are free",
    );
}

#[test]
fn a_wake_that_has_passed_is_a_stall() {
    check_error(
        |plan, _| Ok(Wake::At(plan.now())),
        "policy `mine` is stalled in step 0: it planned nothing and set no time to wake, though \
         1 requests wait, 0 are running, nothing is in flight and 16 of 16 KV blocks are free",
    );
}

#[test]
fn a_stall_names_what_was_refused_last() {
    check_error(
        |plan, requests| {
            let _ = plan.admit(requests[0], 40, 10);
            Ok(Wake::OnEvent)
        },
        "policy `mine` is stalled in step 0: it planned nothing and set no time to wake, though \
         1 requests wait, 0 are running, nothing is in flight and 16 of 16 KV blocks are free \
         (last refusal: request 0 needs 10 more KV blocks with 10 to be left free, but only 16 \
         are free)",
    );
}

#[test]
fn running_what_is_not_admitted_is_an_impossible_plan() {
    check_error(
        |plan, requests| plan.run(requests[0], 1).map(|_| Wake::OnEvent),
        "policy `mine` planned the impossible in step 0: request 0 is not admitted; admit it first",
    );
}

#[test]
fn running_a_request_that_never_arrived_is_an_impossible_plan() {
    check_error(
        |plan, _| plan.run(RequestId(9), 1).map(|_| Wake::OnEvent),
        "policy `mine` planned the impossible in step 0: request 9 is not in progress: it has not \
         arrived yet, or it has ended",
    );
}

#[test]
fn running_a_request_twice_in_a_step_is_an_impossible_plan() {
    check_error(
        |plan, requests| {
            plan.admit(requests[0], 4, 0)?;
            plan.run(requests[0], 2)?;
            plan.run(requests[0], 2).map(|_| Wake::OnEvent)
        },
        "policy `mine` planned the impossible in step 0: request 0 is in this plan already, or in \
         a batch in flight",
    );
}

#[test]
fn running_zero_tokens_is_an_impossible_plan() {
    check_error(
        |plan, requests| {
            plan.admit(requests[0], 4, 0)?;
            plan.run(requests[0], 0).map(|_| Wake::OnEvent)
        },
        "policy `mine` planned the impossible in step 0: request 0 was asked to run 0 tokens; \
         leave it out of the plan instead",
    );
}

#[test]
fn a_policy_that_panics_is_named() {
    check_error(
        |_, _| panic!("index out of bounds"),
        "policy `mine` panicked in step 0: index out of bounds",
    );
}

#[test]
fn a_request_that_can_never_fit_is_refused_before_the_run() {
    let too_long = vec![submission(0, 0, 38, 3)];
    let error = run(&mut policy(one_at_a_time), too_long, None, &mut Record::default());
    assert!(matches!(error, Err(EngineError::TooLong { tokens: 41, max_model_len: 40, .. })));

    let limits = Limits { num_blocks: 5, ..LIMITS };
    let engine = Engine { policy: "mine", limits, max_concurrency: None, cost_model: None };
    let run = |output| {
        engine.run(
            &mut SimExecutor::new(OneMillisecondAToken),
            &mut policy(one_at_a_time),
            vec![submission(0, 0, 18, output)],
            &mut Record::default(),
        )
    };
    assert!(matches!(run(4), Err(EngineError::NeverFits { needed: 6, num_blocks: 5, .. })));
    assert!(run(3).is_ok(), "20 positions are computed, and 5 blocks of 4 hold them");
}

#[test]
fn arrivals_that_go_back_are_refused() {
    let submissions = vec![submission(0, 5, 4, 1), submission(1, 4, 4, 1)];
    let error = run(&mut policy(one_at_a_time), submissions, None, &mut Record::default());
    assert!(matches!(error, Err(EngineError::ArrivalsGoBack { id: RequestId(1) })));
}

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
