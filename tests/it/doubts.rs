//! Doubts, each provoked by a run in virtual time that deserves it; and runs that deserve none.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metron::engine::{Batch, CostModel, Engine, Executor, ExecutorError, Outcome, Submission};
use metron::metrics::{Doubt, FirstTokenRule, GatheredDoubts, Objectives, RunOf, Scoring, doubts};
use metron::sim::SimExecutor;
use metron::trace::{
    Conditions, Limits, Origin, Request, RequestId, Sampling, Timestamp, Trace, Work,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use crate::blame::served::{COST, due, header, registered};

const LIMITS: Limits =
    Limits { block_size: 16, num_blocks: 4000, max_num_seqs: 16, max_model_len: 1024 };

/// Requests a second that the machine serves when it never has to wait for one.
fn capacity() -> f64 {
    static CAPACITY: OnceLock<f64> = OnceLock::new();
    *CAPACITY.get_or_init(|| {
        let trace = serve((0..800).map(|id| submission(id, 0.0)).collect(), Wrong::default());
        800.0 / trace.steps.last().expect("it ran").ended_at.as_secs_f64()
    })
}

/// The machine, slower than its costs in its first steps.
struct Slow {
    factor: u32,
    steps: u64,
    done: AtomicU64,
}

impl CostModel for Slow {
    fn step_time(&self, work: &[Work]) -> Duration {
        let is_slow = self.done.fetch_add(1, Ordering::Relaxed) < self.steps;
        COST.step_time(work) * if is_slow { self.factor } else { 1 }
    }
}

/// An executor that sleeps longer than it was asked to.
struct Sleepy {
    executor: SimExecutor<Slow>,
    oversleeps: Duration,
}

impl Executor for Sleepy {
    fn now(&self) -> Timestamp {
        self.executor.now()
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        self.executor.submit(batch)
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        let has_outcome = self.executor.next_outcome(until, outcome)?;
        if !has_outcome && !self.oversleeps.is_zero() {
            let later = self.executor.now() + self.oversleeps;
            return self.executor.next_outcome(Some(later), outcome);
        }
        Ok(has_outcome)
    }
}

/// What is wrong with a run.
#[derive(Clone, Copy, Default)]
struct Wrong {
    oversleeps: Duration,
    /// So many steps take so many times as long.
    slow: Option<(u64, u32)>,
}

/// Poisson arrivals at a share of the capacity, for so many seconds.
fn run(seed: u64, load: f64, seconds: f64, wrong: Wrong) -> Trace {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut at, mut submissions) = (0.0, Vec::new());
    loop {
        at += rng.sample::<f64, _>(Exp1) / (load * capacity());
        if at > seconds {
            break;
        }
        submissions.push(submission(submissions.len() as u32, at));
    }
    serve(submissions, wrong)
}

fn serve(submissions: Vec<Submission>, wrong: Wrong) -> Trace {
    let mut trace = Trace {
        header: header(&COST, LIMITS),
        requests: Vec::new(),
        steps: Vec::new(),
        tokens: Vec::new(),
        ends: Vec::new(),
    };
    let (steps, factor) = wrong.slow.unwrap_or_default();
    let slow = Slow { factor, steps, done: AtomicU64::new(0) };
    let mut executor = Sleepy { executor: SimExecutor::new(slow), oversleeps: wrong.oversleeps };
    let engine =
        Engine { policy: "orca", limits: LIMITS, max_concurrency: None, cost_model: Some(&COST) };
    engine
        .run(&mut executor, registered("orca", LIMITS).as_mut(), submissions, &mut trace)
        .expect("the run ends");
    trace
}

