use std::time::Duration;

use metron_trace::Deadlines;
use serde::{Deserialize, Serialize};

/// How a late token's missed deadlines are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountingRule {
    /// A token exactly on the k-th deadline after its own has missed k: `ceil`, consistent with a
    /// token exactly on its deadline meeting it.
    #[default]
    Exact,
    /// `floor(x / D_d) + 1`: the pseudo-code of arXiv 2407.07000 and 2507.09019.
    Paper,
    /// Seconds in floating point and Python's `//`, bit for bit as the original tool computes.
    Etalon,
    /// A late token has missed one: the original documentation's formula.
    PerToken,
}

/// What of a stream is scored, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FluidityRule {
    /// How missed deadlines are counted.
    pub counting: CountingRule,
    /// Whether the first token has a deadline; without, the decode phase is scored alone.
    pub with_first_token: bool,
    /// Slack never grows above this; `None`: it is unbounded.
    pub max_slack: Option<Duration>,
}

impl Default for FluidityRule {
    fn default() -> Self {
        Self { counting: CountingRule::Exact, with_first_token: true, max_slack: None }
    }
}

/// Deadlines as the recursion takes them, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlined {
    /// `D_p >= 0`
    pub first_ns: u64,
    /// `D_d >= 1`
    pub next_ns: u64,
}

impl From<Deadlines> for Deadlined {
    fn from(deadlines: Deadlines) -> Self {
        let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { first_ns: ns(deadlines.first_token), next_ns: ns(deadlines.next_token).max(1) }
    }
}

/// Deadlines met and missed by one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fluidity {
    /// Deadlines met.
    pub met: u64,
    /// Deadlines missed: one late token may miss many.
    pub missed: u64,
}

impl Fluidity {
    /// `met / (met + missed)`; `None` where there was no deadline at all.
    pub fn index(&self) -> Option<f64> {
        let all = self.met + self.missed;
        (all > 0).then(|| self.met as f64 / all as f64)
    }
}

/// The fluidity-index of a stream (arXiv 2407.07000, section 4.1): each token has a deadline;
/// being early earns slack for later ones; a token later than its deadline and the slack misses
/// every deadline that passed, and the next is counted from it.
///
/// `inter_token_ns` are `T_0 .. T_{n-1}`.
pub fn fluidity(inter_token_ns: &[u64], deadlines: Deadlined, rule: &FluidityRule) -> Fluidity {
    if rule.counting == CountingRule::Etalon {
        return etalon(inter_token_ns, deadlines, rule);
    }
    let most_slack = rule.max_slack.map_or(i128::MAX, |most| most.as_nanos().cast_signed());
    let next = i128::from(deadlines.next_ns.max(1));
    let mut result = Fluidity { met: 0, missed: 0 };
    let mut slack: i128 = 0;
    for (i, &gap) in inter_token_ns.iter().enumerate() {
        if i == 0 && !rule.with_first_token {
            continue;
        }
        let deadline = if i == 0 { i128::from(deadlines.first_ns) } else { next };
        let early = deadline + slack - i128::from(gap);
        if early >= 0 {
            slack = early.min(most_slack);
            result.met += 1;
        } else {
            let late = early.unsigned_abs();
            let next = next.unsigned_abs();
            let missed = match rule.counting {
                CountingRule::Exact => late.div_ceil(next),
                CountingRule::Paper => late / next + 1,
                CountingRule::PerToken | CountingRule::Etalon => 1,
            };
            result.missed = result.missed.saturating_add(u64::try_from(missed).unwrap_or(u64::MAX));
            slack = 0;
        }
    }
    result
}

/// The original code's arithmetic (`etalon/metrics/metric_utils.py`): float seconds, `//` on them,
/// and the first token's misses counted in units of `D_d` beyond `D_p`.
fn etalon(inter_token_ns: &[u64], deadlines: Deadlined, rule: &FluidityRule) -> Fluidity {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let (first, next) = (seconds(deadlines.first_ns), seconds(deadlines.next_ns));
    let most_slack = rule.max_slack.map_or(f64::INFINITY, |most| most.as_secs_f64());
    let mut result = Fluidity { met: 0, missed: 0 };
    let mut slack = 0.0;
    for (i, &gap) in inter_token_ns.iter().enumerate() {
        if i == 0 && !rule.with_first_token {
            continue;
        }
        let gap = seconds(gap);
        let deadline = if i == 0 { first } else { next };
        if gap <= deadline + slack {
            slack = (slack + (deadline - gap)).min(most_slack);
            result.met += 1;
        } else {
            let missed = if i == 0 {
                1.0 + floor_divide(gap - slack - first, next)
            } else {
                floor_divide(gap - slack, next)
            };
            #[expect(clippy::cast_sign_loss, reason = "a late token's quotient is not negative")]
            let missed = missed.max(0.0) as u64;
            result.missed += missed;
            slack = 0.0;
        }
    }
    result
}

