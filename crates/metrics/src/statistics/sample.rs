use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF, StudentsT};

use super::interval::Interval;

/// A deviation below this is rounding, not spread: a nanosecond of a second.
const NO_SPREAD: f64 = 1e-9;

/// The probability with which a planned number of values is to find what the planner expects.
const POWER: f64 = 0.8;

/// Independent values (one a seed, or one a pair of runs), by what Student's t needs of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How many.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (with n - 1); `None` of one value.
    pub deviation: Option<f64>,
}

impl Sample {
    /// Of these values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        (n > 0).then_some(Self { n, mean, deviation })
    }

    /// The interval of the mean, by Student's t; `None` of one value, and of values without spread,
    /// which do not tell how much others would have.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        if self.has_no_spread() {
            return None;
        }
        let t = student(self.n)?.inverse_cdf(0.5 + confidence / 2.0);
        Some(Interval::around(self.mean, t * self.standard_error()?))
    }

    /// The two-sided p-value of the mean being 0, by Student's t. Values without spread say only
    /// that all have one sign, whose probability is `2^(1-n)`. `None` of one value.
    pub fn difference_p(&self) -> Option<f64> {
        if self.has_no_spread() {
            return Some(if self.mean.abs() <= NO_SPREAD { 1.0 } else { all_alike_p(self.n) });
        }
        let t = self.mean.abs() / self.standard_error()?;
        Some(2.0 * student(self.n)?.sf(t))
    }

    /// The p-value of the mean being beyond `margin` on either side: the greater of two one-sided
    /// t tests (TOST; Schuirmann 1987). `None` of one value.
    pub fn equivalence_p(&self, margin: f64) -> Option<f64> {
        let room = margin - self.mean.abs();
        if self.has_no_spread() {
            return Some(if room > 0.0 { all_alike_p(self.n) } else { 1.0 });
        }
        Some(student(self.n)?.sf(room / self.standard_error()?))
    }

    /// The least number of values, above those there are and at most `most`, of which one or the
    /// other is expected to be seen at `level` with a probability of 80 %, if the mean stays as it
    /// is: a difference from 0, or equivalence within `margin`. The deviation is taken at the upper
    /// end of where it lies (one-sided, at 80 %): that of two values says little.
    pub fn values_to_settle(&self, margin: f64, level: f64, most: usize) -> Option<usize> {
        let freedom = self.n.checked_sub(1)? as f64;
        let smallest = ChiSquared::new(freedom).ok()?.inverse_cdf(1.0 - POWER);
        let deviation = self.deviation? * (freedom / smallest).sqrt();
        let settles = |n: usize| {
            if self.has_no_spread() {
                return all_alike_p(n) <= level;
            }
            let Some(t) = student(n) else { return false };
            let reach = |tail: f64| {
                (t.inverse_cdf(1.0 - tail) + t.inverse_cdf(POWER)) * deviation / (n as f64).sqrt()
            };
            reach(level / 2.0) <= self.mean.abs() || reach(level) <= margin - self.mean.abs()
        };
        let (mut below, mut enough) = (self.n, most);
        if enough <= below || !settles(enough) {
            return None;
        }
        while enough - below > 1 {
            let middle = below + (enough - below) / 2;
            if settles(middle) { enough = middle } else { below = middle }
        }
        Some(enough)
    }

    fn has_no_spread(&self) -> bool {
        self.deviation.is_some_and(|deviation| deviation <= NO_SPREAD)
    }

    fn standard_error(&self) -> Option<f64> {
        Some(self.deviation? / (self.n as f64).sqrt())
    }
}

/// The probability that n fair coins all fall alike.
fn all_alike_p(n: usize) -> f64 {
    (1.0 - n as f64).exp2()
}

/// Student's t of a mean of n values.
fn student(n: usize) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, n.checked_sub(1)? as f64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Against R: `t.test(c(1.1, 0.7, 1.9, 1.4, 0.2))`, p and interval from the t tables.
    #[test]
    fn the_t_interval_and_p_value_are_those_of_the_tables() {
        let sample = Sample::of(&[1.1, 0.7, 1.9, 1.4, 0.2]).expect("there are values");
        let deviation = sample.deviation.expect("of five");
        assert!((sample.mean - 1.06).abs() < 1e-12 && (deviation - 0.650_384).abs() < 1e-6);
        let half_width = 2.776_445 * deviation / 5.0_f64.sqrt();
        let interval = sample.interval(0.95).expect("of five");
        assert!((interval.high - sample.mean - half_width).abs() < 1e-6, "{interval:?}");
        let at_the_edge = Sample { mean: half_width, ..sample };
        let p = at_the_edge.difference_p().expect("of five");
        assert!((p - 0.05).abs() < 1e-6, "{p}");
        // 90 % of t with 4 degrees of freedom lie within 2.131847.
        let room = 2.131_847 * deviation / 5.0_f64.sqrt();
        let p = Sample { mean: 1.0, ..sample }.equivalence_p(1.0 + room).expect("of five");
        assert!((p - 0.05).abs() < 1e-6, "{p}");
    }

    #[test]
    fn one_value_says_nothing_of_chance() {
        let one = Sample::of(&[0.3]).expect("there is a value");
        assert_eq!(
            (one.interval(0.95), one.difference_p(), one.equivalence_p(1.0)),
            (None, None, None)
        );
        assert_eq!(one.values_to_settle(0.02, 0.05, 1000), None);
        assert_eq!(Sample::of(&[]), None);
    }

    #[test]
    fn values_without_spread_are_worth_as_many_coins() {
        let alike = |n: usize, value: f64| Sample::of(&vec![value; n]).expect("there are values");
        assert_eq!(alike(2, 0.1).difference_p(), Some(0.5));
        assert_eq!(alike(6, 0.1).difference_p(), Some(1.0 / 32.0));
        assert_eq!(alike(6, 0.0).difference_p(), Some(1.0));
        assert_eq!(alike(6, 0.0).equivalence_p(0.02), Some(1.0 / 32.0));
        assert_eq!(alike(6, 0.1).equivalence_p(0.02), Some(1.0));
        assert_eq!(alike(2, 0.1).values_to_settle(0.02, 0.05, 1000), Some(6));
        assert_eq!(alike(6, 0.1).interval(0.95), None, "of no width");
    }

    proptest! {
        #[test]
        fn as_many_values_as_planned_settle_it(
            mean in -0.3..0.3_f64, deviation in 0.001..0.3_f64, n in 2..30_usize,
        ) {
            let sample = Sample { n, mean, deviation: Some(deviation) };
            if let Some(enough) = sample.values_to_settle(0.02, 0.05, 1000) {
                let then = Sample { n: enough, ..sample };
                let p = then.difference_p().zip(then.equivalence_p(0.02)).expect("of several");
                prop_assert!(enough > n && p.0.min(p.1) <= 0.05, "{enough}: {p:?}");
            }
        }
    }
}