fn submission(id: u32, at: f64) -> Submission {
    let request = Request {
        id: RequestId(id),
        arrived_at: Timestamp::ZERO + Duration::from_secs_f64(at),
        prompt_tokens: 100,
        output_tokens: Some(20),
        max_tokens: 20,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    Submission { request, prompt: Vec::new() }
}

fn of(traces: &[Trace], scoring: &Scoring) -> Vec<Doubt> {
    let run = |(trace, replicate)| RunOf { policy: "orca", replicate, trace };
    let runs: Vec<RunOf<'_>> = traces.iter().zip(0..).map(run).collect();
    doubts(&runs, scoring).into_iter().map(|raised| raised.doubt).collect()
}

#[test]
fn runs_that_are_long_and_quiet_give_no_cause() {
    let runs: Vec<Trace> = (0..4).map(|seed| run(seed, 0.6, 120.0, Wrong::default())).collect();
    assert_eq!(of(&runs, &due(400, 40)), []);
}

#[test]
fn a_loop_that_oversleeps_sees_requests_late() {
    let wrong = Wrong { oversleeps: Duration::from_millis(30), ..Wrong::default() };
    let doubts = of(&[run(1, 0.2, 300.0, wrong)], &due(400, 40));
    let [Doubt::LateArrivals { late, of, worst_s }] = doubts[..] else { panic!("{doubts:?}") };
    assert!(late > of / 10 && (0.025..0.031).contains(&worst_s), "{late} of {of}: {worst_s}");
}

#[test]
fn a_run_without_warm_up_has_slow_first_steps() {
    let wrong = Wrong { slow: Some((5, 3)), ..Wrong::default() };
    let doubts = of(&[run(1, 0.5, 120.0, wrong)], &due(400, 40));
    let [Doubt::NoWarmUp { factor }] = doubts[..] else { panic!("{doubts:?}") };
    assert!((factor - 3.0).abs() < 0.01, "{factor}");
    let one_hiccup = Wrong { slow: Some((1, 9)), ..Wrong::default() };
    assert_eq!(of(&[run(1, 0.5, 120.0, one_hiccup)], &due(400, 40)), []);
}

/// Of 40 runs of 300 s each: an overload by a twentieth, and four fifths of the capacity.
#[test]
fn a_queue_that_grows_to_the_end_is_told_from_one_that_only_fluctuates() {
    let doubted = |load: f64| {
        let is_doubted = |seed: &u64| {
            let doubts = of(&[run(*seed, load, 300.0, Wrong::default())], &due(400, 40));
            doubts.iter().any(|doubt| matches!(doubt, Doubt::NotStationary { .. }))
        };
        (0..40).filter(is_doubted).count()
    };
    let (overloaded, loaded) = (doubted(1.05), doubted(0.8));
    assert!(overloaded >= 38, "{overloaded} of 40 overloaded runs");
    assert!(loaded <= 2, "{loaded} of 40 runs that keep up");
}

/// A search runs above the capacity on purpose; where a run passes nevertheless, it says so.
#[test]
fn a_queue_that_grows_is_a_doubt_about_runs_that_passed_and_not_about_those_that_failed() {
    let trace = run(1, 1.3, 300.0, Wrong::default());
    let run = RunOf { policy: "orca", replicate: 0, trace: &trace };
    let scoring = due(400, 40);
    let (mut passed, mut failed) = (GatheredDoubts::default(), GatheredDoubts::default());
    passed.add(&run, &scoring);
    failed.add_overloaded(&run, &scoring);
    let grows = |doubts: GatheredDoubts| {
        let doubts = doubts.of_runs_alone(&scoring);
        doubts.iter().any(|raised| matches!(raised.doubt, Doubt::NotStationary { .. }))
    };
    assert!(grows(passed) && !grows(failed));
}

/// Two of four runs of one policy grow, and one of the other's eight: a chance.
#[test]
fn a_policys_growing_queue_is_named_whatever_the_runs_of_the_others() {
    let load = |grows: bool| if grows { 1.3 } else { 0.5 };
    let of = |policy, seeds: u32, growing: u32| {
        (0..seeds).map(move |seed| {
            let trace = run(u64::from(seed), load(seed < growing), 120.0, Wrong::default());
            (policy, seed, trace)
        })
    };
    let traces: Vec<(&str, u32, Trace)> = of("static", 4, 2).chain(of("sarathi", 8, 1)).collect();
    let runs: Vec<RunOf<'_>> = traces
        .iter()
        .map(|(policy, replicate, trace)| RunOf { policy, replicate: *replicate, trace })
        .collect();
    let raised = doubts(&runs, &due(400, 40));
    let grows = |doubt: &Doubt| matches!(doubt, Doubt::NotStationary { .. });
    let [raised] = raised.iter().filter(|raised| grows(&raised.doubt)).collect::<Vec<_>>()[..]
    else {
        panic!("{raised:?}")
    };
    assert_eq!((raised.policies.as_slice(), raised.runs), (["static".to_owned()].as_slice(), 2));
}

#[test]
fn a_percentile_says_how_many_requests_it_takes() {
    let doubts = of(&[run(1, 0.5, 20.0, Wrong::default())], &due(400, 40));
    let [Doubt::TooFewRequests { share, have, need }] = doubts[..] else { panic!("{doubts:?}") };
    assert_eq!((share, need), (0.99, 368));
    assert!(have < need);
}

#[test]
fn an_objective_of_a_class_takes_requests_of_that_class() {
    let mut trace = run(1, 0.5, 600.0, Wrong::default());
    trace.header.classes = vec!["chat".to_owned(), "document".to_owned()];
    for request in &mut trace.requests {
        request.class = u32::from(request.id.0 % 20 == 0);
    }
    let scoring = |text: &str| {
        let objectives = Objectives::new(vec![text.parse().expect("an objective")]);
        Scoring { objectives: objectives.expect("it is alone"), ..due(400, 40) }
    };
    assert_eq!(of(&[trace.clone()], &scoring("class chat: ttft <= 9 s for 99%")), []);
    let doubts = of(&[trace], &scoring("class document: ttft <= 9 s for 99%"));
    let [Doubt::TooFewRequests { have, need, .. }] = doubts[..] else { panic!("{doubts:?}") };
    assert!(have < 200 && need == 368, "{have} of {need}");
}

#[test]
fn a_first_replicate_that_was_slower_is_named() {
    let slow = Wrong { slow: Some((u64::MAX, 2)), ..Wrong::default() };
    let runs = |first| {
        let wrong = |seed| if seed == first { slow } else { Wrong::default() };
        (0..4).map(|seed| run(seed, 0.4, 120.0, wrong(seed))).collect::<Vec<_>>()
    };
    let doubts = of(&runs(0), &due(400, 40));
    let [Doubt::FirstReplicateSlower { by }] = doubts[..] else { panic!("{doubts:?}") };
    assert!((by - 1.0).abs() < 0.01, "{by}");
    assert_eq!(of(&runs(2), &due(400, 40)), [], "another than the first");
}

#[test]
fn runs_in_virtual_time_that_repeat_each_other_are_named() {
    let runs = |origin| {
        let mut runs = [0, 1, 0, 1].map(|seed| run(seed, 0.4, 120.0, Wrong::default()));
        for run in &mut runs {
            run.header.origin = origin;
        }
        runs
    };
    let simulated = runs(Origin::Simulated);
    assert_eq!(of(&simulated, &due(400, 40)), [Doubt::RepeatedRequests { distinct: 2, of: 4 }]);
    assert_eq!(of(&simulated[..2], &due(400, 40)), [], "two that differ");
    assert_eq!(of(&runs(Origin::Measured), &due(400, 40)), [], "a machine varies by itself");
}

#[test]
fn predictions_outside_the_calibrated_lengths_and_off_the_curve_are_named() {
    let mut trace = run(1, 0.6, 120.0, Wrong::default());
    let calibration = trace.header.calibration.as_mut().expect("it has one");
    calibration.prefill.points = vec![(16, Duration::ZERO), (80, Duration::ZERO)];
    let mut scoring = due(400, 40);
    assert_eq!(of(&[trace.clone()], &scoring), [], "no deadline is predicted");
    scoring.deadlines.first_token = FirstTokenRule::PredictedPlus(Duration::from_millis(300));
    let requests = trace.requests.len();
    let extrapolated = Doubt::Extrapolated { requests, prompt_tokens: 100, range: (16, 80) };
    assert_eq!(of(&[trace.clone()], &scoring), [extrapolated]);
    let calibration = trace.header.calibration.as_mut().expect("it has one");
    calibration.prefill.points = vec![(16, Duration::ZERO), (96, Duration::ZERO)];
    calibration.prefill.relative_residual = 0.2;
    assert_eq!(of(&[trace], &scoring), [Doubt::CalibrationResiduals { residual: 0.2 }]);
}

/// A clock of whole milliseconds, recording that takes a fiftieth, and a machine that swaps.
#[test]
fn a_machine_is_doubted_where_times_are_measured_and_never_in_virtual_time() {
    let mut trace = run(1, 0.6, 120.0, Wrong::default());
    trace.header.machine.conditions = Some(Conditions {
        watched: Duration::from_secs(120),
        swapped_pages: Some(9000),
        ..Conditions::default()
    });
    let ms = |at: Timestamp| Timestamp::from_nanos(at.as_nanos() / 1_000_000 * 1_000_000);
    for step in &mut trace.steps {
        step.planned_at = ms(step.planned_at);
        let ended_at = ms(step.ended_at);
        step.ended_at = Timestamp::ZERO + (ended_at - Timestamp::from_nanos(1_000_000));
    }
    for end in &mut trace.ends {
        end.ended_at = ms(end.ended_at);
    }
    assert_eq!(of(&[trace.clone()], &due(400, 40)), [], "virtual time has no machine");
    trace.header.origin = Origin::Measured;
    let doubts = of(&[trace], &due(400, 40));
    let [
        Doubt::Swap { pages: 9000 },
        Doubt::ClockResolution { tick_s, .. },
        Doubt::ObserverCost { share },
    ] = doubts[..]
    else {
        panic!("{doubts:?}")
    };
    assert!((tick_s - 1e-3).abs() < 1e-9 && share > 0.01, "{tick_s}, {share}");
}
