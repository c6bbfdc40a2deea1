//! The page as text; tests/browser.rs looks at it as a browser does.

mod served;

use metron_metrics::{Comparison, RunOf};
use metron_report::Report;
use served::Experiment;

fn page(report: &Report<'_>) -> String {
    report.to_html().expect("the page renders")
}

fn count(page: &str, part: &str) -> usize {
    page.matches(part).count()
}

#[test]
fn the_same_runs_are_the_same_page() {
    let experiment = Experiment::of(&["orca", "sarathi"], 20);
    experiment.report(|report| assert_eq!(page(&report), page(&report)));
}

#[test]
fn every_colour_of_a_figure_is_the_pages_own() {
    let html = Experiment::of(&["static", "orca", "vllm-v0", "sarathi"], 40).report(|r| page(&r));
    let figures = html.split("<figure>").skip(1).map(|rest| rest.split("</figure>").next());
    for figure in figures.map(|figure| figure.expect("split yields a part")) {
        assert!(figure.contains("var(--"), "{figure}");
        let picture = figure.split_once("<svg").expect("a figure has a picture").1;
        let colours = ["fill=\"#", "stroke=\"#", "\"black\"", "\"white\"", "rgb("];
        assert!(colours.iter().all(|colour| !picture.contains(colour)), "{figure}");
    }
}

#[test]
fn an_interrupted_or_simulated_or_dummy_run_says_so() {
    let mut experiment = Experiment::of(&["orca"], 12);
    experiment.runs[0].2.header.model.dummy = true;
    let html = experiment.report(|report| page(&Report { is_partial: true, ..report }));
    for flag in ["Partial: ", "Simulated: ", "Random weights: "] {
        assert!(html.contains(flag), "{flag}");
    }
}

#[test]
fn a_run_cut_off_before_its_first_step_still_has_a_page() {
    let mut experiment = Experiment::of(&["orca"], 12);
    for (_, _, trace) in &mut experiment.runs {
        trace.steps.clear();
        trace.tokens.clear();
        trace.ends.clear();
    }
    let html = experiment.report(|report| page(&report));
    assert_eq!(count(&html, "<figure>"), 0);
}

#[test]
fn without_a_calibration_nobody_is_blamed() {
    let mut experiment = Experiment::of(&["orca", "sarathi"], 30);
    let blamed = |experiment: &Experiment| {
        let html = experiment.report(|report| page(&report));
        (count(&html, "<section id=\"blame\">"), count(&html, "deadlines missed, for"))
    };
    assert_eq!(blamed(&experiment), (1, 1));
    for (.., trace) in &mut experiment.runs {
        trace.header.calibration = None;
    }
    assert_eq!(blamed(&experiment), (0, 0));
}

#[test]
fn policies_without_a_run_leave_their_figures_out() {
    let experiment = Experiment::of(&["orca"], 12);
    let (policy, replicate, trace) = &experiment.runs[0];
    let runs = [RunOf { policy, replicate: *replicate, trace }];
    let comparison = Comparison::new(&["orca", "sarathi"], &runs, &experiment.scoring);
    let html = experiment
        .report(|report| page(&Report { comparison: &comparison, runs: &runs, ..report }));
    assert_eq!(count(&html, "<figcaption>sarathi"), 0);
    assert!(count(&html, "<figcaption>orca") >= 2, "{html}");
}

#[test]
fn a_long_run_makes_no_large_file() {
    let html = Experiment::of(&["orca", "sarathi"], 600).report(|report| page(&report));
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
}
