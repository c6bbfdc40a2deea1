//! Which runs are compared with which.

use metron_metrics::{Judgement, Judging, RunOf, RunTwice, Verdict, check_distinct};
use metron_trace::{
    EndStatus, Origin, Timestamp, Trace,
    WorkKind::{Decode, Prefill},
};

use crate::script::{Script, scoring, trace, work};

/// Two requests, the first token of each after `first_ms`; seeds differ in the prompt.
fn run(seed: u32, first_ms: u64) -> Trace {
    let (one, two) = (first_ms, 1000 + first_ms);
    trace()
        .arrives(0, 10 + seed)
        .arrives(1000, 20)
        .step(0, one, &[work(0, Prefill, 10)], &[0])
        .step(one, one + 5, &[work(0, Decode, 1)], &[0])
        .ends(0, EndStatus::Finished, one + 5)
        .step(1000, two, &[work(1, Prefill, 20)], &[1])
        .step(two, two + 5, &[work(1, Decode, 1)], &[1])
        .ends(1, EndStatus::Finished, two + 5)
}

fn judged(runs: &[(&'static str, u32, Trace)], baseline: Option<&str>) -> Judgement {
    let runs: Vec<RunOf<'_>> = runs
        .iter()
        .map(|(policy, replicate, trace)| RunOf { policy, replicate: *replicate, trace })
        .collect();
    let judging = Judging { baseline: baseline.map(ToOwned::to_owned), ..Judging::default() };
    Judgement::new(&["slow", "fast"], &runs, &scoring(), &judging).expect("there are whole runs")
}

/// The pairs and the verdict of the TTFT of the policy that is not the baseline.
fn ttft(judgement: &Judgement) -> (usize, Verdict) {
    let measure = judgement.headline().find(|m| m.measure == "ttft_p50_s").expect("it is judged");
    let difference = measure.policies.iter().find_map(|policy| policy.difference.as_ref());
    let difference = difference.expect("one is not the baseline");
    (difference.pairs, difference.verdict)
}

fn ten() -> Vec<(&'static str, u32, Trace)> {
    let pair = |seed: u32| {
        let noise = u64::from(seed % 3);
        [("slow", seed, run(seed, 200 + 10 * noise)), ("fast", seed, run(seed, 100 + 7 * noise))]
    };
    (0..10).flat_map(pair).collect()
}

#[test]
fn runs_are_paired_by_replicate_whatever_their_order() {
    let mut runs = ten();
    assert_eq!(ttft(&judged(&runs, None)), (10, Verdict::Better));
    runs.reverse();
    assert_eq!(ttft(&judged(&runs, None)), (10, Verdict::Better));
    assert_eq!(ttft(&judged(&runs, Some("fast"))), (10, Verdict::Worse));
}

#[test]
fn a_run_that_was_cut_short_is_no_replicate() {
    let mut runs = ten();
    for end in &mut runs[1].2.ends {
        end.status = EndStatus::Unsent;
    }
    let judgement = judged(&runs, None);
    assert_eq!((judgement.replicates, ttft(&judgement)), (10, (9, Verdict::Better)));
    assert_eq!(judgement.left_out, 1);
}

#[test]
fn runs_of_other_requests_are_no_pairs() {
    let mut runs = ten();
    for (_, _, trace) in runs.iter_mut().filter(|(policy, ..)| *policy == "fast") {
        trace.requests[0].prompt_tokens += 1;
    }
    assert_eq!(ttft(&judged(&runs, None)), (0, Verdict::Undecided));
}

/// The pairs of ten replicates after something has happened to the runs of the second policy.
fn pairs_if(happens: impl Fn(&mut Trace)) -> usize {
    let mut runs = ten();
    for (_, _, trace) in runs.iter_mut().filter(|(policy, ..)| *policy == "fast") {
        happens(trace);
    }
    ttft(&judged(&runs, None)).0
}

#[test]
fn requests_that_arrive_at_other_times_are_others_where_the_workload_says_when() {
    let later = |trace: &mut Trace| trace.requests[1].arrived_at = Timestamp::from_nanos(1_000_000);
    assert_eq!(pairs_if(later), 0);
    let in_a_closed_loop = |trace: &mut Trace| {
        later(trace);
        trace.header.max_concurrency = Some(3);
    };
    assert_eq!(pairs_if(in_a_closed_loop), 10);
    let at_another_tools_client = |trace: &mut Trace| {
        later(trace);
        trace.header.origin = Origin::Imported;
    };
    assert_eq!(pairs_if(at_another_tools_client), 10);
}

#[test]
fn runs_of_other_seeds_are_no_pairs_though_they_have_the_same_lengths() {
    assert_eq!(pairs_if(|trace| trace.header.seed = 1), 0);
}

#[test]
fn a_run_that_stands_twice_is_refused_and_a_run_of_another_seed_is_not() {
    let check = |traces: &[Trace]| {
        let run = |trace| RunOf { policy: "slow", replicate: 1, trace };
        check_distinct(&traces.iter().map(run).collect::<Vec<_>>())
    };
    let [mut first, other] = [run(1, 200), run(2, 200)];
    let twice =
        RunTwice::Replicate { at: [0, 1], policy: "slow".to_owned(), seed: 0, replicate: 1 };
    assert_eq!(check(&[first.clone(), other.clone()]), Err(twice));
    first.header.seed = 9;
    assert_eq!(check(&[first, other]), Ok(()));
}

#[test]
fn another_tools_results_are_one_only_if_they_hold_the_same() {
    let imported = |seed| {
        let mut trace = run(seed, 200);
        trace.header.origin = Origin::Imported;
        trace
    };
    let [first, other] = [imported(1), imported(2)];
    let check = |runs: [&Trace; 3]| check_distinct(&runs.map(RunOf::of));
    let twice = RunTwice::Imported { at: [0, 2], policy: String::new() };
    assert_eq!(check([&first, &other, &first]), Err(twice));
    assert_eq!(check_distinct(&[&first, &other].map(RunOf::of)), Ok(()));
}

#[test]
fn what_no_run_has_is_not_judged_and_a_policy_alone_has_no_verdict() {
    let judgement = judged(&ten(), None);
    let tail = judgement.headline().find(|measure| measure.measure == "tbt_p99_s");
    assert_eq!(tail, None, "two gaps have no 99th percentile");
    assert_eq!(judgement.headline_verdicts().count(), 2);
    let alone: Vec<_> = ten().into_iter().filter(|(policy, ..)| *policy == "slow").collect();
    let alone: Vec<RunOf<'_>> = alone
        .iter()
        .map(|(policy, replicate, trace)| RunOf { policy, replicate: *replicate, trace })
        .collect();
    let judgement = Judgement::new(&["slow"], &alone, &scoring(), &Judging::default());
    assert_eq!(judgement.expect("there are runs").headline_verdicts().count(), 0);
    assert_eq!(Judgement::new(&["slow"], &[], &scoring(), &Judging::default()), None);
}
