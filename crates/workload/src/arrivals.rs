use std::fmt;
use std::time::Duration;

use metron_trace::Timestamp;
use rand::Rng;
use rand_distr::{Distribution, Gamma};

use crate::error::WorkloadError;
use crate::recorded::RecordedRequest;
use crate::spec::Arrivals;

/// The end of a clock of 64-bit nanoseconds, in seconds, rounded down: 570 years.
const LAST_ARRIVAL_S: f64 = 1.8e10;

/// The arrival of each of `count` requests, in order; `replayed` are those whose recorded arrivals
/// they take.
///
/// Gaps are drawn with a mean of one and divided by the rate: the same seed gives the same
/// arrivals at every rate, scaled.
pub(crate) fn arrivals(
    spec: &Arrivals,
    count: u32,
    replayed: &[RecordedRequest],
    rng: &mut impl Rng,
) -> Result<Vec<Timestamp>, WorkloadError> {
    match *spec {
        Arrivals::Gamma { request_rate, burstiness } => {
            check_rate("request_rate", request_rate)?;
            check_rate("burstiness", burstiness)?;
            let unit = Gamma::new(burstiness, 1.0 / burstiness).map_err(|error| {
                bad("burstiness", burstiness, &format!("a shape of a gamma distribution ({error})"))
            })?;
            // The first request comes after a gap too: a Poisson process, seen from any instant.
            let gaps = (0..count).map(|_| unit.sample(rng) / request_rate);
            let times = gaps.scan(0.0, |now, gap| {
                *now += gap;
                Some(*now)
            });
            timestamps(times, "request_rate", request_rate)
        }
        Arrivals::Constant { request_rate } => {
            check_rate("request_rate", request_rate)?;
            let times = (0..count).map(|i| f64::from(i) / request_rate);
            timestamps(times, "request_rate", request_rate)
        }
        Arrivals::AllAtOnce => Ok(vec![Timestamp::ZERO; count as usize]),
        Arrivals::Recorded { ref path, speed } => {
            check_rate("speed", speed)?;
            let times: Option<Vec<f64>> = replayed.iter().map(|row| row.arrived_at).collect();
            let times = times.ok_or_else(|| WorkloadError::File {
                path: path.clone(),
                cause: "it has lengths but no arrival times; give --request-rate".to_owned(),
            })?;
            let first = times.first().copied().unwrap_or_default();
            timestamps(times.into_iter().map(|time| (time - first) / speed), "speed", speed)
        }
    }
}

/// Seconds as points in time; `field` is what to change where they are beyond all clocks.
fn timestamps(
    seconds: impl Iterator<Item = f64>,
    field: &str,
    value: f64,
) -> Result<Vec<Timestamp>, WorkloadError> {
    seconds
        .map(|at| {
            let span = Duration::try_from_secs_f64(at).ok().filter(|_| at < LAST_ARRIVAL_S);
            span.map(|span| Timestamp::ZERO + span)
        })
        .collect::<Option<_>>()
        .ok_or_else(|| bad(field, value, "such that the last request arrives within 570 years"))
}

fn check_rate(field: &str, value: f64) -> Result<(), WorkloadError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(bad(field, value, "a number above 0"))
}

pub(crate) fn bad(field: &str, value: impl fmt::Display, allowed: &str) -> WorkloadError {
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

    /// A process whose gaps are cut off, as the original tool's are at three means, has none above.
    #[test]
    fn poisson_gaps_are_not_cut_off() {
        let gaps = gaps(1.0, 1.0, 3);
        let long = gaps.iter().filter(|gap| **gap > 3.0).count() as f64 / gaps.len() as f64;
        // e^-3, within four standard errors.
        assert!((long - 0.0498).abs() < 0.0062, "{long}");
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced_from_the_start() {
        let spec = Arrivals::Constant { request_rate: 4.0 };
        let times = arrivals(&spec, 4, &[], &mut stream(0, 0, Stream::Arrivals));
        let ms: Vec<u64> =
            times.expect("the rate is fine").iter().map(|t| t.as_nanos() / 1_000_000).collect();
        assert_eq!(ms, [0, 250, 500, 750]);
    }

    #[test]
    fn a_rate_whose_requests_never_come_is_refused() {
        for spec in [
            Arrivals::Constant { request_rate: 1e-11 },
            Arrivals::Gamma { request_rate: 1e-300, burstiness: 1.0 },
            Arrivals::Gamma { request_rate: f64::MIN_POSITIVE, burstiness: 1.0 },
        ] {
            let error = arrivals(&spec, 2, &[], &mut stream(0, 0, Stream::Arrivals));
            let message = error.expect_err("the clock ends before").to_string();
            assert!(message.ends_with("arrives within 570 years"), "{message}");
        }
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
