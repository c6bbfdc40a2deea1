//! A run made for each cause of missed deadlines: the cause is found, and the same workload without
//! it brings back what was attributed.

pub(crate) mod served;

use std::collections::BTreeMap;
use std::time::Duration;

use metron_metrics::{
    Blame, Cause, CountingRule, FluidityRule, Scoring, blame, explain, summarise,
};
use metron_report::explanation_text;
use metron_sim::AffineCost;
use metron_trace::{Limits, RequestId, Trace};
use proptest::prelude::*;

use served::{Arrival, COST, Fickle, LIMITS, Machine, due, registered, serve};

/// What the counterfactual run brings back is what was attributed, within this share of it.
const TOLERANCE: f64 = 0.05;

fn blame_of(trace: &Trace, request: u32, scoring: &Scoring) -> Blame {
    let story = explain(trace, RequestId(request), scoring).expect("the request is there");
    story.estimated_blame.expect("the trace has a calibration")
}

fn lateness(blame: &Blame, causes: &[Cause]) -> u64 {
    let own = blame.causes.iter().filter(|own| causes.contains(&own.cause));
    own.map(|own| own.lateness_ns).sum()
}

/// A request's lateness is these causes', and without them it is gone.
fn check(causes: &[Cause], with: &Trace, without: &Trace, request: u32, scoring: &Scoring) {
    let blame = blame_of(with, request, scoring);
    let attributed = lateness(&blame, causes);
    let brought_back = blame.lateness_ns - blame_of(without, request, scoring).lateness_ns;
    assert!(attributed > 0, "nothing was late: {blame:?}");
    for (what, ns) in [("all lateness", blame.lateness_ns), ("brought back", brought_back)] {
        let off = (ns as f64 / attributed as f64 - 1.0).abs();
        assert!(off <= TOLERANCE, "{what} is {ns}, {attributed} was attributed: {blame:?}");
    }
}

fn served(policy: &str, limits: Limits, arrivals: &[Arrival]) -> Trace {
    costing(COST, policy, limits, arrivals)
}

fn costing(cost: AffineCost, policy: &str, limits: Limits, arrivals: &[Arrival]) -> Trace {
    serve(Machine::costing(cost), registered(policy, limits).as_mut(), limits, arrivals)
}

#[test]
fn a_request_that_waited_for_a_slot_blames_the_queue() {
    let slots = |max_num_seqs| {
        let limits = Limits { max_num_seqs, ..LIMITS };
        served("orca", limits, &[(0, 10, 50), (100, 10, 5)])
    };
    check(&[Cause::Queue], &slots(1), &slots(2), 1, &due(100, 50));
}

/// In the same step, as orca has it, or in a step instead of the decode's own, as vllm-v0 has it.
#[test]
fn a_decode_that_stalls_for_a_long_prompt_blames_its_prefill() {
    for policy in ["orca", "vllm-v0"] {
        let with = served(policy, LIMITS, &[(0, 10, 40), (100, 400, 1)]);
        let without = served(policy, LIMITS, &[(0, 10, 40)]);
        check(&[Cause::Prefill], &with, &without, 0, &due(20, 11));
    }
}

/// Sixteen requests at once, whose decodes are dear.
fn batches_of(max_num_seqs: u32) -> Trace {
    let (cost, limits) =
        (AffineCost { decode_token_ns: 5e6, ..COST }, Limits { max_num_seqs, ..LIMITS });
    costing(cost, "orca", limits, &[(0, 1, 30); 16])
}

fn decodes_due(next_ms: u64) -> Scoring {
    let fluidity = FluidityRule { with_first_token: false, ..FluidityRule::default() };
    Scoring { fluidity, ..due(0, next_ms) }
}

#[test]
fn a_decode_in_too_large_a_batch_blames_its_growth() {
    check(&[Cause::BatchGrowth], &batches_of(16), &batches_of(1), 0, &decodes_due(40));
}

fn preempted_at(preempts_at: Option<u32>) -> Trace {
    serve(Machine::costing(COST), &mut Fickle { preempts_at }, LIMITS, &[(0, 400, 20)])
}

#[test]
fn a_request_preempted_for_no_reason_blames_recomputation() {
    let (with, without) = (preempted_at(Some(5)), preempted_at(None));
    check(&[Cause::Recomputation], &with, &without, 0, &due(410, 11));
}

fn pool_of(num_blocks: u32, arrivals: &[Arrival]) -> Trace {
    served("sarathi", Limits { num_blocks, ..LIMITS }, arrivals)
}

