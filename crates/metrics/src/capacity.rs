//! Capacity: the greatest arrival rate at which a run of a given length keeps its objectives with a
//! given probability.

use serde::{Deserialize, Serialize};

use crate::objective::Objective;
use crate::objective_verdict::Judged;
use crate::percentile::order_statistic;
use crate::proportion::{share_at_least, share_at_most};

/// What replicates say of a capacity: it is between the two, with the confidence that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bracket {
    /// The greatest rate that passed: a run keeps its objectives with at least the probability
    /// asked. `None` if there is none, or the replicates do not decide it.
    pub passed: Option<f64>,
    /// The least rate that failed.
    pub failed: Option<f64>,
}

impl Bracket {
    /// How far apart the ends are, as a share of the lower one.
    pub fn width(&self) -> Option<f64> {
        Some(self.failed? / self.passed? - 1.0)
    }
}

/// How many of `replicates` have to pass at a rate for the rate to pass: so many that the lower
/// Clopper-Pearson bound of their share is at least `probability`. `None` if not even all are
/// enough. The rate passes wrongly with a probability of at most `error`: replicates are
/// independent, and nothing is assumed of how their rates are distributed.
pub fn passes_to_pass(replicates: u32, probability: f64, error: f64) -> Option<u32> {
    let all = f64::from(replicates);
    (0..=replicates).find(|passes| share_at_least(f64::from(*passes), all, error) >= probability)
}

/// How many of `replicates` may pass at a rate for the rate to fail, by the upper bound: `None` if
/// not even none of them is few enough.
pub fn passes_to_fail(replicates: u32, probability: f64, error: f64) -> Option<u32> {
    let all = f64::from(replicates);
    (0..=replicates)
        .rev()
        .find(|passes| share_at_most(f64::from(*passes), all, error) <= probability)
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// The bracket is narrow enough.
    Narrow,
    /// No more replicates were allowed.
    OutOfReplicates,
    /// Not even the least rate passes.
    NothingPasses,
    /// Even the greatest rate passes.
    EverythingPasses,
    /// It was cut short: by Ctrl-C, or by a run that failed.
    Interrupted,
}

/// One run of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// Requests a second.
    pub rate: f64,
    /// Which replicate, from 0; from 1 in JSON.
    #[serde(with = "crate::from_one")]
    pub replicate: u32,
    /// The objectives that the run did not keep; it passed if there are none.
    pub missed: Vec<Objective>,
    /// What the run says of each objective.
    pub judged: Vec<Judged>,
}

/// A policy's capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Its label.
    pub policy: String,
    /// Where it is.
    pub bracket: Bracket,
    /// Where it most likely is: the replicates' own quantile.
    pub estimate: Option<f64>,
    /// Replicates that it comes from.
    pub replicates: u32,
    /// Why the search ended.
    pub end: SearchEnd,
    /// The objective that most replicates miss at the least rate at which they fail.
    pub binding: Option<Objective>,
    /// Above this rate no policy keeps the objectives in enough of the replicates that were drawn for
    /// any of the policies, by this cost model. `None` if the objectives bound no time after the
    /// arrival, so that there is no such rate.
    pub upper_bound: Option<f64>,
    /// Replicates of which a run passed at a greater rate than one that failed.
    pub not_monotone: u32,
    /// Least and greatest rate tried.
    pub range: Option<[f64; 2]>,
    /// Every run, in order of replicate and rate.
    pub probes: Vec<Probed>,
}

impl Capacity {
    /// The estimate as a share of the upper bound.
    pub fn of_bound(&self) -> Option<f64> {
        let bound = self.upper_bound.filter(|bound| *bound > 0.0)?;
        Some(self.estimate? / bound)
    }
}

/// The rate that `probability` of some replicates reach, each with its own greatest rate; `None`
/// where that is no number.
pub fn reached_by(greatest: &[Option<f64>], probability: f64) -> Option<f64> {
    let mut rates: Vec<f64> = greatest.iter().map(|rate| rate.unwrap_or(f64::INFINITY)).collect();
    rates.sort_unstable_by(|a, b| b.total_cmp(a));
    order_statistic(&rates, probability).filter(|rate| rate.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_replicates_take_nine_to_pass_and_one_to_fail_at_a_half() {
        let both = |replicates, error| {
            (passes_to_pass(replicates, 0.5, error), passes_to_fail(replicates, 0.5, error))
        };
        // P(at least 9 of 10) is 1.07 %, and P(at least 8) 5.5 %.
        assert_eq!(both(10, 0.025), (Some(9), Some(1)));
        assert_eq!(both(10, 0.01), (Some(10), Some(0)));
        assert_eq!(both(6, 0.025), (Some(6), Some(0)));
        assert_eq!(both(5, 0.025), (None, None), "five replicates decide nothing");
    }

    #[test]
    fn a_rate_is_reached_by_the_replicates_own_quantile() {
        let rates = [Some(3.0), Some(1.0), None, Some(2.0)];
        assert_eq!(reached_by(&rates, 0.5), Some(3.0));
        assert_eq!(reached_by(&rates, 1.0), Some(1.0));
        assert_eq!(reached_by(&[None, None], 0.5), None);
    }

    proptest! {
        #[test]
        fn what_passes_does_not_fail(
            replicates in 1_u32..200, probability in 0.05..0.95_f64, error in 0.001..0.1_f64,
        ) {
            let pass = passes_to_pass(replicates, probability, error);
            let fail = passes_to_fail(replicates, probability, error);
            if let (Some(pass), Some(fail)) = (pass, fail) {
                prop_assert!(fail < pass);
                let expected = probability * f64::from(replicates);
                prop_assert!(f64::from(fail) < expected && expected < f64::from(pass));
            }
        }
    }
}
