//! The original tool's arithmetic, bit for bit: `etalon/metrics/metric_utils.py` of
//! project-etalon/etalon, commit d5f18de. Float seconds, and Python's `//` on them.

use crate::fluidity::{Deadlined, Fluidity, FluidityRule};
use crate::percentile::interpolated;

/// The original's target: at most this share of deadlines missed.
const MISS_RATE: f64 = 0.1;
/// The original's target: for this quantile of requests.
const QUANTILE: f64 = 0.99;
/// Where the original's bisection starts, in seconds.
const LONGEST_S: f64 = 1e10;
/// The width at which it stops, and its step past the middle, in seconds.
const GRANULARITY_S: f64 = 1e-4;

/// Deadlines met and missed, as `get_request_level_deadline_miss_rate` counts them.
pub(crate) fn fluidity(
    inter_token_ns: impl Iterator<Item = u64>,
    deadlines: Deadlined,
    rule: &FluidityRule,
) -> Fluidity {
    let (first_s, next_s) = (seconds(deadlines.first_ns), seconds(deadlines.next_ns.max(1)));
    count(inter_token_ns, first_s, next_s, rule)
}

fn count(
    inter_token_ns: impl Iterator<Item = u64>,
    first_s: f64,
    next_s: f64,
    rule: &FluidityRule,
) -> Fluidity {
    let most_slack = rule.max_slack.map_or(f64::INFINITY, |most| most.as_secs_f64());
    let mut result = Fluidity { met: 0, missed: 0 };
    let mut slack = 0.0;
    let skipped = usize::from(!rule.with_first_token);
    for (i, gap) in inter_token_ns.map(seconds).enumerate().skip(skipped) {
        let due = if i == 0 { first_s } else { next_s };
        if gap <= due + slack {
            slack = (slack + (due - gap)).min(most_slack);
            result.met += 1;
            continue;
        }
        // The two quotients are equal on paper, and not in floats.
        let missed = if i == 0 {
            1.0 + floor_divide(gap - slack - first_s, next_s)
        } else {
            floor_divide(gap - slack, next_s)
        };
        #[expect(clippy::cast_sign_loss, reason = "a late token's quotient is not negative")]
        let missed = missed as u64;
        result.missed = result.missed.saturating_add(missed);
        slack = 0.0;
    }
    result
}

/// Nanoseconds as the float nearest to their decimal seconds, which is what Python parses.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Python's `a // b` on floats, as the `float_floor_div` of `CPython` computes it: by the remainder, which
/// is exact, and not by rounding a quotient.
fn floor_divide(a: f64, b: f64) -> f64 {
    let remainder = a % b;
    let quotient = (a - remainder) / b;
    let quotient =
        if remainder != 0.0 && (b < 0.0) != (remainder < 0.0) { quotient - 1.0 } else { quotient };
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

/// The least decode deadline, in seconds, as `find_min_tbt_deadline_to_meet` bisects it: within
/// [`GRANULARITY_S`], and with steps that may pass the least deadline by as much. A stream without
/// a deadline has missed none.
fn least_decode_deadline_s(inter_token_ns: &[u64]) -> f64 {
    let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
    let (mut low, mut high, mut least) = (0.0, LONGEST_S, LONGEST_S);
    while high - low > GRANULARITY_S {
        let middle = f64::midpoint(low, high);
        let Fluidity { met, missed } = count(inter_token_ns.iter().copied(), 0.0, middle, &rule);
        let all = met.saturating_add(missed);
        if all > 0 && missed as f64 / all as f64 > MISS_RATE {
            low = middle + GRANULARITY_S;
        } else {
            least = middle;
            high = middle - GRANULARITY_S;
        }
    }
    least
}

/// The original's fluid token generation rate (`get_throughput_metrics`): the first token ignored,
/// and the interpolated 99th percentile of the least deadlines. `None` without streams.
pub(crate) fn fluid_rate<'a>(streams: impl Iterator<Item = &'a [u64]>) -> Option<f64> {
    let mut deadlines: Vec<f64> = streams.map(least_decode_deadline_s).collect();
    deadlines.sort_unstable_by(f64::total_cmp);
    interpolated(&deadlines, QUANTILE).map(|deadline| 1.0 / deadline)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "to the last bit is what is claimed")]
mod tests {
    use super::*;
    use crate::rate::{LeastDeadline, least_decode_deadline};
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn python_floor_division_rounds_as_python_does() {
        assert_eq!(floor_divide(1.0, 0.1), 9.0);
        assert_eq!(floor_divide(0.5, 0.1), 4.0);
        assert_eq!(floor_divide(0.3, 0.1), 2.0);
        assert_eq!(floor_divide(0.3, 0.03), 10.0);
    }

    struct Recorded {
        case: Value,
        gaps: Vec<u64>,
    }

