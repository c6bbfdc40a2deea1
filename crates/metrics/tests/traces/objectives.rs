//! Objectives, judged by hand-made runs.

use metron_metrics::{
    Basis, FluidityRule, Judged, ObjectiveVerdict, Objectives, Scoring, judge_objectives,
};
use metron_trace::{
    EndStatus, Origin, Trace,
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

/// On a machine, where runs of the same requests are others.
fn measured(mut trace: Trace) -> Trace {
    trace.header.origin = Origin::Measured;
    trace
}

/// Nothing else varies there: two of them say no more than one.
#[test]
fn runs_in_virtual_time_that_are_one_count_once() {
    let run = prefills((0..300).map(|id| id * 7919 % 1009));
    let text = "ttft <= 500 ms for 45%";
    assert_eq!(judged(&[&run; 10], &[text]), judged(&[&run], &[text]));
    let run = measured(run);
    assert_eq!(judged(&[&run; 10], &[text]).remove(0).n, 3000);
}

/// How they depend on each other can't be seen, so only runs count.
#[test]
fn requests_that_do_not_vary_are_worth_no_more_than_their_runs() {
    let run = measured(prefills(vec![5; 2000]));
    let of_runs = |runs: usize, text: &str| judged(&vec![&run; runs], &[text]).remove(0);
    let alone = of_runs(1, "ttft <= 5 ms for 99%");
    assert_eq!((alone.verdict, alone.basis), (ObjectiveVerdict::Undecided, Basis::NothingVaries));
    assert_eq!((alone.n, alone.violations, alone.is_met()), (2000, 0, Some(true)));
    assert!((alone.effective - 1.0).abs() < 1e-9, "{}", alone.effective);
    // Nor do four that differ show whether such come together.
    let four = prefills((0..2000).map(|id| if id % 500 == 0 { 4 } else { 5 }));
    assert_eq!(one(&four, "ttft <= 5 ms for 99%").basis, Basis::NothingVaries);
    // Five runs that keep it show 0.05^(1/5), 55 %.
    assert_eq!(of_runs(5, "ttft <= 5 ms for 54%").verdict, ObjectiveVerdict::Pass);
    assert_eq!(of_runs(5, "ttft <= 5 ms for 56%").verdict, ObjectiveVerdict::Undecided);
    // One that does not keep it at all shows that 95 % don't.
    assert_eq!(of_runs(1, "ttft <= 4 ms for 96%").verdict, ObjectiveVerdict::Fail);
}

/// The fluidity-index of all is 1; how late their tokens were says what they are worth.
#[test]
fn an_index_that_does_not_vary_is_judged_by_the_lateness_below_it() {
    let scattered = prefills((0..2000).map(|id| 1 + id * 7919 % 19));
    let together = prefills((0..2000).map(|id| 1 + id * 7919 % 3 + id / 200));
    let [scattered, together] =
        [scattered, together].map(|run| one(&run, "fluidity_index >= 0.9 for 99%"));
    assert_eq!((scattered.violations, together.violations), (0, 0));
    assert_eq!(
        (scattered.verdict, together.verdict),
        (ObjectiveVerdict::Pass, ObjectiveVerdict::Undecided)
    );
}

/// Its lateness is that of the tokens that have a deadline.
#[test]
fn an_index_without_the_first_token_is_judged_by_the_lateness_of_the_others() {
    let mut run = trace();
    for id in 0..500_u32 {
        let at = u64::from(id) * 40;
        let next = at + 6 + u64::from(id) * 7919 % 9;
        run = run
            .arrives(at, 10)
            .step(at, at + 5, &[work(id, Prefill, 10)], &[id])
            .step(at + 5, next, &[work(id, Decode, 1)], &[id])
            .ends(id, EndStatus::Finished, next);
    }
    let objectives = Objectives::new(vec!["fluidity_index >= 0.9 for 90%".parse().unwrap()]);
    let fluidity = FluidityRule { with_first_token: false, ..FluidityRule::default() };
    let scoring = Scoring { objectives: objectives.unwrap(), fluidity, ..scoring() };
    let judged = judge_objectives(&[&run], &scoring).remove(0);
    assert_eq!((judged.verdict, judged.basis), (ObjectiveVerdict::Pass, Basis::Values));
}

#[test]
fn values_too_few_to_show_how_they_depend_are_said_to_be_too_few() {
    let few = one(&prefills((0..9).map(|id| 1 + id)), "ttft <= 20 ms for 50%");
    assert_eq!((few.verdict, few.basis), (ObjectiveVerdict::Undecided, Basis::TooFew));
}

/// Ctrl-C after half of a run: what was in progress is no failure, and nothing is decided.
#[test]
fn a_run_that_was_cut_short_neither_passes_nor_fails() {
    let whole = prefills((0..1000).map(|id| 1 + id * 7919 % 19));
    let mut cut = whole.clone();
    for end in cut.ends.iter_mut().skip(500) {
        end.status = EndStatus::Cancelled;
    }
    for text in ["ttft <= 1 s for 80%", "ttft <= 1 ns for 80%", "fluidity_index >= 0.9 for 90%"] {
        let alone = one(&cut, text);
        assert_eq!((alone.verdict, alone.basis), (ObjectiveVerdict::Undecided, Basis::CutShort));
        assert_eq!(alone.bounds, None);
        // Beside a whole one it is left out.
        let both = judged(&[&whole, &cut], &[text]).remove(0);
        assert_eq!(both, one(&whole, text));
    }
    assert_eq!(one(&cut, "fluidity_index >= 0.9 for 90%").violations, 0);
    cut.header.origin = Origin::Imported;
    assert_eq!(one(&cut, "fluidity_index >= 0.9 for 90%").violations, 500, "clients withdrew them");
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
        (0..10).map(|run| measured(prefills(vec![if run == 0 { 9 } else { 5 }; 100]))).collect();
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
    let run = prefills((0..1000).map(|id| 1 + id * 7919 % 5));
    let of_all = |texts: &[&str]| ObjectiveVerdict::of_all(&judged(&[&run], texts));
    assert_eq!(of_all(&["ttft <= 5 ms for 99%", "e2el <= 5 ms for 90%"]), ObjectiveVerdict::Pass);
    assert_eq!(
        of_all(&["ttft <= 5 ms for 99%", "e2el <= 6 ms for 99.9%"]),
        ObjectiveVerdict::Undecided
    );
    assert_eq!(of_all(&["ttft <= 4 ms for 99%", "e2el <= 5 ms for 99.9%"]), ObjectiveVerdict::Fail);
}
