//! What goes wrong in a policy or an executor is an error that says what, and in which step.

use metron_engine::{Engine, Event, Executor, Planner, Refused, Scheduler, Wake};
use metron_trace::{PreemptionCause, RequestId};

use crate::support::{LIMITS, Odd, Record, one_at_a_time, policy, run, submission};

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
         nothing is in flight (waiting: 1, running: 0, free KV blocks: 16 of 16)",
    );
}

#[test]
fn a_wake_that_has_passed_is_a_stall() {
    check_error(
        |plan, _| Ok(Wake::At(plan.now())),
        "policy `mine` is stalled in step 0: it planned nothing and asked to be woken at a time \
         that has passed, though nothing is in flight (waiting: 1, running: 0, free KV blocks: 16 of 16)",
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
         nothing is in flight (waiting: 1, running: 0, free KV blocks: 16 of 16); last refusal: \
         request 0 needs 10 more KV blocks with 10 to be left free, but only 16 are free",
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

type Kind = fn(&Event<'_>) -> bool;

/// Panics when it is told of an event of this kind.
struct Touchy(Kind);

impl Scheduler for Touchy {
    fn observe(&mut self, event: Event<'_>) {
        assert!(!(self.0)(&event), "what was that?");
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        one_at_a_time(plan, &[RequestId(0)])
    }
}

#[test]
fn a_policy_that_panics_when_it_is_told_something_is_named() {
    let kinds: [(Kind, u64); 3] = [
        (|event| matches!(event, Event::Arrived(_)), 0),
        (|event| matches!(event, Event::Stepped(_)), 1),
        (|event| matches!(event, Event::Finished(_)), 1),
    ];
    for (kind, step) in kinds {
        let submissions = vec![submission(0, 0, 4, 1)];
        let error = run(&mut Touchy(kind), submissions, None, &mut Record::default());
        let expected = format!("policy `mine` panicked in step {step}: what was that?");
        assert_eq!(error.expect_err("it panics").to_string(), expected);
    }
}

#[test]
fn a_policy_that_preempts_in_a_circle_is_named() {
    check_error(
        |plan, requests| {
            let id = requests[0];
            if plan.admit(id, 4, 0).is_err() {
                plan.preempt(id, PreemptionCause::Policy)?;
                plan.admit(id, 4, 0)?;
            }
            plan.run(id, 1).map(|_| Wake::OnEvent)
        },
        "policy `mine` makes no progress in step 65: since anybody last got a token it has \
         preempted 65 times, with 1 requests in progress; what it admits must run until it has \
         its token",
    );
}

#[test]
fn a_policy_that_preempts_in_a_circle_and_runs_nothing_is_named() {
    check_error(
        |plan, requests| {
            plan.admit(requests[0], 4, 0)?;
            plan.preempt(requests[0], PreemptionCause::Policy).map(|()| Wake::OnEvent)
        },
        "policy `mine` makes no progress in step 0: since anybody last got a token it has \
         preempted 65 times, with 1 requests in progress; what it admits must run until it has \
         its token",
    );
}

#[test]
fn an_executor_that_mixes_up_its_tokens_is_found_out() {
    let engine = Engine { policy: "mine", limits: LIMITS, max_concurrency: None, cost_model: None };
    let mut executor = Odd::new(|executor, until, outcome| {
        let is_there = executor.next_outcome(until, outcome)?;
        outcome.tokens.iter_mut().for_each(|token| token.request = RequestId(7));
        Ok(is_there)
    });
    let submissions = [submission(0, 0, 4, 1)];
    let error = engine.run(&mut executor, &mut policy(one_at_a_time), submissions, &mut ());
    let expected = "step 0 sampled a token for request 7 where request 0 is next in the batch";
    assert_eq!(error.expect_err("it is wrong").to_string(), expected);
}
