use std::cmp::Ordering;

use metron_trace::Sampling;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Why no token can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The model computed something that is no number.
    #[error("a logit is NaN or infinite: the weights are broken, or the number format overflowed")]
    NotANumber,
    /// No token is possible.
    #[error("every logit is minus infinity: no token is possible")]
    NothingPossible,
}

/// Chooses a token. Its random number belongs to (the request's seed, the token's index), so the
/// choice does not depend on the batch, on other requests, or on what was run before.
///
/// Temperature 0 takes the most probable token, the lowest id among equals. Otherwise: the `top_k`
/// most probable tokens, of those the most probable whose probabilities first reach `top_p`, and
/// one of them at random.
pub(crate) fn sample(logits: &[f32], sampling: &Sampling, index: u32) -> Result<u32, SampleError> {
    let best = greatest(logits)?;
    if sampling.temperature <= 0.0 {
        return Ok(best);
    }
    let candidates = candidates(logits, sampling, logits[best as usize]);
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    let mut left = unit(sampling.seed, index) * total;
    for (id, weight) in &candidates {
        left -= weight;
        if left < 0.0 {
            return Ok(*id);
        }
    }
    // Rounding may leave a rest behind the last.
    Ok(candidates.last().map_or(best, |(id, _)| *id))
}

fn greatest(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if logit.is_nan() || *logit == f32::INFINITY {
            return Err(SampleError::NotANumber);
        }
        if *logit > logits[best] {
            best = id;
        }
    }
    match logits.get(best) {
        Some(logit) if *logit > f32::NEG_INFINITY => Ok(best as u32),
        _ => Err(SampleError::NothingPossible),
    }
}

/// The tokens that sampling leaves, with their weights. They are sorted only where something is
/// cut off: sorting a whole vocabulary takes milliseconds.
fn candidates(logits: &[f32], sampling: &Sampling, greatest: f32) -> Vec<(u32, f64)> {
    let weight = |logit: f32| f64::from((logit - greatest) / sampling.temperature).exp();
    let mut candidates: Vec<(u32, f64)> =
        logits.iter().zip(0..).map(|(logit, id)| (id, weight(*logit))).collect();
    if let Some(k) = sampling.top_k {
        keep_top_k(&mut candidates, k.max(1) as usize);
    }
    if sampling.top_p < 1.0 {
        keep_top_p(&mut candidates, f64::from(sampling.top_p));
    }
    candidates
}

/// The more probable first, and among equals the lower id.
fn by_probability(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn keep_top_k(candidates: &mut Vec<(u32, f64)>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, by_probability);
        candidates.truncate(k);
        candidates.sort_unstable_by(by_probability);
    }
}

fn keep_top_p(candidates: &mut Vec<(u32, f64)>, top_p: f64) {
    let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
    // All tokens below this together have less than what top_p leaves out, so none is kept.
    let least = (1.0 - top_p) * total / candidates.len() as f64;
    candidates.retain(|(_, weight)| *weight >= least);
    candidates.sort_unstable_by(by_probability);
    let mut reached = 0.0;
    let enough = candidates.iter().position(|(_, weight)| {
        reached += weight;
        reached >= top_p * total
    });
    candidates.truncate(enough.map_or(candidates.len(), |at| at + 1));
}

/// A number from 0 to below 1 that belongs to a seed and an index.
fn unit(seed: u64, index: u32) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(index));
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 3.0, f32::NEG_INFINITY, 0.0];

    fn at(temperature: f32, top_k: Option<u32>, top_p: f32, seed: u64) -> Sampling {
        Sampling { temperature, top_k, top_p, seed }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(sample(&LOGITS, &Sampling::GREEDY, 0), Ok(1));
    }

    #[test]
    fn broken_logits_are_named() {
        let sampling = at(1.0, None, 1.0, 0);
        for broken in [f32::NAN, f32::INFINITY] {
            assert_eq!(sample(&[broken, 0.0], &sampling, 0), Err(SampleError::NotANumber));
            assert_eq!(sample(&[0.0, broken], &Sampling::GREEDY, 0), Err(SampleError::NotANumber));
        }
        let impossible = [f32::NEG_INFINITY; 3];
        assert_eq!(sample(&impossible, &sampling, 0), Err(SampleError::NothingPossible));
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        let logits = [0.0, (2.0_f32).ln(), f32::NEG_INFINITY];
        let draws = 30_000;
        let ones = (0..draws).filter(|i| sample(&logits, &at(1.0, None, 1.0, 9), *i) == Ok(1));
        let share = ones.count() as f64 / f64::from(draws);
        // Five standard deviations.
        assert!((share - 2.0 / 3.0).abs() < 0.0136, "{share}");
    }

    proptest! {
        #[test]
        fn top_k_and_top_p_leave_the_most_probable(seed in any::<u64>(), index in any::<u32>()) {
            prop_assert!(sample(&LOGITS, &at(1.0, Some(2), 1.0, seed), index).unwrap() <= 2);
            // The first alone has a share of 0.46.
            prop_assert_eq!(sample(&LOGITS, &at(1.0, None, 0.4, seed), index), Ok(1));
            prop_assert_ne!(sample(&LOGITS, &at(5.0, None, 1.0, seed), index), Ok(3));
        }

        /// The nucleus by its definition: sort all, and go down until top_p is reached.
        #[test]
        fn top_p_keeps_the_nucleus(
            logits in proptest::collection::vec(-6.0_f32..6.0, 1..50),
            top_p in 0.0_f32..1.0,
        ) {
            let sampling = at(1.0, None, top_p, 0);
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut all = candidates(&logits, &at(1.0, None, 1.0, 0), greatest);
            all.sort_unstable_by(by_probability);
            let total: f64 = all.iter().map(|(_, weight)| weight).sum();
            let kept = candidates(&logits, &sampling, greatest);
            prop_assert_eq!(&kept[..], &all[..kept.len()]);
            let sum = |kept: &[(u32, f64)]| kept.iter().map(|(_, weight)| weight).sum::<f64>();
            let wanted = f64::from(top_p) * total;
            prop_assert!(sum(&kept) >= wanted * (1.0 - 1e-9));
            prop_assert!(sum(&kept[..kept.len() - 1]) <= wanted * (1.0 + 1e-9));
        }

        #[test]
        fn a_choice_belongs_to_its_seed_and_index(seed in any::<u64>(), index in any::<u32>()) {
            let sampling = at(2.0, None, 1.0, seed);
            prop_assert_eq!(sample(&LOGITS, &sampling, index), sample(&LOGITS, &sampling, index));
        }
    }
}
