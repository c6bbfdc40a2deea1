//! The golden vectors: 23 streams with known counts under three counting rules, computed with exact
//! rationals (exact and paper) and with Python's floats (etalon).

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use metron_metrics::{CountingRule, Deadlined, FluidityRule, fluidity};
use serde_json::Value;

/// Decimal seconds to nanoseconds, exactly.
fn nanos(decimal: &str) -> u64 {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    format!("{whole}{fraction:0<9}").parse().expect("at most nine decimals")
}

fn check(counting: CountingRule, column: &str) {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("data/etalon_golden.json")).expect("the file is JSON");
    assert_eq!(cases.len(), 23);
    for case in &cases {
        let text = |field: &str| case[field].as_str().expect("a decimal");
        let gaps: Vec<u64> = case["inter_token_s"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|gap| nanos(gap.as_str().expect("a decimal")))
            .collect();
        let deadlines = Deadlined {
            first_ns: nanos(text("ttft_deadline")),
            next_ns: nanos(text("tbt_deadline")),
        };
        let rule = FluidityRule {
            counting,
            with_first_token: case["ignore_first"] == false,
            max_slack: None,
        };
        let got = fluidity(&gaps, deadlines, &rule);
        let expected = &case[column];
        let number = |field: &str| expected[field].as_f64().expect("a count");
        assert_eq!(got.missed as f64, number("missed"), "missed in {}", case["name"]);
        assert_eq!((got.met + got.missed) as f64, number("total"), "total in {}", case["name"]);
    }
}

#[test]
fn the_exact_rule_counts_as_the_ceiling_does() {
    check(CountingRule::Exact, "exact_ceil");
}

#[test]
fn the_paper_rule_counts_as_the_floor_does() {
    check(CountingRule::Paper, "exact_floor");
}

#[test]
fn the_etalon_rule_counts_as_the_original_code_does() {
    check(CountingRule::Etalon, "etalon_float");
}
