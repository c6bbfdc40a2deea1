//! Metron on queues with known answers. `scripts/coverage.sh` prints the whole table.

#[path = "../../examples/coverage/experiments.rs"]
mod experiments;
#[path = "../../examples/coverage/objectives.rs"]
mod objectives;

use std::time::Duration;

use experiments::{
    CONTEST_PAIRS, CONTEST_REQUESTS, Contest, STATISTICS, called_different, coverage, mean_response,
};
use metron::engine::{CostModel, Engine, ObserverError, StepObserver, Submission, TextPiece};
use metron::schedulers::{Defaults, Registry};
use metron::sim::SimExecutor;
use metron::trace::{Limits, Request, RequestId, Sampling, StepRecord, Timestamp, Token, Work};
use objectives::Objected;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::queue::{self, Queue, Service, lindley};

const SERVICES: [Service; 2] = [Service::Exponential, Service::Constant];

/// Of 30 runs a queue; 2,000 are in `scripts/coverage.sh`.
#[test]
fn intervals_of_runs_that_are_long_enough_cover_the_truth() {
    let (mut accepted, mut covered, mut runs) = (0, 0, 0);
    for service in SERVICES {
        for (load, requests) in [(0.5, 30_000), (0.7, 112_500)] {
            for found in coverage(Queue { service, load }, requests, 0..30) {
                (accepted, covered, runs) =
                    (accepted + found.accepted, covered + found.covered, runs + 30);
            }
        }
    }
    assert!(f64::from(accepted) > 0.8 * f64::from(runs), "{accepted} of {runs} accepted");
    assert!(f64::from(covered) >= 0.92 * f64::from(accepted), "{covered} of {accepted} covered");
}

#[test]
fn a_run_near_saturation_is_called_too_short() {
    for service in SERVICES {
        let found = coverage(Queue { service, load: 0.9 }, 5_000, 0..100);
        for (name, found) in STATISTICS.iter().zip(found) {
            assert!(found.accepted <= 5, "{name} of {service:?}: {found:?}");
        }
    }
}

#[test]
fn a_slower_policy_is_found_and_equal_ones_are_not_told_apart() {
    let queue = Queue { service: Service::Exponential, load: 0.7 };
    let slower = Contest { queue, slowdown: 1.05, same_requests: true };
    let (_, worse) = called_different(slower, 0..50);
    assert!(worse >= 45, "{worse} of 50 found in {CONTEST_PAIRS} pairs of {CONTEST_REQUESTS}");
    for same_requests in [true, false] {
        let equal = Contest { queue, slowdown: 1.0, same_requests };
        let (different, _) = called_different(equal, 0..100);
        assert!(different <= 7, "{different} of 100 called different");
    }
}

/// At the edge either verdict is wrong. Of 200 samples each; runs of 60 and 300 requests are shorter
/// than the queue's memory at 0.9.
#[test]
fn an_objective_that_is_only_just_kept_is_rarely_decided() {
    let runs = [(0.7, 300, 1), (0.9, 300, 1), (0.8, 60, 2), (0.7, 200, 10), (0.5, 200, 20)];
    for (asked, kept) in [(0.9, 0.9), (0.99, 0.985)] {
        let (mut passed, mut failed) = (0, 0);
        for (load, requests, runs) in runs {
            let queue = Queue { service: Service::Exponential, load };
            let reached = Objected { queue, requests, runs, asked, kept }.reached(0..200);
            assert!(reached.pass <= 16, "{reached:?} of 200 at {load}, {runs} of {requests}");
            (passed, failed) = (passed + reached.pass, failed + reached.fail);
        }
        assert!(passed <= 50, "{passed} of 1000 passed");
        assert!(failed <= 50 || asked > kept, "{failed} of 1000 failed");
    }
}

#[test]
fn an_objective_that_is_well_kept_passes_and_one_that_is_not_fails() {
    let queue = Queue { service: Service::Exponential, load: 0.5 };
    let reached =
        |asked, kept| Objected { queue, requests: 2_000, runs: 1, asked, kept }.reached(0..100);
    assert!(reached(0.9, 0.99).pass >= 80, "{:?}", reached(0.9, 0.99));
    assert!(reached(0.9, 0.6).fail >= 95, "{:?}", reached(0.9, 0.6));
}

