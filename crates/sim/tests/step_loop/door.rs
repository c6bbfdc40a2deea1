//! What can't be served is refused before anything runs.

use metron_engine::{Engine, EngineError, Submission};
use metron_sim::SimExecutor;
use metron_trace::{Limits, RequestId};

use crate::support::{
    LIMITS, OneMillisecondAToken, Record, one_at_a_time, policy, run, submission,
};

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

/// Changes the second of two submissions, and compares the refusal's text.
fn check_refused(change: impl FnOnce(&mut Submission), expected: &str) {
    let mut submissions = vec![submission(0, 0, 4, 2), submission(1, 0, 4, 2)];
    change(&mut submissions[1]);
    let mut record = Record::default();
    let error = run(&mut policy(one_at_a_time), submissions, None, &mut record);
    assert_eq!(error.expect_err("it is refused").to_string(), expected);
    assert!(record.requests.is_empty(), "nothing was served before");
}

#[test]
fn ids_that_are_no_places_are_refused() {
    let expected = "request 0 is number 1 of the submissions, from 0; the ids must count them";
    check_refused(|second| second.request.id = RequestId(0), expected);
    let expected =
        "request 4294967295 is number 1 of the submissions, from 0; the ids must count them";
    check_refused(|second| second.request.id = RequestId(u32::MAX), expected);
}

#[test]
fn requests_without_a_prompt_or_an_output_are_refused() {
    let expected =
        "request 1 has an empty prompt, or is to get no output; both take at least one token";
    check_refused(|second| second.request.prompt_tokens = 0, expected);
    check_refused(|second| second.request.output_tokens = Some(0), expected);
    check_refused(
        |second| (second.request.output_tokens, second.request.max_tokens) = (None, 0),
        expected,
    );
}

#[test]
fn a_length_above_its_own_cap_is_refused() {
    check_refused(
        |second| second.request.max_tokens = 1,
        "request 1 is to get 2 output tokens, more than its cap of 1 (max_tokens); raise the cap",
    );
}

#[test]
fn token_ids_that_are_not_the_prompts_are_refused() {
    check_refused(
        |second| second.prompt = vec![1; 5],
        "request 1 has a prompt of 4 tokens, but comes with 5 token ids; give it as many, or none \
         in virtual time",
    );
}

#[test]
fn settings_of_zero_are_refused() {
    let no_blocks = Limits { block_size: 0, ..LIMITS };
    for (limits, max_concurrency, setting) in
        [(no_blocks, None, "block_size"), (LIMITS, Some(0), "max_concurrency")]
    {
        let engine = Engine { policy: "mine", limits, max_concurrency, cost_model: None };
        let mut executor = SimExecutor::new(OneMillisecondAToken);
        let submissions = [submission(0, 0, 4, 1)];
        let error = engine.run(&mut executor, &mut policy(one_at_a_time), submissions, &mut ());
        let expected = format!("{setting} is 0; it must be at least 1");
        assert_eq!(error.expect_err("it is refused").to_string(), expected);
    }
}
