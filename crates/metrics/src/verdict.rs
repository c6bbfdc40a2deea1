use serde::{Deserialize, Serialize};

use crate::comparison::Better;
use crate::measure::Scale;
use crate::statistics::{Interval, LEVEL, Sample, bootstrap_mean, holm, sign_flip_p};

/// Policies within this of each other are equivalent: 2 %, or 2 points of a share.
pub const EQUIVALENCE_MARGIN: f64 = 0.02;

/// Replicates from which verdicts are usually reached.
pub const RECOMMENDED_REPLICATES: u32 = 10;

/// More replicates than this are not promised to settle anything.
const MOST_REPLICATES: usize = 1000;

/// What can be said of a policy against the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is better.
    Better,
    /// It is worse.
    Worse,
    /// They are within the margin of each other, whichever is ahead.
    Equivalent,
    /// Nothing yet.
    Undecided,
}

/// A policy's values of one measure beside the baseline's, paired by replicate.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    /// Whether it counts among the headline measures.
    pub is_headline: bool,
    /// Which way the measure is better.
    pub better: Better,
    /// How its values are compared.
    pub scale: Scale,
    /// The baseline's value and the policy's, of each replicate that both served.
    pub values: Vec<(Option<f64>, Option<f64>)>,
}

/// The paired difference of a policy to the baseline, with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Replicates in which both have a value.
    pub pairs: usize,
    /// The mean difference: relative (-0.2 is 20 % less), or in points of 1 for a share. `None`
    /// without pairs.
    pub estimate: Option<f64>,
    /// Its interval by Student's t, at 1 less the level; `None` of fewer than two pairs, and of
    /// pairs that do not differ from each other.
    pub interval: Option<Interval>,
    /// The same by resampling the pairs, from 20 pairs on.
    pub bootstrap: Option<Interval>,
    /// p-value of there being no difference (paired t), Holm-adjusted for a headline measure.
    pub difference_p: Option<f64>,
    /// p-value of a difference beyond the margin (two one-sided t tests), adjusted likewise.
    pub equivalence_p: Option<f64>,
    /// p-value of there being no difference by sign flips, from six pairs on; not adjusted.
    pub sign_flip_p: Option<f64>,
    /// What follows.
    pub verdict: Verdict,
    /// Further replicates that are expected to settle it, with a probability of 80 %; `None` where
    /// it is settled, where one pair says nothing of it, or where a thousand would not do.
    pub further_replicates: Option<u32>,
}

/// Compares policies with the baseline, at `level` for all headline comparisons together (Holm).
///
/// A policy is better or worse if the paired t test on its differences says so and, from six pairs
/// on, the sign-flip test agrees at 5 %: it assumes no normal distribution, but of few pairs it
/// can't reach the small p-values that several comparisons take. It is equivalent if two one-sided
/// t tests keep it within the margin, even where it is surely a little better.
pub fn judge(all: &[Pairs], level: f64) -> Vec<Difference> {
    let tests: Vec<Test<'_>> = all.iter().map(Test::new).collect();
    let difference_p = adjusted(&tests, |test| test.difference_p);
    let equivalence_p = adjusted(&tests, |test| test.equivalence_p);
    let comparisons = tests.iter().filter(|test| test.pairs.is_headline).count();
    tests
        .iter()
        .zip(difference_p.into_iter().zip(equivalence_p))
        .map(|(test, p)| {
            let share = if test.pairs.is_headline { level / comparisons as f64 } else { level };
            test.difference(p.0, p.1, level, share)
        })
        .collect()
}

/// Headline p-values by Holm, where a missing one counts as 1; the others as they are.
fn adjusted(tests: &[Test<'_>], of: impl Fn(&Test<'_>) -> Option<f64>) -> Vec<Option<f64>> {
    let headline = tests.iter().filter(|test| test.pairs.is_headline);
    let mut by_holm =
        holm(&headline.map(|test| of(test).unwrap_or(1.0)).collect::<Vec<_>>()).into_iter();
    tests
        .iter()
        .map(|test| {
            let adjusted = if test.pairs.is_headline { by_holm.next() } else { of(test) };
            of(test).and(adjusted)
        })
        .collect()
}

