//! What people and programs read.

mod support;

use metron_report::Style;
use support::{ANGULAR, with_report};

#[test]
fn the_table_marks_the_best_of_each_row_and_says_what_separates_the_policies() {
    let text = with_report(|report| report.to_text(Style { colour: false }));
    insta::assert_snapshot!(text);
}

#[test]
fn colour_only_where_it_is_asked_for() {
    let plain = with_report(|report| report.to_text(Style { colour: false }));
    let coloured = with_report(|report| report.to_text(Style { colour: true }));
    assert!(!plain.contains('\u{1b}'));
    assert!(coloured.contains("\u{1b}[32;1m"));
    let stripped = coloured.replace("\u{1b}[32;1m", "").replace("\u{1b}[0m", "");
    assert_eq!(stripped, plain);
}

#[test]
fn the_page_escapes_what_users_name_and_asks_no_network() {
    let html = with_report(|report| report.to_html().expect("the template is whole"));
    assert!(!html.contains(ANGULAR), "a label is no markup");
    assert!(html.contains("tiny &amp; small"));
    assert!(!html.contains("<script"), "there is nothing to run");
    let addresses = html.replace("http://www.w3.org/", "");
    assert!(!addresses.contains("http://") && !addresses.contains("https://"));
}

#[test]
fn the_json_has_a_version_and_every_run() {
    let json = with_report(|report| report.to_json().expect("it has a form in JSON"));
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["schema_version"], metron_report::SCHEMA_VERSION);
    assert_eq!(json["runs"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["comparison"]["policies"][1]["policy"], ANGULAR);
    assert_eq!(json["runs"][0]["summary"]["stalls"]["count"], 1);
}