/// Python's `a // b` on floats, as `CPython`'s `float_floor_div` computes it: by the remainder, which
/// is exact, and not by rounding a quotient.
fn floor_divide(a: f64, b: f64) -> f64 {
    let remainder = a % b;
    let quotient = (a - remainder) / b;
    let quotient =
        if remainder != 0.0 && (b < 0.0) != (remainder < 0.0) { quotient - 1.0 } else { quotient };
    let floor = quotient.floor();
    if quotient - floor > 0.5 { floor + 1.0 } else { floor }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exact results are what is tested")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn score(gaps: &[u64], first_ns: u64, next_ns: u64) -> (u64, u64) {
        let f = fluidity(gaps, Deadlined { first_ns, next_ns }, &FluidityRule::default());
        (f.met, f.missed)
    }

    #[test]
    fn a_token_on_its_deadline_meets_it_and_one_on_the_next_has_missed_one() {
        assert_eq!(score(&[100], 100, 50), (1, 0));
        assert_eq!(score(&[150], 100, 50), (0, 1));
        assert_eq!(score(&[151], 100, 50), (0, 2));
    }

    #[test]
    fn a_stall_is_paid_from_slack() {
        // 80 ms of slack from the first token, and the third uses all of it.
        assert_eq!(score(&[20 * MS, 50 * MS, 130 * MS], 100 * MS, 50 * MS), (3, 0));
        assert_eq!(score(&[20 * MS, 50 * MS, 130 * MS + 1], 100 * MS, 50 * MS), (2, 1));
    }

    #[test]
    fn a_late_token_resets_the_slack() {
        // The third is early by 9, but that does not bring back what the second cost.
        assert_eq!(score(&[0, 30, 1, 20], 0, 10), (2, 3));
    }

    #[test]
    fn delaying_one_token_alone_may_improve_the_index() {
        // The documented counter-example: the late first token resets the slack it would have cost.
        assert_eq!(score(&[5, 21], 3, 12), (0, 2));
        assert_eq!(score(&[20, 6], 3, 12), (1, 2));
    }

    #[test]
    fn no_deadline_is_no_index() {
        let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
        let deadlines = Deadlined { first_ns: 1, next_ns: 1 };
        assert_eq!(fluidity(&[], deadlines, &FluidityRule::default()).index(), None);
        assert_eq!(fluidity(&[5], deadlines, &rule).index(), None);
    }

    #[test]
    fn bounded_slack_does_not_carry_a_burst() {
        let rule =
            FluidityRule { max_slack: Some(Duration::from_nanos(10)), ..FluidityRule::default() };
        let burst = [0, 0, 0, 0, 100];
        let deadlines = Deadlined { first_ns: 50, next_ns: 50 };
        assert_eq!(fluidity(&burst, deadlines, &FluidityRule::default()).missed, 0);
        assert_eq!(fluidity(&burst, deadlines, &rule).missed, 1);
    }

    /// Constant gaps of k deadlines, the first token on time: `(n - 1) (k - 1)` missed.
    #[test]
    fn a_stream_at_a_multiple_of_the_deadline_misses_all_between() {
        for k in 1..6 {
            let mut gaps = vec![k * MS; 9];
            gaps[0] = 0;
            let missed = if k == 1 { 0 } else { 8 * (k - 1) };
            assert_eq!(score(&gaps, 0, MS).1, missed, "k = {k}");
        }
    }

    prop_compose! {
        fn a_stream()(gaps in proptest::collection::vec(0_u64..200, 0..40)) -> Vec<u64> { gaps }
    }

    fn index(gaps: &[u64], first_ns: u64, next_ns: u64, counting: CountingRule) -> f64 {
        let rule = FluidityRule { counting, ..FluidityRule::default() };
        fluidity(gaps, Deadlined { first_ns, next_ns }, &rule).index().unwrap_or(1.0)
    }

    proptest! {
        #[test]
        fn the_index_never_falls_when_a_deadline_grows(
            gaps in a_stream(), first in 0_u64..100, next in 1_u64..100, more in 0_u64..100,
        ) {
            for counting in [CountingRule::Exact, CountingRule::Paper, CountingRule::PerToken] {
                let before = index(&gaps, first, next, counting);
                prop_assert!(index(&gaps, first + more, next, counting) >= before);
                prop_assert!(index(&gaps, first, next + more, counting) >= before);
            }
        }

        #[test]
        fn the_index_never_rises_when_a_token_and_all_after_it_come_later(
            gaps in proptest::collection::vec(0_u64..200, 1..40),
            at in any::<prop::sample::Index>(),
            by in 0_u64..300, first in 0_u64..100, next in 1_u64..100,
        ) {
            let before = index(&gaps, first, next, CountingRule::Exact);
            let mut later = gaps;
            let at = at.index(later.len());
            later[at] += by;
            prop_assert!(index(&later, first, next, CountingRule::Exact) <= before);
        }

        #[test]
        fn scaling_all_times_and_deadlines_changes_nothing(
            gaps in a_stream(), first in 0_u64..100, next in 1_u64..100, by in 1_u64..1000,
        ) {
            let scaled: Vec<u64> = gaps.iter().map(|gap| gap * by).collect();
            prop_assert_eq!(score(&gaps, first, next), score(&scaled, first * by, next * by));
        }

        #[test]
        fn python_floor_division_is_exact_for_whole_numbers(a in 0_i64..1 << 40, b in 1_i64..1 << 20) {
            prop_assert_eq!(floor_divide(a as f64, b as f64), a.div_euclid(b) as f64);
        }
    }

    #[test]
    fn python_floor_division_rounds_as_python_does() {
        assert_eq!(floor_divide(1.0, 0.1), 9.0);
        assert_eq!(floor_divide(0.5, 0.1), 4.0);
        assert_eq!(floor_divide(0.3, 0.1), 2.0);
        assert_eq!(floor_divide(0.3, 0.03), 10.0);
    }
}
