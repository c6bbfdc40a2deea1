//! A run that fails loses none of the others.

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use metron_engine::{
    Event, Executor, ExecutorError, Planner, Refused, RunEnd, Scheduler, Submission, Wake,
};
use metron_lab::{
    CapacitySetting, Contestant, LabError, Repeating, Replicates, Requests, Rig, SearchPlan,
    Setting, capacities, compare,
};
use metron_metrics::{DeadlineRule, FluidityRule, Judging, Objectives, Scoring};
use metron_schedulers::{Defaults, Registry};
use metron_sim::{AffineCost, SimExecutor};
use metron_trace::{Limits, PolicyInfo, Request, RequestId, Sampling, Timestamp};
use support::header;

const LIMITS: Limits = Limits { block_size: 4, num_blocks: 64, max_num_seqs: 4, max_model_len: 64 };

const COST: AffineCost = AffineCost {
    step_ns: 1e6,
    prefill_token_ns: 1e5,
    decode_token_ns: 1e5,
    prefill_context_ns: 0.0,
    decode_context_ns: 0.0,
};

struct Virtual(SimExecutor<AffineCost>);

impl Rig for Virtual {
    fn start(&mut self) -> Result<&mut dyn Executor, ExecutorError> {
        self.0 = SimExecutor::new(COST);
        Ok(&mut self.0)
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn ordinary_token_ids(&self) -> &[u32] {
        &[]
    }
}

struct Silent;

impl metron_engine::StepObserver for Silent {}
impl metron_lab::Watch for Silent {}

struct Panics;

impl Scheduler for Panics {
    fn observe(&mut self, _event: Event<'_>) {}

    fn plan(&mut self, _plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        panic!("as the test wants it")
    }
}

/// A policy whose run of a number, from 0, panics.
fn panics_in_run(number: u32) -> Contestant {
    let registry = Registry::default();
    let spec = "orca".parse().expect("a policy");
    let defaults = Defaults { limits: LIMITS, token_budget: 16 };
    let runs = Cell::new(0);
    let make = move || -> Box<dyn Scheduler> {
        runs.set(runs.get() + 1);
        if runs.get() > number {
            return Box::new(Panics);
        }
        registry.build(&spec, &defaults).expect("orca can be built").0
    };
    let label = "mine".to_owned();
    let info = PolicyInfo { label: label.clone(), name: label, options: serde_json::Value::Null };
    Contestant { info, make: Box::new(make) }
}

fn workload(rate: f64) -> Requests {
    let request = |id: u32| Request {
        id: RequestId(id),
        arrived_at: Timestamp::ZERO + Duration::from_secs_f64(f64::from(id) / rate),
        prompt_tokens: 8,
        output_tokens: Some(4),
        max_tokens: 4,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    let submission = |id| Submission { request: request(id), prompt: Vec::new() };
    Requests { submissions: (0..20).map(submission).collect(), dropped: 0, truncated: 0 }
}

fn scoring() -> Scoring {
    let objective = "e2el <= 20 ms for 90%".parse().expect("an objective");
    Scoring {
        deadlines: DeadlineRule::RECORDED,
        prefill: None,
        fluidity: FluidityRule::default(),
        stall_limit: Duration::MAX,
        rate_target: metron_metrics::RateTarget::default(),
        goodput: None,
        class_deadlines: BTreeMap::new(),
        objectives: Objectives::new(vec![objective]).expect("there is one"),
    }
}

fn search(output: &Path, contestant: Contestant) -> Result<metron_lab::Found, LabError> {
    search_all(output, &[contestant])
}

fn search_all(output: &Path, contestants: &[Contestant]) -> Result<metron_lab::Found, LabError> {
    let range = [1.0, 1000.0];
    let setting = CapacitySetting {
        scoring: &scoring(),
        cost_model: &COST,
        least: &COST,
        plan: SearchPlan { probability: 0.5, confidence: 0.95, replicates: 10, start: 50.0, range },
        expected: &[],
        classes: &[],
        header: &|_| header(LIMITS, &[]),
        workload: &|rate, _| Ok(workload(rate)),
        output,
    };
    capacities(&mut Virtual(SimExecutor::new(COST)), &setting, contestants, &mut Silent)
}

#[test]
fn a_search_reports_what_runs_have_told_before_one_failed_and_goes_on_from_there() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let found = search(dir.path(), panics_in_run(7)).expect("seven runs stand");
    assert_eq!((found.end, found.runs), (RunEnd::Stopped, 7));
    assert_eq!(found.capacities[0].probes.len(), 7);
    let failed = found.failure.expect("the eighth").to_string();
    assert!(failed.starts_with("mine, replicate ") && failed.contains("requests/s: "), "{failed}");
    assert!(failed.contains("panicked in step 0: as the test wants it"), "{failed}");
    let found = search(dir.path(), panics_in_run(u32::MAX)).expect("it goes on");
    assert_eq!((found.end, found.saved, found.failure.is_none()), (RunEnd::Complete, 7, true));
}

#[test]
fn a_search_does_not_replace_a_whole_run_of_other_options() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let first = search(dir.path(), panics_in_run(u32::MAX)).expect("it ends");
    let mut other = panics_in_run(u32::MAX);
    other.info.options = serde_json::json!({ "token_budget": 8 });
    let refused = search(dir.path(), other).expect_err("the run's place is taken");
    assert!(matches!(refused, LabError::AnothersTrace { ref label, .. } if label == "mine"));
    let again = search(dir.path(), panics_in_run(u32::MAX)).expect("nothing was lost");
    assert_eq!((again.runs, again.saved), (0, first.runs));
}

#[test]
fn policies_that_would_destroy_each_others_traces_are_refused_before_any_runs() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let named = |label: &str| {
        let mut contestant = panics_in_run(u32::MAX);
        contestant.info.label = label.to_owned();
        contestant
    };
    let refused = search_all(dir.path(), &[named("a b"), named("A_b")]).expect_err("they collide");
    assert!(matches!(refused, LabError::SameFiles(_)), "{refused}");
    assert!(!dir.path().join("probes").exists());
}

#[test]
fn a_search_whose_first_run_fails_has_nothing_to_report() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    assert!(search(dir.path(), panics_in_run(0)).is_err());
}

#[test]
fn a_comparison_keeps_the_replicates_before_one_that_failed() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let setting = Setting {
        header: &header(LIMITS, &[]),
        cost_model: Some(&COST),
        max_concurrency: None,
        output: dir.path(),
    };
    let (scoring, judging) = (scoring(), Judging::default());
    let repeating =
        Repeating { replicates: Replicates::Exactly(5), scoring: &scoring, judging: &judging };
    let mut rig = Virtual(SimExecutor::new(COST));
    let workload = |_| Ok(workload(10.0));
    let mut compared =
        |contestant| compare(&mut rig, &setting, &[contestant], repeating, &workload, &mut Silent);
    let comparing = compared(panics_in_run(2)).expect("two replicates stand");
    assert_eq!((comparing.end, comparing.runs.len()), (RunEnd::Stopped, 2));
    let failed = comparing.failure.expect("the third").to_string();
    assert!(failed.starts_with("mine, replicate 3: "), "{failed}");
}
