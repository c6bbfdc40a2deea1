//! What a count says of a share: one-sided bounds, exact for independent values, and how many
//! independent values dependent ones are worth.

use statrs::distribution::{Beta, ContinuousCDF, StudentsT};

/// Each one-sided bound is wrong in at most so many samples.
pub(crate) const ERROR: f64 = 0.05;

/// The lower bound of a share that `met` of `n` independent values have: wrong in at most the
/// share `error` of all samples (Clopper and Pearson 1934). Both may be effective numbers, which
/// are not whole.
pub fn share_at_least(met: f64, n: f64, error: f64) -> f64 {
    if met <= 0.0 { 0.0 } else { beta_quantile(met, n - met + 1.0, error).unwrap_or(0.0) }
}

/// The upper bound of the same.
pub fn share_at_most(met: f64, n: f64, error: f64) -> f64 {
    if met >= n { 1.0 } else { beta_quantile(met + 1.0, n - met, 1.0 - error).unwrap_or(1.0) }
}

fn beta_quantile(a: f64, b: f64, p: f64) -> Option<f64> {
    Beta::new(a, b).ok().map(|beta| beta.inverse_cdf(p))
}

/// One-sided bounds, from below and from above, of the mean of what some independent runs' shares
/// are drawn from: each is wrong in at most the share `error` of all samples, whatever the runs are
/// like inside and however their shares are distributed. The product of the shares over the n-th
/// power of the mean has an expectation of at most 1, so it is rarely above `1 / error` (Markov;
/// Vovk and Wang 2021 on such e-values). Few runs are bounded loosely: one whose values all keep a
/// bound shows that 5 % do.
pub(crate) fn share_by_runs(shares: &[f64], error: f64) -> [f64; 2] {
    let least = |share: fn(f64) -> f64| {
        let logarithms = shares.iter().map(|own| share(*own).ln()).sum::<f64>() + error.ln();
        (logarithms / shares.len() as f64).exp()
    };
    [least(|met| met), 1.0 - least(|met| 1.0 - met)]
}

/// Values that go together: the batches of a run, or whole runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unit {
    /// Values that have a property.
    pub(crate) having: usize,
    /// All values.
    pub(crate) all: usize,
}

impl Unit {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { having: self.having + other.having, all: self.all + other.all }
    }
}

/// How many independent values the values of some units are worth: `p (1 - p) / Var(p)`, the
/// variance that of a ratio between units, and never more than there are. `None` where all values
/// or none have the property, which says nothing of their dependence.
pub(crate) fn effective_number(units: &[Unit]) -> Option<f64> {
    let sum = |of: fn(&Unit) -> usize| units.iter().map(of).sum::<usize>() as f64;
    let (having, all) = (sum(|unit| unit.having), sum(|unit| unit.all));
    if having <= 0.0 || having >= all || units.len() < 2 {
        return None;
    }
    let p = having / all;
    let squares: f64 =
        units.iter().map(|unit| (unit.having as f64 - p * unit.all as f64).powi(2)).sum();
    let count = units.len() as f64;
    let variance = squares * count / (count - 1.0) / all.powi(2);
    Some((p * (1.0 - p) / variance).min(all))
}

/// What an effective number is worth that was itself estimated from so many units: less by the
/// square of the quotient of Student's quantiles (Korn and Graubard 1998).
pub(crate) fn discounted(effective: f64, n: usize, units: usize) -> f64 {
    let quantile = |degrees: f64| {
        let student = StudentsT::new(0.0, 1.0, degrees.max(1.0)).ok()?;
        Some(student.inverse_cdf(1.0 - ERROR))
    };
    match (quantile(n as f64 - 1.0), quantile(units as f64 - 1.0)) {
        (Some(of_values), Some(of_units)) => effective * (of_values / of_units).powi(2),
        _ => effective,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bounds_are_those_of_the_tables() {
        // No violation in n: 0.01^(1/459) and 0.05^(1/299) are just above 99 %.
        assert!(share_at_least(459.0, 459.0, 0.01) > 0.99);
        assert!(share_at_least(458.0, 458.0, 0.01) < 0.99);
        assert!(share_at_least(299.0, 299.0, 0.05) > 0.99);
        assert!(share_at_least(298.0, 298.0, 0.05) < 0.99);
        // Two-sided 95 % of 7 in 10: 0.3475 to 0.9333.
        assert!((share_at_least(7.0, 10.0, 0.025) - 0.3475).abs() < 1e-4);
        assert!((share_at_most(7.0, 10.0, 0.025) - 0.9333).abs() < 1e-4);
    }

    #[test]
    fn nothing_and_everything_are_bounded_on_one_side() {
        assert!(share_at_least(0.0, 10.0, 0.05).abs() < 1e-12);
        assert!((share_at_most(10.0, 10.0, 0.05) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn values_that_all_go_with_their_unit_are_worth_their_units() {
        let of = |having| Unit { having, all: 100 };
        let units: Vec<Unit> = (0..40).map(|at| of(if at % 2 == 0 { 100 } else { 0 })).collect();
        let effective = effective_number(&units).expect("some have it and some do not");
        assert!((effective - 39.0).abs() < 1e-9, "{effective}");
        assert_eq!(effective_number(&[of(100), of(100)]), None);
    }

    /// By hand: of one run a twentieth of its share; of four with 0.8, 0.8 times the fourth root of
    /// a twentieth; a run without anything bounds nothing from below.
    #[test]
    fn runs_bound_a_share_whatever_they_are_like_inside() {
        let close = |bounds: [f64; 2], expected: [f64; 2]| {
            let off = [bounds[0] - expected[0], bounds[1] - expected[1]];
            assert!(off.iter().all(|off| off.abs() < 1e-9), "{bounds:?}, not {expected:?}");
        };
        close(share_by_runs(&[0.8], 0.05), [0.04, 0.99]);
        let root = 0.05_f64.powf(0.25);
        close(share_by_runs(&[0.8; 4], 0.05), [0.8 * root, 1.0 - 0.2 * root]);
        close(share_by_runs(&[0.0, 1.0], 0.05), [0.0, 1.0]);
    }

    #[test]
    fn few_units_are_worth_less() {
        let worth = |units| discounted(1000.0, 1000, units);
        assert!(worth(5) < worth(20) && worth(20) < worth(1000) + 1e-9);
        assert!((worth(1000) - 1000.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn the_bounds_hold_the_share_between_them(n in 1_u32..2000, part in 0.0..=1.0_f64) {
            let n = f64::from(n);
            let met = (part * n).floor();
            let (least, most) = (share_at_least(met, n, 0.05), share_at_most(met, n, 0.05));
            prop_assert!(0.0 <= least && least <= met / n && met / n <= most && most <= 1.0);
        }
    }
}
