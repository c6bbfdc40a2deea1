use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::interval::{CONFIDENCE, Interval};
use crate::percentile::order_statistic;

/// Batches of a run. More of them make the variance less uncertain (its degrees of freedom are one
/// less), and each shorter.
const BATCHES: usize = 32;

/// The first tenth of a run is left out: it starts with an empty queue.
const WARM_UP_PARTS: usize = 10;

/// Effective values that a batch has to hold, so that batches are nearly independent.
const LEAST_PER_BATCH: f64 = 10.0;

/// Effective values that a run has to hold.
const LEAST_VALUES: f64 = LEAST_PER_BATCH * BATCHES as f64;

/// Effective values that have to lie beyond a percentile or a limit.
const LEAST_BEYOND: f64 = 25.0;

/// How much of its need over what it has widens a run that is only just long enough.
const CAUTION: f64 = 2.0;

/// How much greater the design effect may be by whole batches than by half ones: where it still
/// grows with the length, the batches are shorter than what they should cover.
const MOST_GROWTH: f64 = 1.3;

/// A steady-state quantity, from one long run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Steady {
    /// The estimate.
    pub value: f64,
    /// Where the quantity lies, at 95 %.
    pub interval: Interval,
    /// Independent values that would say as much.
    pub effective: f64,
}

/// Why a run gives no interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NoInterval {
    /// It is too short for its own fluctuations.
    #[error(
        "the run is too short: its {values} values{}; about {needed} would do",
        effective.map_or_else(
            || " are few".to_owned(),
            |effective| format!(" are worth {effective:.0} independent ones")
        )
    )]
    TooShort {
        /// Values in the run.
        values: usize,
        /// Independent values that would say as much; `None` of too few values to tell.
        effective: Option<f64>,
        /// Values that would be enough, by what this run shows; if it shows nothing yet, the least
        /// that ever are.
        needed: usize,
    },
    /// Its values are alike: how they depend on each other can't be seen.
    #[error("too little varies among the run's {values} values")]
    NothingVaries {
        /// Values in the run.
        values: usize,
    },
}

/// The mean of a run's values, in the order in which they came, by batch means.
///
/// The run is cut into 32 batches; their means vary as much as the run's mean would if it were made
/// 32 times as often, whatever the dependence within a batch. The length rule refuses a run whose
/// batches hold fewer than 10 effective values each, or whose variance still grows by more than
/// 30 % from half a batch to a whole one. A run that passes only just has passed partly because it
/// looked calm, and its interval is made wider: its variance is multiplied by
/// `1 + 2 (needed / effective)^2`, which goes to 1 in long runs.
pub fn steady_mean(values: &[f64]) -> Result<Steady, NoInterval> {
    let values = without_warm_up(values);
    if let Some(constant) = constant(values) {
        return Ok(constant);
    }
    let batches = Batches::of(values.len(), |at| values[at])?;
    let spread = values.iter().map(|value| (value - batches.mean).powi(2)).sum::<f64>();
    let effective = spread / values.len() as f64 / batches.variance;
    batches.check(values.len(), effective, LEAST_VALUES)?;
    let variance = batches.variance * caution(effective, LEAST_VALUES);
    let interval = Interval::around(batches.mean, quantile() * variance.sqrt());
    Ok(Steady { value: batches.mean, interval, effective })
}