/// One comparison before it is adjusted for the others.
struct Test<'a> {
    pairs: &'a Pairs,
    /// Differences of the inward values.
    differences: Vec<f64>,
    sample: Option<Sample>,
    difference_p: Option<f64>,
    equivalence_p: Option<f64>,
}

impl<'a> Test<'a> {
    fn new(pairs: &'a Pairs) -> Self {
        let inward = |value: Option<f64>| value.and_then(|value| pairs.scale.inward(value));
        let differences: Vec<f64> = pairs
            .values
            .iter()
            .filter_map(|(baseline, own)| Some(inward(*own)? - inward(*baseline)?))
            .collect();
        let sample = Sample::of(&differences);
        // A pair without a difference is not left out in silence: what is missing may be the worst.
        let whole = sample.filter(|sample| sample.n == pairs.values.len());
        Self {
            pairs,
            differences,
            sample,
            difference_p: whole.and_then(|sample| sample.difference_p()),
            equivalence_p: whole.and_then(|sample| sample.equivalence_p(pairs.scale.margin())),
        }
    }

    fn difference(
        &self,
        difference_p: Option<f64>,
        equivalence_p: Option<f64>,
        level: f64,
        share: f64,
    ) -> Difference {
        let scale = self.pairs.scale;
        let outward = |interval: Interval| interval.map(|end| scale.difference(end));
        let sign_flip_p = sign_flip_p(&self.differences);
        let agrees = sign_flip_p.is_none_or(|p| p <= LEVEL);
        let is_known = |p: Option<f64>| p.is_some_and(|p| p <= level);
        let verdict = match self.sample {
            Some(_) if is_known(equivalence_p) => Verdict::Equivalent,
            Some(sample) if is_known(difference_p) && agrees => {
                match (sample.mean > 0.0, self.pairs.better) {
                    (true, Better::Higher) | (false, Better::Lower) => Verdict::Better,
                    (true, Better::Lower) | (false, Better::Higher) => Verdict::Worse,
                }
            }
            _ => Verdict::Undecided,
        };
        let further = || {
            let sample = self.sample.filter(|_| difference_p.is_some())?;
            let enough = sample.values_to_settle(scale.margin(), share, MOST_REPLICATES)?;
            Some((enough - sample.n) as u32)
        };
        Difference {
            pairs: self.differences.len(),
            estimate: self.sample.map(|sample| scale.difference(sample.mean)),
            interval: self.sample.and_then(|sample| sample.interval(1.0 - level)).map(outward),
            bootstrap: bootstrap_mean(&self.differences, 1.0 - level).map(outward),
            difference_p,
            equivalence_p,
            sign_flip_p,
            verdict,
            further_replicates: if verdict == Verdict::Undecided { further() } else { None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Looks;
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn times(values: &[(f64, f64)]) -> Pairs {
        Pairs {
            is_headline: true,
            better: Better::Lower,
            scale: Scale::Ratio,
            values: values.iter().map(|(base, own)| (Some(*base), Some(*own))).collect(),
        }
    }

    /// Ten replicates whose own differences are far larger than that of the policies.
    fn ten(factor: f64, noise: f64) -> Pairs {
        let values = (0..10_u32).map(|seed| {
            let baseline = f64::from(1 + seed);
            (baseline, baseline * (factor + noise * f64::from(seed % 3)))
        });
        times(&values.collect::<Vec<_>>())
    }

    fn verdicts(all: &[Pairs]) -> Vec<Verdict> {
        judge(all, LEVEL).into_iter().map(|difference| difference.verdict).collect()
    }

    #[test]
    fn a_policy_is_better_or_worse_by_the_direction_of_the_measure() {
        let faster = ten(0.9, 0.01);
        assert_eq!(verdicts(&[faster.clone(), ten(1.1, 0.01)]), [Verdict::Better, Verdict::Worse]);
        assert_eq!(verdicts(&[Pairs { better: Better::Higher, ..faster }]), [Verdict::Worse]);
    }

    #[test]
    fn a_difference_within_the_margin_is_equivalence_even_if_it_is_sure() {
        let difference = &judge(&[ten(0.99, 0.002)], LEVEL)[0];
        assert_eq!(difference.verdict, Verdict::Equivalent);
        assert!(difference.difference_p.is_some_and(|p| p < 0.01), "{difference:?}");
    }

    #[test]
    fn what_is_undecided_says_how_many_replicates_it_takes() {
        let noisy = &judge(&[ten(0.9, 0.2)], LEVEL)[0];
        assert_eq!(noisy.verdict, Verdict::Undecided);
        assert!(noisy.further_replicates.is_some_and(|further| further > 5), "{noisy:?}");
        let single = &judge(&[times(&[(1.0, 2.0)])], LEVEL)[0];
        assert_eq!((single.verdict, single.further_replicates), (Verdict::Undecided, None));
        assert_eq!((single.estimate, single.interval), (Some(1.0), None));
    }

    #[test]
    fn two_pairs_that_happen_to_agree_decide_nothing() {
        assert_eq!(verdicts(&[times(&[(1.0, 1.1), (2.0, 2.2)])]), [Verdict::Undecided]);
        assert_eq!(verdicts(&[times(&[(1.0, 1.0), (2.0, 2.0)])]), [Verdict::Undecided]);
    }

    #[test]
    fn shares_are_compared_in_points_and_may_be_0() {
        let values = (0..10_u32).map(|seed| (0.0, 0.3 + 0.01 * f64::from(seed % 4)));
        let values = times(&values.collect::<Vec<_>>());
        let shares = Pairs { scale: Scale::Share, better: Better::Higher, ..values };
        let difference = &judge(&[shares], LEVEL)[0];
        assert_eq!(difference.verdict, Verdict::Better);
        assert!(difference.estimate.is_some_and(|points| (points - 0.313).abs() < 1e-9));
    }

    #[test]
    fn a_replicate_without_a_ratio_leaves_it_undecided() {
        let mut pairs = ten(0.9, 0.01);
        pairs.values[3].1 = Some(0.0);
        let difference = &judge(&[pairs], LEVEL)[0];
        assert_eq!((difference.pairs, difference.verdict), (9, Verdict::Undecided));
    }

    #[test]
    fn more_headline_comparisons_ask_for_more_evidence() {
        let alone = ten(0.9, 0.065);
        assert_eq!(verdicts(std::slice::from_ref(&alone)), [Verdict::Better]);
        let mut several = vec![ten(1.0, 0.1); 8];
        several.push(alone);
        assert_eq!(verdicts(&several)[8], Verdict::Undecided);
        for other in &mut several[..8] {
            other.is_headline = false;
        }
        assert_eq!(verdicts(&several)[8], Verdict::Better, "others beside it cost nothing");
    }

    /// Two policies alike but for noise, compared as `--until decided` compares them.
    #[test]
    fn looking_at_four_fixed_counts_keeps_the_level() {
        let looks = Looks::up_to(40);
        let finds_a_difference = |seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut noisy = || 1.0 + (0..6).map(|_| rng.random_range(-0.05..0.05)).sum::<f64>();
            let pairs: Vec<(f64, f64)> = (0..40).map(|_| (noisy(), noisy())).collect();
            looks.counts().iter().any(|count| {
                let seen = times(&pairs[..*count as usize]);
                let verdict = judge(&[seen], looks.level())[0].verdict;
                matches!(verdict, Verdict::Better | Verdict::Worse)
            })
        };
        let found = (0..200).filter(|seed| finds_a_difference(*seed)).count();
        assert!(found <= 14, "{found} of 200");
    }

    #[test]
    fn one_wild_replicate_does_not_make_a_difference() {
        let mut pairs = ten(0.95, 0.0);
        pairs.values[0].1 = Some(40.0);
        assert_eq!(verdicts(&[pairs]), [Verdict::Undecided]);
    }
}
