//! What a terminal shows.

mod served;

use metron_report::{Report, Style};
use served::Experiment;

const PLAIN: Style = Style { colour: false };

#[test]
fn a_comparison_is_read_at_a_glance() {
    let experiment = Experiment::of(&["static", "orca", "vllm-v0", "sarathi"], 40);
    insta::assert_snapshot!(experiment.report(|report| report.to_text(PLAIN)));
}

#[test]
fn one_run_is_a_table_of_one_column() {
    let experiment = Experiment::of(&["sarathi"], 12);
    insta::assert_snapshot!(experiment.report(|report| report.to_text(PLAIN)));
}

#[test]
fn one_policy_twice_fits_a_terminal() {
    let labels = [
        "sarathi:token_budget=64",
        "sarathi:token_budget=128",
        "sarathi:token_budget=256",
        "sarathi:token_budget=1024",
    ];
    let text = Experiment::of(&labels, 12).report(|report| report.to_text(PLAIN));
    let table = text.lines().take_while(|line| !line.starts_with('*'));
    let widest = table.map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 100), "{text}");
}

#[test]
fn an_interrupted_experiment_says_so() {
    let experiment = Experiment::of(&["orca"], 12);
    let text = experiment.report(|report| Report { is_partial: true, ..report }.to_text(PLAIN));
    assert!(text.contains("PARTIAL"), "{text}");
}
