//! What separates policies, and which is best.

use metron_metrics::{Better, Comparison, RunOf};
use metron_trace::{
    EndStatus, RequestId, Trace,
    WorkKind::{Decode, Prefill, Recompute},
};

use crate::script::{Script, scoring, trace, work};

/// Request 0 decodes; request 1, of 300 tokens, arrives in between and is prefilled whole.
fn prefill_first() -> Trace {
    trace()
        .arrives(0, 10)
        .arrives(12, 300)
        .step(0, 10, &[work(0, Prefill, 10)], &[0])
        .step(10, 20, &[work(0, Decode, 1)], &[0])
        .step(20, 220, &[work(1, Prefill, 300)], &[1])
        .step(220, 230, &[work(0, Decode, 1), work(1, Decode, 1)], &[0, 1])
        .ends(0, EndStatus::Finished, 230)
        .ends(1, EndStatus::Finished, 230)
}

/// The same requests: the prefill comes in chunks beside the decodes.
fn chunked() -> Trace {
    trace()
        .arrives(0, 10)
        .arrives(12, 300)
        .step(0, 10, &[work(0, Prefill, 10)], &[0])
        .step(10, 20, &[work(0, Decode, 1)], &[0])
        .step(20, 130, &[work(0, Decode, 1), work(1, Prefill, 150)], &[0])
        .ends(0, EndStatus::Finished, 130)
        .step(130, 240, &[work(1, Prefill, 150)], &[1])
        .step(240, 250, &[work(1, Decode, 1)], &[1])
        .ends(1, EndStatus::Finished, 250)
}

fn compare(runs: &[(&str, &Trace)]) -> Comparison {
    let mut policies: Vec<&str> = runs.iter().map(|(policy, _)| *policy).collect();
    policies.dedup();
    let replicate = |at: usize| runs[..at].iter().filter(|run| run.0 == runs[at].0).count() as u32;
    let runs: Vec<RunOf<'_>> = runs
        .iter()
        .enumerate()
        .map(|(at, (policy, trace))| RunOf { policy, replicate: replicate(at), trace })
        .collect();
    Comparison::new(&policies, &runs, &scoring())
}

#[test]
fn the_sentences_say_what_separates_the_policies() {
    let (first, chunked) = (prefill_first(), chunked());
    let comparison = compare(&[("vllm-v0", &first), ("vllm-v0", &first), ("sarathi", &chunked)]);
    assert_eq!(comparison.policies[0].replicates, 2);
    insta::assert_snapshot!(comparison.sentences.join("\n"), @"
    The longest stall was vllm-v0's: request 0 waited 210 ms for its 3rd token, over 2 steps of replicate 1 (longest: step 2), behind the prefill of request 1 (300 tokens); sarathi's longest was 110 ms.
    Half of the requests had their first token within 109 ms under vllm-v0, and within 119 ms under sarathi.
    ");
}

/// The one that was cut off has the fewest stalls, having had the least time.
#[test]
fn what_an_interruption_cut_off_is_not_held_against_what_it_did_not() {
    let (whole, mut cut) = (prefill_first(), chunked());
    cut.ends[1].status = EndStatus::Cancelled;
    let comparison = compare(&[("vllm-v0", &whole), ("sarathi", &cut)]);
    assert_eq!(comparison.sentences, [""; 0]);
}

#[test]
fn the_longest_stall_names_the_step_and_whose_prefill_it_was() {
    let comparison = compare(&[("vllm-v0", &prefill_first())]);
    let story = comparison.policies[0].longest_stall.as_ref().expect("there are gaps");
    assert_eq!((story.request, story.token, story.gap.as_millis()), (RequestId(0), 2, 210));
    assert_eq!((story.steps, story.step), (2, Some(2)));
    assert_eq!(story.behind, [(RequestId(1), 300)]);
    assert!(!story.was_preempted);
    assert!(comparison.sentences.is_empty(), "one policy is not separated from itself");
}

#[test]
fn a_preempted_request_waited_for_itself() {
    let preempted = trace()
        .arrives(0, 10)
        .step(0, 10, &[work(0, Prefill, 10)], &[0])
        .preempts(0)
        .step(10, 90, &[work(0, Recompute, 10), work(0, Decode, 1)], &[0])
        .preempts(0)
        .ends(0, EndStatus::Finished, 90);
    let comparison = compare(&[("vllm-v0", &preempted), ("sarathi", &chunked())]);
    let story = comparison.policies[0].longest_stall.as_ref().expect("there is a gap");
    assert!(story.was_preempted && story.behind.is_empty());
}

#[test]
fn policies_that_read_alike_are_not_set_apart() {
    let same = chunked();
    assert!(compare(&[("orca", &same), ("sarathi", &same)]).sentences.is_empty());
}

#[test]
fn a_trace_without_steps_is_compared_by_its_tokens() {
    let mut first = prefill_first();
    first.steps.clear();
    let comparison = compare(&[("remote", &first), ("sarathi", &chunked())]);
    insta::assert_snapshot!(comparison.sentences[0], @"The longest stall was remote's: request 0 waited 210 ms for its 3rd token, in replicate 1; sarathi's longest was 110 ms.");
}

#[test]
fn the_best_are_marked_by_their_direction_and_all_alike_are_not() {
    let values = [Some(3.0), None, Some(1.0), Some(1.0)];
    assert_eq!(Better::Lower.best(&values), [2, 3]);
    assert_eq!(Better::Higher.best(&values), [0]);
    assert!(Better::Lower.best(&[Some(2.0), Some(2.0), None]).is_empty());
    assert!(Better::Higher.best(&[None, None]).is_empty());
}
