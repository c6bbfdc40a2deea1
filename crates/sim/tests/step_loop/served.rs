//! What the loop does for a policy.

use std::cell::Cell;
use std::time::Duration;

use metron_engine::{Engine, Executor, Refused, RunEnd, StepObserver, Submission, Wake};
use metron_sim::SimExecutor;
use metron_trace::{EndStatus, Limits, PreemptionCause, Request, Timestamp, WorkKind};

use crate::support::{
    LIMITS, Odd, OneMillisecondAToken, Record, one_at_a_time, policy, run, submission,
};

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

#[test]
fn a_plan_that_only_preempts_is_followed_by_another_at_once() {
    let later = Timestamp::from_nanos(10_000_000_000);
    for wake in [Wake::OnEvent, Wake::At(later)] {
        check_preemption_alone(wake, later);
    }
}

fn check_preemption_alone(wake: Wake, later: Timestamp) {
    let mut preempted = false;
    let mut cautious = policy(move |plan, requests| {
        let Some(&id) = requests.first() else { return Ok(Wake::OnEvent) };
        if !preempted && plan.view(id).is_some_and(|view| view.generated() == 1) {
            preempted = true;
            return plan.preempt(id, PreemptionCause::Policy).map(|()| wake);
        }
        one_at_a_time(plan, requests)
    });
    let mut record = Record::default();
    run(&mut cautious, vec![submission(0, 0, 4, 2)], None, &mut record).expect("it serves");
    let preempted = record.steps.iter().map(|step| step.preemptions.len());
    assert_eq!(preempted.collect::<Vec<_>>(), [0, 1], "the step that follows has the preemption");
    assert!(record.steps[1].planned_at < later, "nobody waited");
}

#[test]
fn a_rejected_request_ends_as_failed_and_its_blocks_and_its_client_are_free() {
    let mut choosy = policy(|plan, requests| {
        if let Some(&id) = requests.first() {
            let _ = plan.admit(id, 4, 0);
            plan.run(id, 4)?;
            if id.0 == 0 {
                plan.reject(id, "nobody may ask for so little")?;
                assert_eq!((plan.tokens(), plan.free_blocks()), (0, LIMITS.num_blocks));
                assert_eq!(plan.run(id, 1), Err(Refused::Unknown { id }));
            }
        }
        Ok(Wake::OnEvent)
    });
    let mut record = Record::default();
    let submissions = (0..2).map(|id| submission(id, 0, 4, 1)).collect();
    run(&mut choosy, submissions, Some(1), &mut record).unwrap();
    let statuses: Vec<EndStatus> = record.ends.iter().map(|end| end.status).collect();
    assert_eq!(statuses, [EndStatus::Failed, EndStatus::Finished]);
    assert_eq!(record.rejected, ["request 0: nobody may ask for so little"]);
    assert_eq!(record.steps.len(), 1, "the rejected request was never run");
}

/// The length is drawn as 3, and the context has room for 36 tokens behind the prompt.
#[test]
fn a_policy_sees_what_fits_the_context_where_the_client_sent_no_cap() {
    let mut curious = policy(|plan, requests| {
        if let Some(view) = requests.first().and_then(|id| plan.view(*id)) {
            assert_eq!(view.max_tokens(), 36);
        }
        one_at_a_time(plan, requests)
    });
    let mut uncapped = submission(0, 0, 4, 3);
    uncapped.request.max_tokens = Request::NO_CAP;
    let mut record = Record::default();
    run(&mut curious, vec![uncapped], None, &mut record).unwrap();
    assert_eq!((record.tokens.len(), record.requests[0].max_tokens), (3, 36));
}

/// Such a request ends at an end of sequence, or where the context or the pool does.
#[test]
fn a_request_without_a_length_and_a_cap_gets_what_fits_the_context_and_the_pool() {
    for (num_blocks, fits) in [(16, 36), (8, 29)] {
        let mut uncapped = submission(0, 0, 4, 1);
        uncapped.request.output_tokens = None;
        uncapped.request.max_tokens = Request::NO_CAP;
        let engine = Engine { limits: Limits { num_blocks, ..LIMITS }, ..ENGINE };
        let mut record = Record::default();
        let mut executor = SimExecutor::new(OneMillisecondAToken);
        let mut policy = policy(one_at_a_time);
        engine.run(&mut executor, &mut policy, [uncapped], &mut record).unwrap();
        assert_eq!((record.tokens.len(), record.requests[0].max_tokens), (fits, fits as u32));
    }
}

/// Never sleeps longer than 10 ms at a time.
fn restless() -> Odd {
    Odd::new(|executor, until, outcome| {
        let nap = executor.now() + Duration::from_millis(10);
        executor.next_outcome(until.map(|until| until.min(nap)), outcome)
    })
}

/// Stops a run when it has been asked a number of times.
struct StopsAt(u32, Cell<u32>);

impl StepObserver for StopsAt {
    fn wants_stop(&self) -> bool {
        self.1.set(self.1.get() + 1);
        self.1.get() >= self.0
    }
}

const ENGINE: Engine<'_> =
    Engine { policy: "mine", limits: LIMITS, max_concurrency: None, cost_model: None };

#[test]
fn a_run_can_be_stopped_while_it_waits_for_an_arrival() {
    let mut executor = restless();
    let far: [Submission; 1] = [submission(0, 100_000, 4, 1)];
    let mut observer = StopsAt(3, Cell::new(0));
    let end = ENGINE.run(&mut executor, &mut policy(one_at_a_time), far, &mut observer);
    assert_eq!(end.unwrap(), RunEnd::Stopped);
    assert!(executor.now() < Timestamp::from_nanos(100_000_000), "{}", executor.now());
}

#[test]
fn a_policy_that_waits_is_not_asked_again_because_the_executor_wakes_early() {
    let mut executor = restless();
    let (at, mut plans) = (Timestamp::from_nanos(95_000_000), 0);
    let mut patient = policy(|plan, requests| {
        plans += 1;
        if plan.now() < at { Ok(Wake::At(at)) } else { one_at_a_time(plan, requests) }
    });
    let mut record = Record::default();
    ENGINE.run(&mut executor, &mut patient, [submission(0, 0, 4, 1)], &mut record).unwrap();
    assert_eq!((plans, record.steps[0].planned_at), (2, at));
}