/// The second needs 13 of the blocks that the first holds.
const LARGE: [Arrival; 2] = [(0, 500, 60), (600, 200, 5)];

#[test]
fn a_request_that_waited_for_blocks_blames_their_shortage() {
    check(&[Cause::Blocks], &pool_of(40, &LARGE), &pool_of(400, &LARGE), 1, &due(300, 50));
}

#[test]
fn a_request_preempted_for_want_of_blocks_blames_them_and_its_recomputation() {
    let growing = [(0, 100, 200), (0, 100, 200)];
    let (tight, roomy) = (pool_of(26, &growing), pool_of(100, &growing));
    let scoring = due(250, 12);
    check(&[Cause::Blocks, Cause::Recomputation], &tight, &roomy, 1, &scoring);
    let blame = blame_of(&tight, 1, &scoring);
    for cause in [Cause::Blocks, Cause::Recomputation] {
        assert!(lateness(&blame, &[cause]) > blame.lateness_ns / 10, "{cause:?}: {blame:?}");
    }
}

/// One request alone.
const ALONE: [Arrival; 1] = [(0, 10, 30)];

fn alone_on(machine: Machine) -> Trace {
    serve(machine, registered("orca", LIMITS).as_mut(), LIMITS, &ALONE)
}

fn thinking(ms: u64) -> Trace {
    let machine = Machine::costing(COST);
    let mut policy = machine.thinking("orca", LIMITS, Duration::from_millis(ms));
    serve(machine, &mut policy, LIMITS, &ALONE)
}

#[test]
fn a_policy_that_thinks_too_long_is_blamed_itself() {
    check(&[Cause::Scheduler], &thinking(30), &thinking(0), 0, &due(60, 15));
}

fn preparing(ms: u64) -> Trace {
    alone_on(Machine::costing(COST).preparing(Duration::from_millis(ms)))
}

#[test]
fn an_executor_that_is_slow_to_build_batches_blames_the_engine() {
    check(&[Cause::Engine], &preparing(30), &preparing(0), 0, &due(60, 15));
}

#[test]
fn a_deadline_that_a_lone_request_can_not_meet_blames_the_model() {
    let (slow, fast) = (COST, AffineCost { step_ns: 4e6, ..COST });
    let [slow, fast] = [slow, fast].map(|cost| alone_on(Machine::costing(cost)));
    check(&[Cause::Model], &slow, &fast, 0, &due(20, 5));
}

fn hiccuping(ms: u64) -> Trace {
    alone_on(Machine::costing(COST).hiccuping(5, Duration::from_millis(ms)))
}

#[test]
fn a_step_slower_than_its_contents_is_unexplained() {
    check(&[Cause::Unexplained], &hiccuping(200), &hiccuping(0), 0, &due(20, 11));
}

/// A request that arrives in the middle of a step waits for that, however many blocks are taken.
#[test]
fn a_long_step_is_no_shortage_of_blocks() {
    let trace = pool_of(34, &[(0, 500, 1), (1, 20, 1)]);
    let blame = blame_of(&trace, 1, &due(50, 50));
    assert_eq!(lateness(&blame, &[Cause::Queue]), blame.lateness_ns);
}

#[test]
fn a_trace_without_a_calibration_blames_nobody() {
    let mut trace = served("orca", LIMITS, &[(0, 10, 5)]);
    trace.header.calibration = None;
    assert_eq!(blame(&[&trace], &due(1, 1)), None);
    let story = explain(&trace, RequestId(0), &due(1, 1)).expect("the request is there");
    assert_eq!((story.late.len(), story.estimated_blame), (5, None));
}

#[test]
fn a_story_names_the_steps_and_the_requests() {
    let trace = served("orca", LIMITS, &[(0, 10, 14), (30, 10, 9), (100, 400, 1)]);
    let story = explain(&trace, RequestId(0), &due(20, 12)).expect("the request is there");
    insta::assert_snapshot!(explanation_text("orca", &story));
}

#[test]
fn a_story_of_waiting_says_behind_whom() {
    let limits = Limits { max_num_seqs: 1, ..LIMITS };
    let trace = served("orca", limits, &[(0, 10, 50), (100, 10, 3)]);
    let story = explain(&trace, RequestId(1), &due(100, 50)).expect("the request is there");
    insta::assert_snapshot!(explanation_text("orca", &story));
}

