//! A capacity as a terminal, a program and a page show it; tests/browser.rs looks at the page as a
//! browser does.

mod searched;

use metron_metrics::{Capacity, ObjectiveVerdict, Objectives, SearchEnd};
use metron_report::CapacityReport;
use metron_trace::Origin;
use searched::{brackets, capacity, probe, with_search};

fn text(origin: Origin, capacities: &[Capacity], is_partial: bool) -> String {
    with_search(origin, capacities, |search| CapacityReport { is_partial, ..*search }.to_text())
}

fn page(origin: Origin, capacities: &[Capacity]) -> String {
    with_search(origin, capacities, |search| search.to_html().expect("the template is whole"))
}

#[test]
fn each_policy_has_a_bracket_and_its_distance_from_the_bound() {
    let hopeless = capacity("orca", None, Some(0.1), SearchEnd::NothingPasses);
    let best = probe(0.1, 0.8, ObjectiveVerdict::Fail);
    let capacities = [
        capacity("static", Some(1.0), Some(1.08), SearchEnd::Narrow),
        capacity("sarathi", Some(2.0), Some(2.5), SearchEnd::OutOfReplicates),
        Capacity { not_monotone: 2, probes: vec![best], ..hopeless },
        Capacity {
            upper_bound: None,
            ..capacity("mine", Some(8.0), None, SearchEnd::EverythingPasses)
        },
    ];
    insta::assert_snapshot!(text(Origin::Simulated, &capacities, false));
}

#[test]
fn of_a_bracket_that_is_open_nobody_says_how_much_narrower_it_gets() {
    let open = capacity("orca", Some(1.0), None, SearchEnd::OutOfReplicates);
    let wide = capacity("sarathi", Some(2.0), Some(2.5), SearchEnd::OutOfReplicates);
    let both = text(Origin::Simulated, &[open.clone(), wide], false);
    assert!(both.contains("orca: 20 replicates leave the bracket open. More (--replicates 40"));
    assert!(both.contains("sarathi: 20 replicates leave the bracket wide. Four times"), "{both}");
    let open = text(Origin::Simulated, &[open], false);
    assert!(!open.contains("half as wide"), "{open}");
}

#[test]
fn what_binds_has_a_column_only_where_there_is_a_choice() {
    let heads = |objectives: &[&str]| {
        let parsed = objectives.iter().map(|text| text.parse().expect("an objective")).collect();
        let objectives = Objectives::new(parsed).expect("they stand together");
        let html = with_search(Origin::Simulated, &brackets(), |search| {
            let search = CapacityReport { objectives: &objectives, ..*search };
            search.to_html().expect("the template is whole")
        });
        let head = html.split("<thead><tr>").nth(1).and_then(|rest| rest.split("</tr>").next());
        head.expect("there is a table").matches("<th ").count()
    };
    assert_eq!(heads(&["ttft <= 1 s for 95%"]), 8);
    assert_eq!(heads(&["ttft <= 1 s for 95%", "tbt <= 1 s for 95%"]), 9);
}

#[test]
fn a_search_cut_short_on_a_machine_says_partial_and_estimated() {
    let capacities = [capacity("sarathi", None, None, SearchEnd::Interrupted)];
    let text = text(Origin::Measured, &capacities, true);
    for said in [
        "undecided",
        "sarathi: not decided after 0 runs from 0.100 to 8.00 requests/s.",
        "PARTIAL: the search was cut short; the same command goes on",
        "ESTIMATED: the cost model was fitted to this machine",
    ] {
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn the_doubts_are_in_the_json_too() {
    let json = with_search(Origin::Measured, &brackets(), |search| {
        search.to_json().expect("it can be written")
    });
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["doubts"][0]["doubt"]["kind"], "too_few_requests");
    assert_eq!(json["capacities"][0]["probes"][1]["judged"][0]["verdict"], "UNDECIDED");
}

#[test]
fn a_page_shows_brackets_runs_and_rates_in_the_pages_own_colours() {
    let html = page(Origin::Simulated, &brackets());
    assert!(html.contains("Simulated: ") && html.contains("&lt;b&gt;mine"), "{html}");
    assert!(html.contains("Metron: capacity of") && !html.contains("<script"));
    assert_eq!(html.matches("<svg xmlns=").count(), 1 + 2);
    assert!(!html.contains("\"#01000") && !html.contains("\"#02000"), "stand-ins were replaced");
    // Of the first policy: below the bracket, above it, and above it.
    let rates = html.split("<details>").nth(1).expect("there are the rates of a policy");
    let verdicts = ["PASS", "FAIL", "FAIL"].map(|verdict| format!("<td>{verdict}</td>"));
    let mut rest = rates;
    for verdict in verdicts {
        rest = rest.split_once(&verdict).expect("in the order of the rates").1;
    }
}

#[test]
fn a_search_without_a_single_run_still_has_a_page() {
    let nothing = [Capacity {
        range: None,
        upper_bound: None,
        ..capacity("sarathi", None, None, SearchEnd::Interrupted)
    }];
    let html = page(Origin::Measured, &nothing);
    assert_eq!(html.matches("<figure>").count(), 1);
    assert!(!html.contains("<section id=\"probes\">"), "{html}");
}