#[test]
fn the_queues_truths_agree_with_each_other() {
    for service in SERVICES {
        // Farther out than this, at 0.9, the terms of Erlang's series cancel each other.
        for load in [0.5, 0.7, 0.8] {
            let queue = Queue { service, load };
            // The mean is the integral of the share beyond.
            let beyond =
                (0..30_000).map(|at| 1.0 - queue.share_within(f64::from(at) * 1e-3 + 5e-4));
            let integral: f64 = beyond.sum::<f64>() * 1e-3;
            let tail = (1.0 - queue.share_within(30.0)) / (1.0 - load);
            let off = (integral + tail - mean_response(queue)).abs() / mean_response(queue);
            assert!(off < 0.02, "{} at {load}: off by {off}", queue.name());
            let median = queue.percentile(0.5);
            assert!(queue.share_within(median) >= 0.5 - 1e-9, "{median}");
        }
    }
}

/// A prompt's token takes a millisecond, so that a service time of 1 is a prompt of 1,000 tokens.
struct Server;

impl CostModel for Server {
    fn step_time(&self, work: &[Work]) -> Duration {
        Duration::from_millis(work.iter().map(|work| u64::from(work.tokens)).sum())
    }
}

/// When each request had its only token.
#[derive(Default)]
struct Answers(Vec<(RequestId, Timestamp)>);

impl StepObserver for Answers {
    fn stepped(
        &mut self,
        _: &StepRecord,
        tokens: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.0.extend(tokens.iter().map(|token| (token.request, token.at)));
        Ok(())
    }
}

/// A one-slot policy in virtual time, on requests of one output token, is the queue.
#[test]
fn the_engines_loop_serves_a_queue_as_lindley_has_it() {
    for service in SERVICES {
        for load in [0.5, 0.7, 0.8, 0.9] {
            let queue = Queue { service, load };
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let drawn = queue.requests(&mut rng).take(2_000);
            // A prompt is a whole number of tokens.
            let requests: Vec<(f64, f64)> =
                drawn.map(|(gap, service)| (gap, (service * 1e3).ceil() / 1e3)).collect();
            let expected = lindley(requests.iter().copied());
            let served = serve(&requests);
            assert_eq!(served.len(), expected.len());
            for (served, expected) in served.iter().zip(&expected) {
                let off = served - expected;
                assert!(off.abs() < 1e-5, "{} at {load}: {served}, not {expected}", queue.name());
            }
        }
    }
}

/// The response times of requests given as gaps and service times, in seconds.
fn serve(requests: &[(f64, f64)]) -> Vec<f64> {
    let limits =
        Limits { block_size: 16, num_blocks: 4_096, max_num_seqs: 1, max_model_len: 65_536 };
    let spec = "static".parse().expect("the policy parses");
    let defaults = Defaults { limits, token_budget: limits.max_model_len };
    let (mut policy, _) = Registry::default().build(&spec, &defaults).expect("it is known");
    let mut arrival = 0.0;
    let submissions: Vec<Submission> = requests
        .iter()
        .zip(0..)
        .map(|((gap, service), id)| {
            arrival += gap;
            submission(id, arrival, *service)
        })
        .collect();
    let arrivals: Vec<Timestamp> = submissions.iter().map(|s| s.request.arrived_at).collect();
    let engine = Engine { policy: "static", limits, max_concurrency: None, cost_model: None };
    let mut answers = Answers::default();
    engine
        .run(&mut SimExecutor::new(Server), policy.as_mut(), submissions, &mut answers)
        .expect("the run ends");
    answers.0.sort_unstable();
    answers.0.iter().zip(arrivals).map(|((_, at), arrived)| (*at - arrived).as_secs_f64()).collect()
}

fn submission(id: u32, arrival: f64, service: f64) -> Submission {
    #[expect(clippy::cast_sign_loss, reason = "a service time is above 0")]
    let prompt_tokens = (service * 1e3).round() as u32;
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::ZERO + Duration::from_secs_f64(arrival),
        prompt_tokens,
        output_tokens: Some(1),
        max_tokens: 1,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}
