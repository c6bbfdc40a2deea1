use serde::{Deserialize, Serialize};

/// The p-th percentile (`p` from 0 to 1) of sorted values, interpolated linearly between order
/// statistics: NumPy's default, so that reports agree with the tools people know. `None` of none.
pub fn interpolated(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = p.clamp(0.0, 1.0) * last as f64;
    let below = index(at.floor(), last);
    let above = index(at.ceil(), last);
    let (low, high) = (sorted[below], sorted[above]);
    Some(if below == above { low } else { low + (at - at.floor()) * (high - low) })
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
    /// Requests that have no value, because it cannot apply to them.
    pub absent: usize,
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
    /// Of these values, and of so many requests without one.
    pub fn of(mut values: Vec<f64>, absent: usize) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        let supported = |p| supports(p, n).then(|| interpolated(&values, p)).flatten();
        Self {
            n,
            absent,
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
        let distribution = Distribution::of((0..100).map(f64::from).collect(), 3);
        assert_eq!((distribution.p99, distribution.max), (None, Some(99.0)));
        assert_eq!((distribution.n, distribution.absent), (100, 3));
    }
}