/// The p-th percentile of a run's values (`p` from 0 to 1), in the order in which they came: the
/// interval of the share beyond it, by batch means of the indicator, read off the values in order.
/// Besides the rules of [`steady_mean`], 25 effective values have to lie on its scarcer side.
pub fn steady_percentile(values: &[f64], p: f64) -> Result<Steady, NoInterval> {
    let values = without_warm_up(values);
    if let Some(constant) = constant(values) {
        return Ok(constant);
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = order_statistic(&sorted, p).ok_or_else(|| too_few(0))?;
    let share = share_interval(values.len(), |nth| values[nth] > at, Some(1.0 - p))?;
    // The share beyond falls as the value rises.
    let at_rank = |share: f64| order_statistic(&sorted, 1.0 - share).unwrap_or(at);
    let above = (share.interval.low - 1.0 / values.len() as f64).max(0.0);
    let interval = Interval { low: at_rank(share.interval.high), high: at_rank(above) };
    Ok(Steady { value: at, interval, effective: share.effective })
}

/// The share of a run's requests that are so, in the order in which they came: Wilson's interval
/// with the effective number of requests, by the rules of [`steady_percentile`].
pub fn steady_share(are_so: &[bool]) -> Result<Steady, NoInterval> {
    let are_so = without_warm_up(are_so);
    share_interval(are_so.len(), |at| are_so[at], None)
}

/// Of a share that is `known` where the indicator was made for it, as a percentile's is.
fn share_interval(
    n: usize,
    is_so: impl Fn(usize) -> bool,
    known: Option<f64>,
) -> Result<Steady, NoInterval> {
    let indicator = |at| f64::from(u8::from(is_so(at)));
    let batches = Batches::of(n, indicator)?;
    let share = known.unwrap_or(batches.mean);
    let effective = share * (1.0 - share) / batches.variance;
    let scarcer = share.min(1.0 - share);
    if batches.variance <= 0.0 || scarcer <= 0.0 {
        return Err(too_alike(n));
    }
    let least = LEAST_VALUES.max(LEAST_BEYOND / scarcer);
    batches.check(n, effective, least)?;
    let interval = wilson(share, effective / caution(effective, least));
    Ok(Steady { value: share, interval, effective })
}

fn without_warm_up<T>(values: &[T]) -> &[T] {
    &values[values.len() / WARM_UP_PARTS..]
}

/// Values that are all the same have no dependence to measure.
fn constant(values: &[f64]) -> Option<Steady> {
    let first = *values.first()?;
    let are_enough = values.len() as f64 >= LEAST_VALUES;
    (are_enough && values.iter().all(|value| value.total_cmp(&first).is_eq())).then_some(Steady {
        value: first,
        interval: Interval { low: first, high: first },
        effective: values.len() as f64,
    })
}

/// A run that shows nothing yet: it takes at least as many values as if they were independent.
fn too_few(values: usize) -> NoInterval {
    #[expect(clippy::cast_sign_loss, reason = "a count")]
    let needed = LEAST_VALUES as usize;
    NoInterval::TooShort { values, effective: None, needed }
}

/// A run in which nothing varies: in one of few values, nothing does yet.
fn too_alike(values: usize) -> NoInterval {
    let are_few = (values as f64) < LEAST_VALUES;
    if are_few { too_few(values) } else { NoInterval::NothingVaries { values } }
}

/// What the variance of a run that needed `least` effective values is multiplied with.
fn caution(effective: f64, least: f64) -> f64 {
    1.0 + CAUTION * (least / effective).powi(2)
}

/// The t quantile of an interval from the batches.
fn quantile() -> f64 {
    StudentsT::new(0.0, 1.0, (BATCHES - 1) as f64)
        .map_or(f64::INFINITY, |t| t.inverse_cdf(0.5 + CONFIDENCE / 2.0))
}

/// Wilson's score interval of a share of `n` effective values, with t for the normal quantile.
fn wilson(share: f64, n: f64) -> Interval {
    let square = quantile().powi(2);
    let middle = (share + square / (2.0 * n)) / (1.0 + square / n);
    let half_width = quantile() / (1.0 + square / n)
        * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    Interval::around(middle, half_width)
}

/// A run in batches: the mean, and its variance by whole and by half batches.
struct Batches {
    mean: f64,
    variance: f64,
    variance_by_halves: f64,
}

impl Batches {
    /// Refused of fewer values than half batches. What is left over is left out at the start.
    fn of(n: usize, value: impl Fn(usize) -> f64) -> Result<Self, NoInterval> {
        let length = n / (2 * BATCHES);
        if length == 0 {
            return Err(too_few(n));
        }
        let first = n - 2 * BATCHES * length;
        let half = |nth: usize| {
            let from = first + nth * length;
            (from..from + length).map(&value).sum::<f64>() / length as f64
        };
        let halves: Vec<f64> = (0..2 * BATCHES).map(half).collect();
        let whole: Vec<f64> =
            halves.chunks(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
        let mean = whole.iter().sum::<f64>() / BATCHES as f64;
        let variance = |means: &[f64]| {
            let squares: f64 = means.iter().map(|own| (own - mean).powi(2)).sum();
            squares / (means.len() - 1) as f64 / means.len() as f64
        };
        Ok(Self { mean, variance: variance(&whole), variance_by_halves: variance(&halves) })
    }

    /// The length rule.
    fn check(&self, values: usize, effective: f64, least: f64) -> Result<(), NoInterval> {
        let growth = self.variance / self.variance_by_halves;
        if effective >= least && growth <= MOST_GROWTH {
            return Ok(());
        }
        // Where the variance still grows, twice the length is the least that can show where it ends.
        let times = (least / effective).max(if growth > MOST_GROWTH { 2.0 } else { 1.0 });
        let needed = rounded_up(values as f64 * times).ok_or_else(|| too_alike(values))?;
        Err(NoInterval::TooShort { values, effective: Some(effective), needed })
    }
}

/// Two digits: a length that people can read.
fn rounded_up(count: f64) -> Option<usize> {
    let unit = 10_f64.powf(count.log10().floor() - 1.0).max(1.0);
    #[expect(clippy::cast_sign_loss, reason = "a count")]
    let rounded = ((count / unit).ceil() * unit) as usize;
    count.is_finite().then_some(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scattered values without a generator.
    fn scattered(n: u64) -> Vec<f64> {
        let scatter = |at: u64| at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        (0..n).map(|at| scatter(at * 7919) as f64 / f64::from(1 << 24)).collect()
    }

    #[test]
    fn values_that_stand_four_times_are_worth_a_quarter() {
        let once = steady_mean(&scattered(40_000)).expect("the run is long");
        let values = scattered(10_000).into_iter().flat_map(|value| [value; 4]);
        let repeated = steady_mean(&values.collect::<Vec<_>>()).expect("the run is long");
        let ratio = once.effective / repeated.effective;
        assert!((1.5..12.0).contains(&ratio), "{ratio}");
        assert!(once.interval.contains(0.5), "{once:?}");
    }

    #[test]
    fn a_short_run_says_how_many_values_it_takes() {
        let error = steady_percentile(&scattered(1_000), 0.99).expect_err("ten lie beyond");
        let NoInterval::TooShort { needed, .. } = error else { panic!("{error}") };
        assert!(needed > 1_000, "{error}");
        assert!(error.to_string().starts_with("the run is too short: its 900 values"), "{error}");
    }

    #[test]
    fn a_run_of_few_values_is_short_and_a_long_one_in_which_nothing_varies_is_not() {
        for few in [0, 10, 60] {
            let error = steady_percentile(&scattered(few), 0.5).expect_err("there are few");
            assert!(matches!(error, NoInterval::TooShort { needed: 320, .. }), "{error}");
        }
        assert_eq!(steady_mean(&[]), Err(too_few(0)));
        assert_eq!(steady_share(&[true; 100]), Err(too_few(90)));
        assert_eq!(steady_share(&[true; 5_000]), Err(NoInterval::NothingVaries { values: 4_500 }));
    }

    #[test]
    fn a_drifting_run_is_never_long_enough() {
        let drifting: Vec<f64> = (0..20_000).map(f64::from).collect();
        assert!(steady_mean(&drifting).is_err());
        assert!(steady_percentile(&drifting, 0.5).is_err());
    }

    #[test]
    fn a_constant_run_is_known_exactly() {
        let steady = steady_percentile(&[2.0; 1_000], 0.99).expect("there is nothing to doubt");
        assert_eq!((steady.value, steady.interval.low, steady.interval.high), (2.0, 2.0, 2.0));
    }
}
