//! Objectives, judged by hand-made runs.

use metron_metrics::{Judged, ObjectiveVerdict, Objectives, Scoring, judge_objectives};
use metron_trace::{
    EndStatus, Trace,
    WorkKind::{Decode, Prefill},
};

use crate::script::{Script, scoring, trace, work};

fn judged(traces: &[&Trace], texts: &[&str]) -> Vec<Judged> {
    let objectives = texts.iter().map(|text| text.parse().expect("an objective")).collect();
    let objectives = Objectives::new(objectives).expect("they stand together");
    judge_objectives(traces, &Scoring { objectives, ..scoring() })
}

fn one(trace: &Trace, text: &str) -> Judged {
    judged(&[trace], &[text]).remove(0)
}

/// Requests 10 ms apart that each get one token after `ttft_ms`.
fn prefills(ttft_ms: impl IntoIterator<Item = u64>) -> Trace {
    let mut made = trace();
    for (id, took) in (0..).zip(ttft_ms) {
        let at = u64::from(id) * 10;
        made = made.arrives(at, 10).step(at, at + took, &[work(id, Prefill, 10)], &[id]).ends(
            id,
            EndStatus::Finished,
            at + took,
        );
    }
    made
}

#[test]
fn requests_that_do_not_vary_pass_at_99_percent_from_two_hundred_and_ninety_nine() {
    let run = |requests: usize| one(&prefills(vec![5; requests]), "ttft <= 5 ms for 99%");
    assert_eq!(
        (run(298).verdict, run(299).verdict),
        (ObjectiveVerdict::Undecided, ObjectiveVerdict::Pass)
    );
    assert_eq!((run(299).n, run(299).violations, run(299).is_met()), (299, 0, Some(true)));
}

/// That they do not come together has to be seen of them.
#[test]
fn requests_that_vary_take_more_to_pass() {
    let scattered = |requests: u64| prefills((0..requests).map(|id| id * 7919 % 1009));
    let judged = |requests| one(&scattered(requests), "ttft <= 2 s for 99%");
    assert_eq!(judged(299).verdict, ObjectiveVerdict::Undecided);
    assert!(judged(299).effective < 299.0, "{}", judged(299).effective);
    assert_eq!(judged(1000).verdict, ObjectiveVerdict::Pass);
}

#[test]
fn a_bound_that_few_keep_fails_and_one_that_as_many_keep_as_it_takes_is_undecided() {
    let mixed = || prefills((0..500).map(|id| if id % 100 == 0 { 9 } else { 5 }));
    let verdict = |text: &str| one(&mixed(), text);
    assert_eq!(verdict("ttft <= 8 ms for 90%").verdict, ObjectiveVerdict::Pass);
    let close = verdict("ttft <= 8 ms for 99%");
    assert_eq!(
        (close.verdict, close.violations, close.is_met()),
        (ObjectiveVerdict::Undecided, 5, Some(true))
    );
    assert_eq!(verdict("ttft <= 4 ms for 50%").verdict, ObjectiveVerdict::Fail);
    assert_eq!(verdict("ttft <= 4 ms for 50%").is_met(), Some(false));
}

/// The same number of violations, one after the other: they are worth fewer independent ones.
#[test]
fn violations_that_come_together_say_less() {
    let apart = prefills((0..1000).map(|id| if id % 50 == 0 { 9 } else { 5 }));
    let together = prefills((0..1000).map(|id| if id < 20 { 9 } else { 5 }));
    let [apart, together] = [apart, together].map(|run| one(&run, "ttft <= 8 ms for 96%"));
    assert_eq!((apart.violations, together.violations), (20, 20));
    assert_eq!(
        (apart.verdict, together.verdict),
        (ObjectiveVerdict::Pass, ObjectiveVerdict::Undecided)
    );
    assert!(together.effective < 200.0, "{}", together.effective);
}

/// With ten runs or more a run is the unit: two kinds of runs are worth no more than there are runs.
#[test]
fn runs_are_the_units_where_there_are_enough() {
    let runs: Vec<Trace> =
        (0..10).map(|run| prefills(vec![if run == 0 { 9 } else { 5 }; 100])).collect();
    let runs: Vec<&Trace> = runs.iter().collect();
    let judged = judged(&runs, &["ttft <= 8 ms for 85%"]).remove(0);
    assert_eq!(
        (judged.n, judged.violations, judged.verdict),
        (1000, 100, ObjectiveVerdict::Undecided)
    );
    assert!(judged.effective < 10.0, "{}", judged.effective);
}

#[test]
fn a_request_that_failed_violates_every_bound_and_what_can_not_apply_is_left_out() {
    let run = trace()
        .arrives(0, 10)
        .arrives(0, 10)
        .arrives(0, 10)
        .step(0, 5, &[work(0, Prefill, 10), work(1, Prefill, 10)], &[0, 1])
        .step(5, 9, &[work(0, Decode, 1)], &[0])
        .ends(0, EndStatus::Finished, 9)
        .ends(1, EndStatus::Finished, 9)
        .ends(2, EndStatus::Failed, 9);
    let counts = |text: &str| {
        let judged = one(&run, text);
        (judged.n, judged.violations, judged.absent)
    };
    assert_eq!(counts("ttft <= 1 h for 50%"), (3, 1, 0));
    assert_eq!(counts("tpot <= 1 h for 50%"), (2, 1, 1));
    assert_eq!(counts("P50 tbt <= 4 ms"), (2, 1, 1));
    assert_eq!(counts("fluidity_index >= 0.1 for 50%"), (3, 1, 0));
}

#[test]
fn an_objective_of_a_class_is_about_its_requests_alone() {
    let mut run = prefills([5, 9, 5, 9]);
    run.header.classes = vec!["chat".to_owned(), "document".to_owned()];
    for request in &mut run.requests {
        request.class = request.id.0 % 2;
    }
    let counts = |text: &str| {
        let judged = one(&run, text);
        (judged.n, judged.violations)
    };
    assert_eq!(counts("class chat: ttft <= 6 ms for 50%"), (2, 0));
    assert_eq!(counts("class document: ttft <= 6 ms for 50%"), (2, 2));
    assert_eq!(counts("ttft <= 6 ms for 50%"), (4, 2));
}

#[test]
fn without_a_value_nothing_is_decided() {
    let judged = one(&trace(), "ttft <= 1 s for 50%");
    assert_eq!(
        (judged.verdict, judged.share, judged.is_met()),
        (ObjectiveVerdict::Undecided, None, None)
    );
}

#[test]
fn several_objectives_hold_if_each_does() {
    let run = prefills(vec![5; 400]);
    let of_all = |texts: &[&str]| ObjectiveVerdict::of_all(&judged(&[&run], texts));
    assert_eq!(of_all(&["ttft <= 5 ms for 99%", "e2el <= 5 ms for 90%"]), ObjectiveVerdict::Pass);
    assert_eq!(
        of_all(&["ttft <= 5 ms for 99%", "e2el <= 6 ms for 99.9%"]),
        ObjectiveVerdict::Undecided
    );
    assert_eq!(of_all(&["ttft <= 4 ms for 99%", "e2el <= 5 ms for 99.9%"]), ObjectiveVerdict::Fail);
}
