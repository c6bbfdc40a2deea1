use std::time::Duration;

use metron_trace::Deadlines;
use serde::{Deserialize, Serialize};

use crate::etalon;

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
    /// Slack never grows above this, in seconds; `None`: it is unbounded.
    #[serde(default, with = "crate::seconds::optional")]
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
        Self {
            first_ns: nanoseconds(deadlines.first_token),
            next_ns: nanoseconds(deadlines.next_token).max(1),
        }
    }
}

/// A span in nanoseconds; one that is too long for them is the longest.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
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
        let all = u128::from(self.met) + u128::from(self.missed);
        (all > 0).then(|| self.met as f64 / all as f64)
    }
}

/// The fluidity-index of a stream (arXiv 2407.07000, section 4.1): each token has a deadline;
/// being early earns slack for later ones; a token later than its deadline and the slack misses
/// every deadline that passed, and the next is counted from it.
///
/// `inter_token_ns` are `T_0 .. T_{n-1}`. The counts are exact for every stream that ends within
/// 584 years of its arrival: slack saturates at `u64::MAX` nanoseconds, which such a stream cannot
/// use up.
///
/// The index never falls when a deadline grows, and never rises when a token and all after it come
/// later. It may rise when one token **alone** comes later, because a miss resets the slack:
///
/// ```
/// use metron_metrics::{Deadlined, FluidityRule, fluidity};
///
/// let deadlines = Deadlined { first_ns: 3, next_ns: 12 };
/// let index = |gaps| fluidity(gaps, deadlines, &FluidityRule::default()).index();
/// assert_eq!(index(&[5, 21]), Some(0.0));
/// assert_eq!(index(&[20, 6]), Some(1.0 / 3.0)); // the first came 15 later, the last when it did
/// ```
pub fn fluidity(inter_token_ns: &[u64], deadlines: Deadlined, rule: &FluidityRule) -> Fluidity {
    of_gaps(inter_token_ns.iter().copied(), deadlines, rule)
}

/// The same of gaps that need not lie in memory.
pub(crate) fn of_gaps(
    inter_token_ns: impl Iterator<Item = u64>,
    deadlines: Deadlined,
    rule: &FluidityRule,
) -> Fluidity {
    let next_ns = deadlines.next_ns.max(1);
    match rule.counting {
        CountingRule::Exact => {
            count(inter_token_ns, deadlines, rule, |late_ns| late_ns.div_ceil(next_ns))
        }
        CountingRule::Paper => {
            count(inter_token_ns, deadlines, rule, |late_ns| (late_ns / next_ns).saturating_add(1))
        }
        CountingRule::PerToken => count(inter_token_ns, deadlines, rule, |_| 1),
        CountingRule::Etalon => etalon::fluidity(inter_token_ns, deadlines, rule),
    }
}