#[test]
fn every_cause_has_its_sentence() {
    let runs = [
        (batches_of(16), 0, decodes_due(40)),
        (preempted_at(Some(5)), 0, due(410, 11)),
        (pool_of(40, &LARGE), 1, due(300, 50)),
        (thinking(30), 0, due(60, 15)),
        (preparing(30), 0, due(60, 15)),
        (alone_on(Machine::costing(COST)), 0, due(20, 5)),
        (hiccuping(200), 0, due(20, 11)),
    ];
    let first_cause = |(trace, request, scoring): &(Trace, u32, Scoring)| {
        let story = explain(trace, RequestId(*request), scoring).expect("the request is there");
        let text = explanation_text("orca", &story);
        let mut lines = text.lines().skip_while(|line| !line.starts_with("Token "));
        lines.nth(1).expect("a late token has a cause").trim().to_owned()
    };
    let sentences: Vec<String> = runs.iter().map(first_cause).collect();
    insta::assert_snapshot!(sentences.join("\n"));
}

prop_compose! {
    /// A run that is short of everything now and then.
    fn a_run()(
        policy in prop::sample::select(vec!["static", "orca", "vllm-v0", "sarathi:token_budget=24"]),
        requests in prop::collection::vec((0_u64..120, 1_u32..90, 1_u32..25), 1..12),
        num_blocks in 10_u32..30,
        max_num_seqs in 1_u32..6,
    ) -> Trace {
        let limits = Limits { block_size: 16, num_blocks, max_num_seqs, max_model_len: 128 };
        let mut now = 0;
        let arrivals: Vec<Arrival> = requests
            .into_iter()
            .map(|(gap, prompt, output)| {
                now += gap;
                (now, prompt, output)
            })
            .collect();
        served(policy, limits, &arrivals)
    }
}

prop_compose! {
    fn any_scoring()(
        first in 0_u64..400,
        next in 1_u64..60,
        counting in prop::sample::select(vec![
            CountingRule::Exact, CountingRule::Paper, CountingRule::PerToken, CountingRule::Etalon,
        ]),
        with_first_token: bool,
        max_slack in prop::option::of((0_u64..100).prop_map(Duration::from_millis)),
    ) -> Scoring {
        let fluidity = FluidityRule { counting, with_first_token, max_slack };
        Scoring { fluidity, ..due(first, next) }
    }
}

proptest! {
    #[test]
    fn the_shares_add_up_to_what_was_lost(trace in a_run(), scoring in any_scoring()) {
        let all = blame(&[&trace], &scoring).expect("the trace has a calibration");
        let of = |own: fn(&metron_metrics::CauseShare) -> u64| -> u64 {
            all.causes.iter().map(own).sum()
        };
        prop_assert_eq!(of(|own| own.missed), summarise(&[&trace], &scoring).fluidity.missed);
        let (mut lateness, mut by_cause) = (0, BTreeMap::new());
        for request in &trace.requests {
            let story = explain(&trace, request.id, &scoring).expect("the request is there");
            for late in &story.late {
                prop_assert_eq!(late.window_ns - late.allowed_ns, late.late_ns);
                prop_assert_eq!(late.parts.iter().map(|part| part.lateness_ns).sum::<u64>(), late.late_ns);
                let delays = late.parts.iter().filter(|part| part.cause != Cause::Model);
                let delays: u64 = delays.map(|part| part.delay_ns).sum();
                prop_assert!(late.alone_ns.expect("it has steps") + delays <= late.window_ns);
                lateness += late.late_ns;
                for part in &late.parts {
                    *by_cause.entry(part.cause).or_insert(0) += part.lateness_ns;
                }
            }
        }
        prop_assert_eq!(of(|own| own.lateness_ns), lateness);
        prop_assert_eq!(all.lateness_ns, lateness);
        // Steps that a request waited for are summed by stretches there, and one by one in a story.
        for own in &all.causes {
            prop_assert_eq!(own.lateness_ns, by_cause.get(&own.cause).copied().unwrap_or(0));
        }
    }

    /// Where the calibration is the machine, and the machine does nothing else, all is explained.
    #[test]
    fn nothing_is_unexplained_where_the_calibration_is_exact(trace in a_run()) {
        let all = blame(&[&trace], &due(50, 11)).expect("the trace has a calibration");
        let unexplained = lateness(&all, &[Cause::Unexplained, Cause::Scheduler, Cause::Engine]);
        // Nanoseconds that the predictions are rounded by.
        prop_assert!(unexplained <= 10 * all.late_tokens, "{:?}", all);
    }
}