    /// Python's `repr` of a float; a JSON number would be read with an error of the last bit.
    fn float(value: &Value) -> Option<f64> {
        value.as_str().and_then(|text| text.parse().ok())
    }

    impl Recorded {
        fn number(&self, field: &str) -> f64 {
            self.case[field].as_f64().expect("a number")
        }

        fn nanos(&self, field: &str) -> u64 {
            self.case[field].as_u64().expect("nanoseconds")
        }
    }

    /// What the original's functions said of 250 streams: see the script beside the file.
    fn recorded() -> (Value, Vec<Recorded>) {
        let text = include_str!("../tests/data/etalon_streams.json");
        let file: Value = serde_json::from_str(text).expect("the file is JSON");
        let stream = |case: &Value| {
            let gaps = case["gaps_ns"].as_array().expect("a list").iter();
            let gaps = gaps.map(|gap| gap.as_u64().expect("nanoseconds")).collect();
            Recorded { case: case.clone(), gaps }
        };
        let streams: Vec<Recorded> =
            file["streams"].as_array().expect("a list").iter().map(stream).collect();
        assert_eq!(streams.len(), 250);
        (file, streams)
    }

    #[test]
    fn streams_are_counted_as_the_original_counts_them() {
        for stream in recorded().1 {
            let deadlines =
                Deadlined { first_ns: stream.nanos("first_ns"), next_ns: stream.nanos("next_ns") };
            let with_first_token = stream.case["ignore_first"] == false;
            let rule = FluidityRule { with_first_token, ..FluidityRule::default() };
            let got = fluidity(stream.gaps.iter().copied(), deadlines, &rule);
            let counts = (got.missed as f64, (got.met + got.missed) as f64);
            assert_eq!(
                counts,
                (stream.number("missed"), stream.number("total")),
                "{}",
                stream.case
            );
        }
    }

    #[test]
    fn the_rate_is_the_originals_to_the_last_bit() {
        let (file, streams) = recorded();
        for stream in &streams {
            let least = least_decode_deadline_s(&stream.gaps);
            assert_eq!(Some(least), float(&stream.case["least_deadline_s"]), "{}", stream.case);
        }
        let rate = fluid_rate(streams.iter().map(|stream| stream.gaps.as_slice()));
        assert_eq!(rate, float(&file["deadline_based_throughput"]));
    }

    /// NumPy's quantile of the pooled TBTs, which the original computes too.
    #[test]
    fn percentiles_are_numpys_to_the_last_bit() {
        let (file, streams) = recorded();
        let later = streams.iter().flat_map(|stream| stream.gaps.iter().skip(1));
        let mut pooled: Vec<f64> = later.map(|gap| seconds(*gap)).collect();
        pooled.sort_unstable_by(f64::total_cmp);
        let rate = interpolated(&pooled, 0.99).map(|p99| 1.0 / p99);
        assert_eq!(rate, float(&file["tbt_based_throughput"]));
    }

    proptest! {
        #[test]
        fn python_floor_division_is_exact_for_whole_numbers(
            a in 0_i64..1 << 40, b in 1_i64..1 << 20,
        ) {
            prop_assert_eq!(floor_divide(a as f64, b as f64), a.div_euclid(b) as f64);
        }

        /// On a grid that floats hold exactly (2^-20 s) the original differs from the papers' rule
        /// nowhere.
        #[test]
        fn on_a_dyadic_grid_the_original_counts_as_the_papers_do(
            gaps in proptest::collection::vec(0_u64..1 << 20, 0..30),
            first in 0_u64..1 << 18, next_exponent in 10_u32..18,
        ) {
            // In whole units both ways: 1 unit is 1 ns for the integers, 1e9 units for the floats.
            let whole: Vec<u64> = gaps.iter().map(|gap| gap * 1_000_000_000).collect();
            let next = 1 << next_exponent;
            let rule = FluidityRule::default();
            let deadlines =
                Deadlined { first_ns: first * 1_000_000_000, next_ns: next * 1_000_000_000 };
            let paper = FluidityRule { counting: crate::CountingRule::Paper, ..rule };
            let papers = crate::fluidity(&whole, deadlines, &paper);
            prop_assert_eq!(fluidity(whole.iter().copied(), deadlines, &rule), papers);
        }

        #[test]
        fn the_original_is_within_its_own_granularity(
            gaps in proptest::collection::vec(1_000_000_u64..50_000_000, 2..60),
        ) {
            let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
            let exact = match least_decode_deadline(&gaps, 0, &rule, 0.9) {
                Some(LeastDeadline::Nanoseconds(ns)) => ns as f64 / 1e9,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            let original = least_decode_deadline_s(&gaps);
            prop_assert!((original - exact).abs() <= 3e-4, "{original} for {exact}");
        }
    }
}