/// The recursion. `missed_by` says how many deadlines a token misses that is so late.
fn count(
    mut inter_token_ns: impl Iterator<Item = u64>,
    deadlines: Deadlined,
    rule: &FluidityRule,
    missed_by: impl Fn(u64) -> u64,
) -> Fluidity {
    let most_slack = rule.max_slack.map_or(u64::MAX, nanoseconds);
    let mut result = Fluidity { met: 0, missed: 0 };
    let mut slack = 0;
    let mut take = |gap: u64, due: u64| {
        let allowed = due.saturating_add(slack);
        if let Some(left) = allowed.checked_sub(gap) {
            slack = left.min(most_slack);
            result.met += 1;
        } else {
            result.missed = result.missed.saturating_add(missed_by(gap - allowed));
            slack = 0;
        }
    };
    let Some(first) = inter_token_ns.next() else { return result };
    if rule.with_first_token {
        take(first, deadlines.first_ns);
    }
    let next_ns = deadlines.next_ns.max(1);
    inter_token_ns.for_each(|gap| take(gap, next_ns));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    const INTEGER_RULES: [CountingRule; 3] =
        [CountingRule::Exact, CountingRule::Paper, CountingRule::PerToken];

    fn rule(counting: CountingRule) -> FluidityRule {
        FluidityRule { counting, ..FluidityRule::default() }
    }

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
    fn no_deadline_is_no_index_in_any_setting() {
        let deadlines = Deadlined { first_ns: 1, next_ns: 1 };
        for counting in INTEGER_RULES.into_iter().chain([CountingRule::Etalon]) {
            let decode = FluidityRule { with_first_token: false, ..rule(counting) };
            assert_eq!(fluidity(&[], deadlines, &rule(counting)).index(), None);
            assert_eq!(fluidity(&[5], deadlines, &decode).index(), None);
        }
    }

    #[test]
    fn bounded_slack_does_not_carry_a_burst() {
        let bounded =
            FluidityRule { max_slack: Some(Duration::from_nanos(10)), ..FluidityRule::default() };
        let burst = [0, 0, 0, 0, 100];
        let deadlines = Deadlined { first_ns: 50, next_ns: 50 };
        assert_eq!(fluidity(&burst, deadlines, &FluidityRule::default()).missed, 0);
        assert_eq!(fluidity(&burst, deadlines, &bounded).missed, 1);
    }

    #[test]
    fn the_longest_times_are_counted_without_overflow() {
        for counting in INTEGER_RULES.into_iter().chain([CountingRule::Etalon]) {
            let deadlines = Deadlined { first_ns: 0, next_ns: 1 };
            let late = fluidity(&[u64::MAX, u64::MAX], deadlines, &rule(counting));
            assert!(late.index().is_some_and(|index| index < 0.5), "{counting:?}: {late:?}");
            let deadlines = Deadlined { first_ns: u64::MAX, next_ns: u64::MAX };
            let early = fluidity(&[0, u64::MAX, 0], deadlines, &rule(counting));
            assert_eq!(early, Fluidity { met: 3, missed: 0 });
        }
    }

    prop_compose! {
        fn a_stream()(gaps in proptest::collection::vec(0_u64..200, 0..40)) -> Vec<u64> { gaps }
    }

    prop_compose! {
        fn any_rule()(
            counting in prop::sample::select(INTEGER_RULES.to_vec()),
            with_first_token: bool,
            max_slack in proptest::option::of(0_u64..300),
        ) -> FluidityRule {
            let max_slack = max_slack.map(Duration::from_nanos);
            FluidityRule { counting, with_first_token, max_slack }
        }
    }

    /// A stream without an index counts as perfect, so that it compares.
    fn index(gaps: &[u64], first_ns: u64, next_ns: u64, rule: &FluidityRule) -> f64 {
        fluidity(gaps, Deadlined { first_ns, next_ns }, rule).index().unwrap_or(1.0)
    }

    /// The definition, word for word, in integers too wide to overflow.
    fn by_definition(gaps: &[u64], first: u64, next: u64, rule: &FluidityRule) -> (u64, u64) {
        let (mut slack, mut met, mut missed) = (0_i128, 0, 0_i128);
        let most = rule.max_slack.map_or(i128::MAX, |most| i128::from(nanoseconds(most)));
        let next = i128::from(next);
        for (i, gap) in gaps.iter().enumerate().skip(usize::from(!rule.with_first_token)) {
            let due = if i == 0 { i128::from(first) } else { next };
            let late = i128::from(*gap) - slack - due;
            if late <= 0 {
                met += 1;
                slack = (-late).min(most);
                continue;
            }
            missed += match rule.counting {
                CountingRule::Exact => (late + next - 1) / next,
                CountingRule::Paper => late / next + 1,
                CountingRule::PerToken | CountingRule::Etalon => 1,
            };
            slack = 0;
        }
        (met, u64::try_from(missed).expect("as many deadlines as nanoseconds at most"))
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_the_definition(
            gaps in a_stream(), first in 0_u64..100, next in 1_u64..100, rule in any_rule(),
        ) {
            let got = fluidity(&gaps, Deadlined { first_ns: first, next_ns: next }, &rule);
            prop_assert_eq!((got.met, got.missed), by_definition(&gaps, first, next, &rule));
        }

        /// Deadlines near the end of the clock, where slack saturates.
        #[test]
        fn saturated_slack_counts_as_slack_without_end(
            parts in proptest::collection::vec(any::<u64>(), 1..20),
            first in any::<u64>(), next in 1_u64.., rule in any_rule(),
        ) {
            let rule = FluidityRule { max_slack: None, ..rule };
            // Gaps of a stream add up to a time that a clock can show.
            let gaps: Vec<u64> = parts.iter().map(|part| part / parts.len() as u64).collect();
            let got = fluidity(&gaps, Deadlined { first_ns: first, next_ns: next }, &rule);
            prop_assert_eq!((got.met, got.missed), by_definition(&gaps, first, next, &rule));
        }

        #[test]
        fn the_index_is_a_share(
            gaps in a_stream(), first in 0_u64..100, next in 1_u64..100, rule in any_rule(),
        ) {
            let counted = fluidity(&gaps, Deadlined { first_ns: first, next_ns: next }, &rule);
            let scored = gaps.len().saturating_sub(usize::from(!rule.with_first_token));
            prop_assert!(counted.index().is_none_or(|index| (0.0..=1.0).contains(&index)));
            prop_assert_eq!(counted.index().is_none(), scored == 0);
            prop_assert!(counted.met + counted.missed >= scored as u64);
        }

        #[test]
        fn the_index_never_falls_when_a_deadline_grows(
            gaps in a_stream(), first in 0_u64..100, next in 1_u64..100, more in 0_u64..100,
            rule in any_rule(),
        ) {
            let before = index(&gaps, first, next, &rule);
            prop_assert!(index(&gaps, first + more, next, &rule) >= before);
            prop_assert!(index(&gaps, first, next + more, &rule) >= before);
        }

        #[test]
        fn the_index_never_rises_when_a_token_and_all_after_it_come_later(
            gaps in proptest::collection::vec(0_u64..200, 1..40),
            at in any::<prop::sample::Index>(),
            by in 0_u64..300, first in 0_u64..100, next in 1_u64..100, rule in any_rule(),
        ) {
            let before = index(&gaps, first, next, &rule);
            let mut later = gaps;
            let at = at.index(later.len());
            later[at] += by;
            prop_assert!(index(&later, first, next, &rule) <= before);
        }

        #[test]
        fn scaling_all_times_and_deadlines_changes_nothing(
            gaps in a_stream(), first in 0_u64..100, next in 1_u64..100, by in 1_u64..1000,
        ) {
            let scaled: Vec<u64> = gaps.iter().map(|gap| gap * by).collect();
            prop_assert_eq!(score(&gaps, first, next), score(&scaled, first * by, next * by));
        }
    }
}
