use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::interval::Interval;
use crate::percentile::interpolated;

/// Fewer values than this resample to too few different means.
const LEAST_FOR_BOOTSTRAP: usize = 20;

const RESAMPLES: u32 = 4_000;

/// The interval of a mean from resampled values (percentile bootstrap; Efron 1979). Only for values
/// of different seeds: requests of one run are not independent. Drawn from a fixed seed, so that
/// the same values have the same interval. `None` of fewer than 20.
pub fn bootstrap_mean(values: &[f64], confidence: f64) -> Option<Interval> {
    if values.len() < LEAST_FOR_BOOTSTRAP {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut resampled = || {
        let drawn = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]);
        drawn.sum::<f64>() / values.len() as f64
    };
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resampled()).collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: interpolated(&means, tail)?, high: interpolated(&means, 1.0 - tail)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Sample;

    #[test]
    fn it_agrees_with_t_where_the_values_are_many_and_tame() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 60)).collect();
        assert_eq!(bootstrap_mean(&values[..19], 0.95), None);
        let by_t = Sample::of(&values).and_then(|s| s.interval(0.95)).expect("there are values");
        let drawn = bootstrap_mean(&values, 0.95).expect("there are enough");
        assert!((drawn.low - by_t.low).abs() < 0.6 && (drawn.high - by_t.high).abs() < 0.6);
    }
}
