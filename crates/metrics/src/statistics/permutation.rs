use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The least number of pairs for which a sign-flip test can reach 5 %: of six, all of one sign have
/// a two-sided p of 0.031.
const LEAST_FOR_SIGN_FLIP: usize = 6;

/// Up to so many pairs all sign patterns are counted.
const MOST_EXACT: usize = 16;

/// Patterns drawn where there are too many to count.
const DRAWN: u32 = 20_000;

/// The two-sided p-value of paired differences whose signs are chance (Fisher's randomisation
/// test): the share of all sign patterns with a sum as far from 0 as theirs. It assumes nothing but
/// that, if the two are alike, either sign is as likely. Counted exactly up to 16 pairs; of more,
/// 20,000 patterns are drawn from a fixed seed, so that the same differences have the same p-value.
/// `None` of fewer than six.
pub fn sign_flip_p(differences: &[f64]) -> Option<f64> {
    if differences.len() < LEAST_FOR_SIGN_FLIP {
        return None;
    }
    // Sums of the same terms in another order differ by rounding.
    let least = differences.iter().sum::<f64>().abs() * (1.0 - 1e-12);
    let is_as_far = |signs: u64| {
        let signed = differences.iter().enumerate().map(|(at, difference)| {
            if signs >> (at % 64) & 1 == 1 { -difference } else { *difference }
        });
        signed.sum::<f64>().abs() >= least
    };
    if differences.len() <= MOST_EXACT {
        // Flipping all signs leaves the distance from 0: half of the patterns stand for all.
        let patterns = 1_u64 << (differences.len() - 1);
        let far = (0..patterns).filter(|signs| is_as_far(*signs)).count();
        return Some(far as f64 / patterns as f64);
    }
    Some(drawn(differences, least))
}

fn drawn(differences: &[f64], least: f64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut flipped = || {
        let signed = differences.iter().map(|d| if rng.random::<bool>() { -d } else { *d });
        signed.sum::<f64>().abs() >= least
    };
    let far = (0..DRAWN).filter(|_| flipped()).count();
    // The pattern that was seen is one of them.
    (far + 1) as f64 / f64::from(DRAWN + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_one_sign_have_the_least_p() {
        assert_eq!(sign_flip_p(&[1.0; 5]), None);
        assert_eq!(sign_flip_p(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), Some(1.0 / 32.0));
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(sign_flip_p(&ten), Some(1.0 / 512.0));
    }

    /// Of 2^6 patterns of 1..6, by hand: |sum| >= 19 takes at most one of {1}, of {} flipped.
    #[test]
    fn mixed_signs_are_counted() {
        let differences = [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(sign_flip_p(&differences), Some(2.0 / 32.0));
        assert_eq!(sign_flip_p(&[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]), Some(1.0));
    }

    #[test]
    fn drawn_patterns_agree_with_counted_ones() {
        let differences: Vec<f64> = (0..16).map(|i| f64::from(i % 5) - 1.2).collect();
        let exact = sign_flip_p(&differences).expect("there are enough");
        let least = differences.iter().sum::<f64>().abs() * (1.0 - 1e-12);
        // Four standard errors of 20,000 draws.
        assert!((drawn(&differences, least) - exact).abs() < 0.015, "{exact}");
    }
}
