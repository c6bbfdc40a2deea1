use std::time::Duration;

use metron_trace::Work;
use ndarray::{Array1, Array2};

use crate::AffineCost;

/// A measured step: what ran, and how long it took.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSample {
    /// What ran.
    pub work: Vec<Work>,
    /// How long it took.
    pub took: Duration,
}

/// Fits an affine cost model to measured steps, by non-negative least squares on relative errors,
/// so that a short step counts as much as a long one. Steps without a duration are left out;
/// `None` if no step is left.
pub fn fit(samples: &[StepSample]) -> Option<AffineCost> {
    let samples: Vec<&StepSample> = samples.iter().filter(|s| !s.took.is_zero()).collect();
    if samples.is_empty() {
        return None;
    }
    let features: Vec<[f64; 5]> = samples.iter().map(|s| AffineCost::features(&s.work)).collect();
    // Columns of like size keep the solver's tolerance meaningful: contexts are counted in
    // hundreds of thousands, steps in ones.
    let scale: [f64; 5] = std::array::from_fn(|column| {
        features.iter().map(|row| row[column]).fold(0.0, f64::max).max(1.0)
    });
    let rows = Array2::from_shape_fn((samples.len(), 5), |(row, column)| {
        features[row][column] / scale[column] / nanos(samples[row])
    });
    let (coefficients, _residual) = nnls::nnls(rows.view(), Array1::ones(samples.len()).view());
    Some(AffineCost::from_coefficients(std::array::from_fn(|i| coefficients[i] / scale[i])))
}

fn nanos(sample: &StepSample) -> f64 {
    sample.took.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use metron_engine::CostModel;
    use metron_trace::{RequestId, WorkKind};
    use proptest::prelude::*;

    use super::*;

    fn work(context: u32, tokens: u32, kind: WorkKind) -> Work {
        Work { request: RequestId(0), context, tokens, kind }
    }

    prop_compose! {
        fn a_step()(
            chunk in proptest::option::of((0_u32..2000, 1_u32..600)),
            contexts in proptest::collection::vec(1_u32..2000, 0..33),
        ) -> Vec<Work> {
            let chunk = chunk.map(|(past, n)| work(past, n, WorkKind::Prefill));
            let decodes = contexts.into_iter().map(|past| work(past, 1, WorkKind::Decode));
            chunk.into_iter().chain(decodes).collect()
        }
    }

    proptest! {
        /// Steps that an affine model made are predicted by the fit to 0.1 %.
        #[test]
        fn the_fit_finds_the_model_that_made_the_steps(
            steps in proptest::collection::vec(a_step(), 40..60),
            truth in [1e5..1e8, 1e4..1e6, 1e4..1e7, 1.0..1e3, 1.0..1e4_f64],
        ) {
            let truth = AffineCost::from_coefficients(truth);
            let samples: Vec<StepSample> = steps
                .into_iter()
                .map(|work| StepSample { took: truth.step_time(&work), work })
                .collect();
            let fitted = fit(&samples).expect("there are samples");
            for sample in &samples {
                let predicted = fitted.step_time(&sample.work).as_secs_f64();
                let error = (predicted / sample.took.as_secs_f64() - 1.0).abs();
                prop_assert!(error < 1e-3, "{predicted} for {:?}", sample.took);
            }
        }
    }

    #[test]
    fn nothing_is_fitted_to_no_steps() {
        assert_eq!(fit(&[]), None);
    }
}
