use std::time::Duration;

use metron_trace::{PrefillCurve, PrefillFit};
use ndarray::{Array1, Array2};

/// Fits `a + b P + c P^2` to isolated prefill times, by non-negative least squares on relative
/// errors, so that a short prompt counts as much as a long one. Points without tokens or without
/// time are left out; `None` without points.
pub fn fit_prefill(points: &[(u32, Duration)]) -> Option<PrefillFit> {
    let measured: Vec<(f64, f64)> = points
        .iter()
        .map(|(tokens, time)| (f64::from(*tokens), time.as_secs_f64()))
        .filter(|(tokens, seconds)| *tokens > 0.0 && *seconds > 0.0)
        .collect();
    let longest = measured.iter().map(|(tokens, _)| *tokens).reduce(f64::max)?;
    // In units of the longest prompt, so that all three columns are of like size.
    let rows = Array2::from_shape_fn((measured.len(), 3), |(row, power)| {
        let (tokens, seconds) = measured[row];
        let share = tokens / longest;
        [1.0, share, share * share][power] / seconds
    });
    let (coefficients, _) = nnls::nnls(rows.view(), Array1::ones(measured.len()).view());
    let curve = PrefillCurve {
        a: coefficients[0],
        b: coefficients[1] / longest,
        c: coefficients[2] / (longest * longest),
    };
    let squares = measured.iter().map(|(tokens, seconds)| {
        ((curve.c * tokens + curve.b).mul_add(*tokens, curve.a) / seconds - 1.0).powi(2)
    });
    let relative_residual = (squares.sum::<f64>() / measured.len() as f64).sqrt();
    Some(PrefillFit { curve, points: points.to_vec(), relative_residual })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_fitted_to_nothing() {
        assert_eq!(fit_prefill(&[]), None);
        assert_eq!(fit_prefill(&[(0, Duration::from_millis(1)), (9, Duration::ZERO)]), None);
    }

    #[test]
    fn one_length_is_predicted_as_measured() {
        let times = [Duration::from_millis(90), Duration::from_millis(110)];
        let fit = fit_prefill(&times.map(|time| (100, time))).expect("there are points");
        let predicted = fit.curve.predict(100).as_secs_f64();
        assert!((predicted - 0.099).abs() < 0.002, "{predicted}");
        assert_eq!(fit.range(), Some((100, 100)));
    }

    proptest! {
        #[test]
        fn the_fit_finds_the_curve_that_made_the_times(
            a in 0.001..0.1_f64, b in 1e-5..1e-3_f64, c in 1e-9..1e-6_f64,
        ) {
            let truth = PrefillCurve { a, b, c };
            let points: Vec<(u32, Duration)> =
                [16, 64, 256, 512, 1024, 2048].map(|p| (p, truth.predict(p))).to_vec();
            let fit = fit_prefill(&points).expect("there are points");
            for (tokens, time) in points {
                let error = fit.curve.predict(tokens).as_secs_f64() / time.as_secs_f64() - 1.0;
                prop_assert!(error.abs() < 1e-3, "{tokens}: off by {error}");
            }
            prop_assert!(fit.relative_residual < 1e-3);
        }
    }
}
