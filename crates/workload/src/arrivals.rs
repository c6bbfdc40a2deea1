use metron_trace::Timestamp;
use rand::Rng;
use rand_distr::{Distribution, Gamma};

use crate::error::WorkloadError;
use crate::recorded::RecordedRequest;
use crate::spec::Arrivals;

/// The arrival of each of `count` requests, in order.
///
/// Gaps are drawn with a mean of one and divided by the rate: the same seed gives the same
/// arrivals at every rate, scaled.
pub(crate) fn arrivals(
    spec: &Arrivals,
    count: u32,
    recorded: &[RecordedRequest],
    rng: &mut impl Rng,
) -> Result<Vec<Timestamp>, WorkloadError> {
    match *spec {
        Arrivals::Gamma { request_rate, burstiness } => {
            check_rate("request_rate", request_rate)?;
            check_rate("burstiness", burstiness)?;
            let unit = Gamma::new(burstiness, 1.0 / burstiness).map_err(|error| {
                bad("burstiness", burstiness, &format!("a shape of a gamma distribution ({error})"))
            })?;
            Ok(at_gaps((0..count).map(|_| unit.sample(rng) / request_rate)))
        }
        Arrivals::Constant { request_rate } => {
            check_rate("request_rate", request_rate)?;
            Ok((0..count).map(|i| at(f64::from(i) / request_rate)).collect())
        }
        Arrivals::AllAtOnce => Ok(vec![Timestamp::ZERO; count as usize]),
        Arrivals::Recorded { ref path, speed } => {
            check_rate("speed", speed)?;
            let times: Option<Vec<f64>> =
                recorded.iter().take(count as usize).map(|r| r.arrived_at).collect();
            let times = times.ok_or_else(|| WorkloadError::File {
                path: path.clone(),
                cause: "it has lengths but no arrival times; give --request-rate".to_owned(),
            })?;
            let first = times.first().copied().unwrap_or_default();
            Ok(times.into_iter().map(|time| at((time - first) / speed)).collect())
        }
    }
}

/// The first request comes after a gap too: arrivals of a Poisson process, seen from any instant.
fn at_gaps(gaps: impl Iterator<Item = f64>) -> Vec<Timestamp> {
    gaps.scan(0.0, |now, gap| {
        *now += gap;
        Some(at(*now))
    })
    .collect()
}

fn at(seconds: f64) -> Timestamp {
    let span = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    Timestamp::ZERO + span
}

fn check_rate(field: &str, value: f64) -> Result<(), WorkloadError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(bad(field, value, "a number above 0"))
}

pub(crate) fn bad(field: &str, value: impl std::fmt::Display, allowed: &str) -> WorkloadError {
    WorkloadError::BadNumber {
        field: field.to_owned(),
        value: value.to_string(),
        allowed: allowed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Stream, stream};
    use proptest::prelude::*;

    fn gaps(request_rate: f64, burstiness: f64, seed: u64) -> Vec<f64> {
        let spec = Arrivals::Gamma { request_rate, burstiness };
        let mut rng = stream(seed, 0, Stream::Arrivals);
        let times = arrivals(&spec, 20_000, &[], &mut rng).expect("the numbers are fine");
        let mut before = 0.0;
        let gap =
            |at: &Timestamp| at.as_secs_f64() - std::mem::replace(&mut before, at.as_secs_f64());
        times.iter().map(gap).collect()
    }

    /// Mean and coefficient of variation.
    fn moments(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn poisson_gaps_have_the_asked_mean_and_a_variation_of_one() {
        let (mean, variation) = moments(&gaps(4.0, 1.0, 3));
        // Four standard errors of 20,000 draws.
        assert!((mean * 4.0 - 1.0).abs() < 0.03, "{mean}");
        assert!((variation - 1.0).abs() < 0.04, "{variation}");
    }

    #[test]
    fn burstier_gaps_vary_more() {
        let (mean, variation) = moments(&gaps(4.0, 0.25, 3));
        assert!((mean * 4.0 - 1.0).abs() < 0.06, "{mean}");
        assert!((variation - 2.0).abs() < 0.15, "{variation}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn another_rate_scales_the_same_gaps(seed in any::<u64>(), by in 0.1..10.0_f64) {
            let (slow, fast) = (gaps(1.0, 1.0, seed), gaps(by, 1.0, seed));
            for (slow, fast) in slow.iter().zip(&fast).take(100) {
                prop_assert!((slow / by - fast).abs() < 1e-5);
            }
        }

        #[test]
        fn a_rate_that_is_no_rate_is_refused(
            rate in prop::sample::select(vec![0.0, -1.0, f64::NAN, f64::INFINITY]),
        ) {
            let spec = Arrivals::Constant { request_rate: rate };
            let error = arrivals(&spec, 1, &[], &mut stream(0, 0, Stream::Arrivals));
            let message = error.expect_err("it is no rate").to_string();
            prop_assert!(message.ends_with("it must be a number above 0"), "{}", message);
        }
    }
}
