//! No policy exceeds the bound: policies and workloads drawn at random, in virtual time.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use metron_engine::{Engine, Event, Planner, Refused, Scheduler, Submission, Wake};
use metron_lab::greatest_rate;
use metron_metrics::{
    CountingRule, DeadlineRule, FirstTokenRule, FluidityRule, Objectives, Scoring, judge_objectives,
};
use metron_schedulers::{Defaults, Registry};
use metron_sim::{AffineCost, CostFile, Piece, SimExecutor};
use metron_trace::{Limits, Request, RequestId, Sampling, Timestamp, Trace, Work, WorkKind};
use proptest::prelude::*;
use proptest::sample::select;
use support::header;

const LIMITS: Limits = Limits { block_size: 4, num_blocks: 64, max_num_seqs: 4, max_model_len: 64 };

/// Runs what an unending list of numbers says.
struct Arbitrary {
    numbers: std::iter::Cycle<std::vec::IntoIter<u32>>,
    waiting: Vec<RequestId>,
    running: Vec<RequestId>,
}

impl Arbitrary {
    fn new(numbers: Vec<u32>) -> Self {
        let numbers = numbers.into_iter().cycle();
        Self { numbers, waiting: Vec::new(), running: Vec::new() }
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.numbers.next().unwrap_or(0) % below.max(1)
    }
}

impl Scheduler for Arbitrary {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(view) => self.waiting.push(view.id()),
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => {
                self.waiting.retain(|other| *other != id);
                self.running.retain(|other| *other != id);
            }
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        // Whole lengths are reserved, so that nothing is ever stuck.
        while !self.waiting.is_empty() && self.draw(3) > 0 || self.running.is_empty() {
            let next = self.draw(self.waiting.len() as u32) as usize;
            let Some(&id) = self.waiting.get(next) else { break };
            if plan.admit(id, plan.limits().max_model_len, 0).is_err() {
                break;
            }
            self.running.push(id);
            self.waiting.remove(next);
        }
        for (at, id) in self.running.clone().into_iter().enumerate() {
            let tokens = self.draw(20);
            // One of them always runs.
            if tokens > 0 || at == 0 {
                plan.run(id, tokens.max(1))?;
            }
        }
        Ok(Wake::OnEvent)
    }
}

/// A request as the test draws it: the gap before it at one request a second, prompt, output.
type Drawn = (f64, u32, u32);

fn submissions(drawn: &[Drawn], rate: f64) -> Vec<Submission> {
    let mut now = 0.0;
    (0..)
        .zip(drawn)
        .map(|(id, &(gap, prompt_tokens, output_tokens))| {
            now += gap / rate;
            Submission {
                request: Request {
                    id: RequestId(id),
                    arrived_at: Timestamp::ZERO + Duration::from_secs_f64(now),
                    prompt_tokens,
                    output_tokens: Some(output_tokens),
                    max_tokens: output_tokens,
                    class: id % 2,
                    priority: 0,
                    deadlines: None,
                    sampling: Sampling::GREEDY,
                },
                prompt: Vec::new(),
            }
        })
        .collect()
}

/// Whether a policy keeps the objectives at a rate.
fn keeps(
    drawn: &[Drawn],
    rate: f64,
    policy: &mut dyn Scheduler,
    cost: &CostFile,
    scoring: &Scoring,
) -> bool {
    let engine =
        Engine { policy: "drawn", limits: LIMITS, max_concurrency: None, cost_model: Some(cost) };
    let mut trace = Trace {
        header: header(LIMITS, &classes()),
        requests: vec![],
        steps: vec![],
        tokens: vec![],
        ends: vec![],
    };
    let mut executor = SimExecutor::new(cost.clone());
    let end = engine.run(&mut executor, policy, submissions(drawn, rate), &mut trace);
    end.expect("the policy does nothing that it may not");
    judge_objectives(&[&trace], scoring).iter().all(|judged| judged.is_met() == Some(true))
}

fn classes() -> Vec<String> {
    ["even", "odd"].map(ToOwned::to_owned).to_vec()
}

fn scoring(texts: &[&str], counting: CountingRule) -> Scoring {
    let objectives = texts.iter().map(|text| text.parse().expect("an objective")).collect();
    Scoring {
        deadlines: DeadlineRule {
            first_token: FirstTokenRule::Fixed(Duration::from_millis(60)),
            next_token: Some(Duration::from_millis(15)),
        },
        class_deadlines: BTreeMap::new(),
        prefill: None,
        fluidity: FluidityRule { counting, ..FluidityRule::default() },
        stall_limit: Duration::MAX,
        rate_target: metron_metrics::RateTarget::default(),
        goodput: None,
        objectives: Objectives::new(objectives).expect("they stand together"),
    }
}

