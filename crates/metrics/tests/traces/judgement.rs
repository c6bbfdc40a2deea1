//! Which runs are compared with which.

use metron_metrics::{Judgement, Judging, RunOf, Verdict};
use metron_trace::{
    EndStatus, Trace,
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
