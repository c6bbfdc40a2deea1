//! Streams whose fluidity and rate have a closed form.

#![expect(clippy::float_cmp, reason = "rates of whole nanoseconds are exact")]

use metron_metrics::{
    CountingRule, Deadlined, FluidityRule, RateTarget, Stream, fluid_rate, fluidity,
};

const MS: u64 = 1_000_000;
/// The first token's deadline.
const FIRST: u64 = 100 * MS;
/// Each later token's.
const NEXT: u64 = 20 * MS;

/// (met, missed) by the exact rule and by the papers'.
fn scores(gaps: &[u64]) -> [(u64, u64); 2] {
    [CountingRule::Exact, CountingRule::Paper].map(|counting| {
        let rule = FluidityRule { counting, ..FluidityRule::default() };
        let scored = fluidity(gaps, Deadlined { first_ns: FIRST, next_ns: NEXT }, &rule);
        (scored.met, scored.missed)
    })
}

/// The first token on its deadline, then `n - 1` gaps.
fn steady(gap: u64, n: usize) -> Vec<u64> {
    let mut gaps = vec![gap; n];
    gaps[0] = FIRST;
    gaps
}

#[test]
fn a_stream_at_the_deadlines_pace_misses_nothing() {
    for n in 1..10 {
        assert_eq!(scores(&steady(NEXT, n)), [(n as u64, 0); 2], "n = {n}");
    }
}

/// Gaps of k deadlines: each later token misses the k - 1 between, and by the papers' rule also
/// the one that it is exactly on.
#[test]
fn a_stream_at_a_multiple_of_the_deadline_misses_those_between() {
    for k in 2..7 {
        for n in 1..8 {
            let later = n as u64 - 1;
            let [exact, paper] = scores(&steady(k * NEXT, n));
            assert_eq!(exact, (1, later * (k - 1)), "k = {k}, n = {n}");
            assert_eq!(paper, (1, later * k), "k = {k}, n = {n}");
        }
    }
}

/// One stall S after j tokens at gap r, the first one at t: the slack is
/// `(j - 1)(D - r) + (T - t)`, and the stall misses nothing if it is within a deadline and that.
#[test]
fn a_stall_is_paid_by_the_slack_that_was_earned() {
    for j in 1..6_u64 {
        for gap in [0, 5 * MS, 20 * MS] {
            for first in [40 * MS, FIRST] {
                let slack = (j - 1) * (NEXT - gap) + (FIRST - first);
                for stall in [NEXT + slack, NEXT + slack + 1, 3 * NEXT + slack, 400 * MS + slack] {
                    let mut gaps = vec![gap; j as usize];
                    gaps[0] = first;
                    gaps.push(stall);
                    let late = stall - NEXT - slack;
                    let met = j + u64::from(late == 0);
                    let [exact, paper] = scores(&gaps);
                    assert_eq!(exact, (met, late.div_ceil(NEXT)), "{gaps:?}");
                    let missed = if late == 0 { 0 } else { late / NEXT + 1 };
                    assert_eq!(paper, (met, missed), "{gaps:?}");
                }
            }
        }
    }
}

#[test]
fn a_late_first_token_misses_in_units_of_the_later_ones() {
    for late in [1, NEXT - 1, NEXT, NEXT + 1, 7 * NEXT] {
        let [exact, paper] = scores(&[FIRST + late, NEXT]);
        assert_eq!(exact, (1, late.div_ceil(NEXT)), "late by {late}");
        assert_eq!(paper, (1, late / NEXT + 1), "late by {late}");
    }
}

#[test]
fn tokens_of_one_step_earn_a_deadline_each() {
    for burst in 1..6 {
        let mut gaps = vec![0; burst];
        gaps[0] = FIRST;
        gaps.push(burst as u64 * NEXT);
        assert_eq!(scores(&gaps), [(burst as u64 + 1, 0); 2], "{burst} at once");
        gaps[burst] += 1;
        assert_eq!(scores(&gaps), [(burst as u64, 1); 2], "{burst} at once");
    }
}

#[test]
fn a_stream_of_one_gap_has_that_gaps_rate() {
    let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
    for gap in [1, 1000, 2 * MS, 2_500_000, 1_000 * MS] {
        let gaps = steady(gap, 40);
        let stream = Stream::Served { inter_token_ns: &gaps, first_ns: 0 };
        let rate = fluid_rate([stream], &rule, RateTarget::default());
        assert_eq!(rate.tokens_per_second, 1e9 / gap as f64, "a token every {gap} ns");
    }
}

/// The figure of arXiv 2507.09019: 20 tokens at 40 ms with a stall of 160 ms, `D_d` 50 ms. The same
/// stall costs a deadline early on and nothing at the end.
#[test]
fn the_same_stall_costs_less_when_slack_was_earned_before() {
    let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
    let deadlines = Deadlined { first_ns: 0, next_ns: 50 * MS };
    let index = |stalled: usize| {
        let mut gaps = [40 * MS; 21];
        gaps[stalled] = 160 * MS;
        fluidity(&gaps, deadlines, &rule).index()
    };
    assert_eq!((index(8), index(20)), (Some(0.95), Some(1.0)));
}