fn piece(up_to_tokens: Option<u32>, step_ms: f64, prefill_ms: f64, decode_ms: f64) -> Piece {
    let cost = AffineCost {
        step_ns: step_ms * 1e6,
        prefill_token_ns: prefill_ms * 1e6,
        decode_token_ns: decode_ms * 1e6,
        prefill_context_ns: 2e3,
        decode_context_ns: 3e3,
    };
    Piece { up_to_tokens, cost }
}

fn cost(pieces: Vec<Piece>) -> CostFile {
    CostFile { name: String::new(), source: String::new(), pieces }
}

/// 5 ms a step and 0.1 ms a token.
fn simple_cost() -> CostFile {
    cost(vec![piece(None, 5.0, 0.1, 0.1)])
}

const OBJECTIVES: [&[&str]; 6] = [
    &["e2el <= 200 ms for 80%"],
    &["ttft <= 50 ms for 90%"],
    &["ttft <= 50 ms for 90%", "tpot <= 20 ms for 90%"],
    &["ttft <= 100 ms for 99%", "tbt <= 20 ms for 99%"],
    &["fluidity_index >= 0.7 for 80%"],
    &["class odd: normalized_latency <= 30 ms for 75%", "class even: e2el <= 1 s for 100%"],
];

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    proptest::collection::vec((0.01..3.0_f64, 1..40_u32, 1..20_u32), 2..40)
}

fn bound(drawn: &[Drawn], cost: &CostFile, scoring: &Scoring) -> Option<f64> {
    let sum = |of: fn(&Drawn) -> u32| drawn.iter().map(of).sum();
    let work = |tokens, kind| Work { request: RequestId(0), context: 0, tokens, kind };
    let mix = [
        work(sum(|drawn| drawn.1), WorkKind::Prefill),
        work(sum(|drawn| drawn.2 - 1), WorkKind::Decode),
    ];
    let least = cost.least_prices(LIMITS.max_num_seqs, &mix);
    greatest_rate(&submissions(drawn, 1.0), 1.0, scoring, &classes(), &least)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_policy_keeps_its_objectives_above_the_bound(
        drawn in drawn(),
        numbers in proptest::collection::vec(0..1000_u32, 50),
        objectives in select(OBJECTIVES.to_vec()),
        counting in select(vec![CountingRule::Exact, CountingRule::Paper]),
        policy in select(vec!["drawn", "sarathi", "vllm-v0", "orca"]),
        (step_ms, prefill_ms, decode_ms) in (0.0..10.0_f64, 0.01..1.0_f64, 0.01..1.0_f64),
        above in 1.0001..3.0_f64,
    ) {
        let cost = cost(vec![
            piece(Some(16), step_ms, prefill_ms / 2.0, decode_ms),
            piece(None, step_ms / 2.0, prefill_ms, decode_ms),
        ]);
        let scoring = scoring(objectives, counting);
        if let Some(bound) = bound(&drawn, &cost, &scoring).filter(|bound| *bound > 0.0) {
            let mut policy: Box<dyn Scheduler> = match policy {
                "drawn" => Box::new(Arbitrary::new(numbers)),
                name => {
                    let defaults = Defaults { limits: LIMITS, token_budget: 16 };
                    let spec = name.parse().expect("a policy");
                    Registry::default().build(&spec, &defaults).expect("it is registered").0
                }
            };
            prop_assert!(!keeps(&drawn, bound * above, policy.as_mut(), &cost, &scoring));
        }
    }
}

/// The bound is no empty promise: orca reaches more than half of it where nothing is in the way.
#[test]
fn a_policy_comes_near_the_bound() {
    let drawn: Vec<Drawn> = vec![(1.0, 16, 8); 400];
    let cost = simple_cost();
    let scoring = scoring(OBJECTIVES[0], CountingRule::Exact);
    let bound = bound(&drawn, &cost, &scoring).expect("the objective bounds the end");
    let defaults = Defaults { limits: LIMITS, token_budget: 16 };
    let spec = "orca".parse().expect("a policy");
    let orca = || Registry::default().build(&spec, &defaults).expect("it is registered").0;
    let kept = |share: f64| keeps(&drawn, bound * share, orca().as_mut(), &cost, &scoring);
    assert!(kept(0.7), "{bound}");
    assert!(!kept(1.001));
}

/// Without an objective on a time after the arrival a policy may serve one request after the other.
#[test]
fn objectives_on_the_pace_alone_have_no_bound() {
    let drawn: Vec<Drawn> = vec![(1.0, 16, 8); 40];
    for texts in [["tbt <= 20 ms for 99%"], ["tpot <= 20 ms for 99%"]] {
        let scoring = scoring(&texts, CountingRule::Exact);
        assert_eq!(bound(&drawn, &simple_cost(), &scoring), None);
    }
    let scoring = scoring(OBJECTIVES[4], CountingRule::PerToken);
    assert_eq!(bound(&drawn, &simple_cost(), &scoring), None);
}
