use serde::{Deserialize, Serialize};

use crate::latency::Absent;

/// The p-th percentile (`p` from 0 to 1) of sorted values, interpolated linearly between order
/// statistics: NumPy's default, to the last bit, so that reports agree with the tools people know.
/// `None` of none.
pub fn interpolated(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = p.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[index(at.floor(), last)], sorted[index(at.ceil(), last)]);
    let part = at - at.floor();
    // From the nearer end, as NumPy does, so that both ends are met exactly.
    Some(match part {
        0.0 => low,
        part if part < 0.5 => low + (high - low) * part,
        part => high - (high - low) * (1.0 - part),
    })
}

/// The `ceil(p N)`-th smallest of sorted values: what objectives and the fluid token generation
/// rate use. `None` of none.
pub fn order_statistic<T: Copy>(sorted: &[T], p: f64) -> Option<T> {
    let last = sorted.len().checked_sub(1)?;
    // p N is exact in decimals that people write only up to rounding: 0.99 * 100 is 99.
    let rank = (p * sorted.len() as f64 - 1e-9).ceil();
    Some(sorted[index(rank - 1.0, last)])
}

fn index(at: f64, last: usize) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "clamped from below")]
    let at = at.max(0.0) as usize;
    at.min(last)
}

/// Whether `n` values say anything of the p-th percentile: whether its two-sided 95 % interval
/// from order statistics has an upper end, `P(all n below it) <= 2.5 %`. P50 takes 6, P90 takes
/// 36, P99 takes 368, by this rule for independent values; dependent ones take more.
pub fn supports(p: f64, n: usize) -> bool {
    let tail = p.max(1.0 - p);
    n as f64 * tail.ln() <= 0.025_f64.ln()
}

/// What is reported of a sample. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Values.
    pub n: usize,
    /// Requests that have no value because it cannot apply to them, or not yet.
    pub absent: usize,
    /// Requests that have no value because they failed, timed out or were cancelled.
    pub failed: usize,
    /// Their mean.
    pub mean: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// The 90th percentile, where n supports it.
    pub p90: Option<f64>,
    /// The 99th percentile, where n supports it.
    pub p99: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

impl Distribution {
    /// Of these values, and of the requests without one.
    pub fn of(sample: impl IntoIterator<Item = Result<f64, Absent>>) -> Self {
        let (mut values, mut absent, mut failed) = (Vec::new(), 0, 0);
        for value in sample {
            match value {
                Ok(value) => values.push(value),
                Err(Absent::Inapplicable) => absent += 1,
                Err(Absent::Failed) => failed += 1,
            }
        }
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        let supported = |p| supports(p, n).then(|| interpolated(&values, p)).flatten();
        Self {
            n,
            absent,
            failed,
            mean: (n > 0).then(|| values.iter().sum::<f64>() / n as f64),
            min: values.first().copied(),
            p50: interpolated(&values, 0.5),
            p90: supported(0.9),
            p99: supported(0.99),
            max: values.last().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_interpolate_as_numpy_does() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(interpolated(&values, 0.5), Some(3.0));
        let p90 = interpolated(&values, 0.9).expect("there are values");
        assert!((p90 - 6.8).abs() < 1e-12, "{p90}");
        assert_eq!(interpolated(&values, 1.0), Some(8.0));
        assert_eq!(interpolated(&[], 0.5), None);
    }

    #[test]
    fn order_statistics_are_values_of_the_sample() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(order_statistic(&hundred, 0.99), Some(99));
        assert_eq!(order_statistic(&hundred, 0.991), Some(100));
        assert_eq!(order_statistic(&hundred, 0.0), Some(1));
        assert_eq!(order_statistic::<u32>(&[], 0.5), None);
    }

    #[test]
    fn a_percentile_takes_a_sample_that_reaches_beyond_it() {
        let least = |p| (1..10_000).find(|n| supports(p, *n));
        assert_eq!(least(0.5), Some(6));
        assert_eq!(least(0.9), Some(36));
        assert_eq!(least(0.99), Some(368));
        assert_eq!(least(0.01), Some(368));
    }

    #[test]
    fn a_percentile_without_support_is_absent() {
        let distribution = Distribution::of((0..100).map(|i| Ok(f64::from(i))));
        assert_eq!((distribution.p99, distribution.max), (None, Some(99.0)));
        let distribution = Distribution::of((0..368).map(|i| Ok(f64::from(i))));
        assert!(distribution.p99.is_some_and(|p99| (p99 - 363.33).abs() < 1e-9));
    }

    #[test]
    fn what_is_absent_is_counted_by_its_cause_and_is_never_zero() {
        let sample = [Err(Absent::Failed), Ok(4.0), Err(Absent::Inapplicable), Err(Absent::Failed)];
        let distribution = Distribution::of(sample);
        let counts = (distribution.n, distribution.absent, distribution.failed);
        assert_eq!((counts, distribution.mean), ((1, 1, 2), Some(4.0)));
        assert_eq!(Distribution::of([Err(Absent::Inapplicable)]).mean, None);
    }

    proptest! {
        #[test]
        fn percentiles_rise_with_p_and_stay_within_the_sample(
            values in proptest::collection::vec(-1e9..1e9_f64, 1..40), p in 0.0..1.0_f64,
        ) {
            let mut values = values;
            values.sort_unstable_by(f64::total_cmp);
            let at = |p| interpolated(&values, p).expect("there are values");
            prop_assert!(at(p) <= at(f64::midpoint(p, 1.0)) + 1e-6);
            prop_assert!((values[0]..=values[values.len() - 1]).contains(&at(p)));
            prop_assert_eq!((at(0.0), at(1.0)), (values[0], values[values.len() - 1]));
        }
    }
}
