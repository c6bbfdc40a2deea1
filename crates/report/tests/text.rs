//! What a terminal shows.

mod served;

use metron_report::{Report, Style};
use metron_trace::Origin;
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

#[test]
fn runs_of_several_systems_have_a_line_each_above_the_table() {
    let mut experiment = Experiment::of(&["orca"], 12);
    experiment.runs[0].2.header.seed = 3;
    let text = experiment.report(|report| report.to_text(PLAIN));
    assert!(
        text.starts_with("Simulated: toy (cost model) in virtual time; seeds 3, 7; Metron"),
        "{text}"
    );
    experiment.runs[0].2.header.origin = Origin::Measured;
    experiment.runs[0].2.header.model.dummy = true;
    let text = experiment.report(|report| report.to_text(PLAIN));
    let labels: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(
        labels,
        [
            "Measured: toy (random weights) on virtual time; seed 3; Metron 0.1.0",
            "Simulated: toy (cost model) in virtual time; seed 7; Metron 0.1.0",
        ]
    );
    experiment.runs[0].2.header.origin = Origin::Imported;
    let text = experiment.report(|report| report.to_text(PLAIN));
    assert!(
        text.starts_with("Imported: toy, these tests; Metron 0.1.0"),
        "nothing of a seed: {text}"
    );
}
