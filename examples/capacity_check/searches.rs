//! Searches for a capacity on queues with known answers.
//!
//! The objective is that the 99th percentile of the time from the arrival to the departure is within
//! a limit. The limit is chosen so that in the steady state it is kept up to a load of 0.7 and no
//! further.

use std::convert::Infallible;

use metron::lab::{CapacitySearch, Probe, SearchPlan};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::queue::{Queue, Service, lindley};

/// The load at which the 99th percentile is at the limit in the steady state.
pub(crate) const STEADY_CAPACITY: f64 = 0.7;

/// The share of requests that the objective is about.
const SHARE: f64 = 0.99;

/// Runs of so many requests from an empty queue, held to the objective.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs {
    service: Service,
    pub(crate) requests: u32,
    /// Of the time in the queue and of the service, in mean services.
    limit: f64,
}

impl Runs {
    pub(crate) fn new(service: Service, requests: u32) -> Self {
        let limit = Queue { service, load: STEADY_CAPACITY }.percentile(SHARE);
        Self { service, requests, limit }
    }

    /// Whether a run keeps the objective.
    pub(crate) fn run_passes(self, rate: f64, rng: &mut ChaCha8Rng) -> bool {
        let queue = Queue { service: self.service, load: rate };
        let run = lindley(queue.requests(rng).take(self.requests as usize));
        let above = run.iter().filter(|response| **response > self.limit).count();
        above as f64 <= f64::from(self.requests) * (1.0 - SHARE) + 1e-9
    }

    /// How often runs of their own random numbers keep the objective at a rate.
    pub(crate) fn pass_share(self, rate: f64, runs: u32, rng: &mut ChaCha8Rng) -> f64 {
        let passed = (0..runs).filter(|_| self.run_passes(rate, rng)).count();
        passed as f64 / f64::from(runs)
    }

    /// The capacity of this horizon by brute force, apart from the search: the rate at which half
    /// of `runs` fresh runs pass, bisected.
    pub(crate) fn brute_force_capacity(self, runs: u32, seed: u64) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut low, mut high) = (0.3, 1.5);
        while high - low > 5e-4 {
            let middle = f64::midpoint(low, high);
            let passes = self.pass_share(middle, runs, &mut rng) >= 0.5;
            if passes { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }

    /// A search with its own seed.
    pub(crate) fn search(self, seed: u64, replicates: u32) -> CapacitySearch {
        let plan = SearchPlan {
            probability: 0.5,
            confidence: 0.95,
            replicates,
            start: 1.0,
            range: [0.01, 10.0],
        };
        let mut search = CapacitySearch::new(plan);
        let mut probe = RunsProbe { runs: self, seed };
        search.run(&mut probe).unwrap_or_else(|never| match never {});
        search
    }

    /// The original tool's bisection: one run a rate, to within 2.5 % of its first rate, with its
    /// rule for the upper end (`capacity_search.py`).
    pub(crate) fn one_run_a_rate(self, seed: u64) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let start = 0.5;
        let (mut low, mut high, mut least_failed) = (0.0_f64, 2.0 * start, f64::INFINITY);
        while high - low >= 0.025 * start {
            let rate = f64::midpoint(low, high);
            if self.run_passes(rate, &mut rng) {
                if rate > 0.8 * high {
                    high = (2.0 * high).min(least_failed);
                }
                low = rate;
            } else {
                high = rate;
                least_failed = least_failed.min(rate);
            }
        }
        low
    }
}

/// The same random numbers at every rate.
struct RunsProbe {
    runs: Runs,
    seed: u64,
}

impl Probe for RunsProbe {
    type Error = Infallible;

    fn passes(&mut self, rate: f64, replicate: u32) -> Result<bool, Infallible> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::from(replicate));
        Ok(self.runs.run_passes(rate, &mut rng))
    }
}

/// What many searches came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tally {
    /// The share of brackets with the truth in them.
    pub(crate) covered: f64,
    /// The share of brackets narrower than a tenth.
    pub(crate) narrow: f64,
    /// The mean width of those that are closed.
    pub(crate) mean_width: f64,
    /// Mean of the estimates over the truth, less 1.
    pub(crate) bias: f64,
    /// The share of searches that passed a rate 5 % above the truth.
    pub(crate) wrong_passes: f64,
    /// Mean number of replicates.
    pub(crate) replicates: f64,
}

/// Searches from `seeds` against the truth.
pub(crate) fn tally(of: Runs, truth: f64, seeds: std::ops::Range<u64>, replicates: u32) -> Tally {
    let searches: Vec<CapacitySearch> = seeds.map(|seed| of.search(seed, replicates)).collect();
    let all = searches.len() as f64;
    let share = |holds: &dyn Fn(&CapacitySearch) -> bool| {
        searches.iter().filter(|search| holds(search)).count() as f64 / all
    };
    let mean = |of: &dyn Fn(&CapacitySearch) -> f64| searches.iter().map(of).sum::<f64>() / all;
    Tally {
        covered: share(&|search| {
            let bracket = search.bracket();
            bracket.passed.is_none_or(|rate| rate <= truth)
                && bracket.failed.is_none_or(|rate| truth <= rate)
        }),
        narrow: share(&|search| search.bracket().width().is_some_and(|width| width <= 0.1)),
        mean_width: mean(&|search| search.bracket().width().unwrap_or(f64::NAN)),
        bias: mean(&|search| search.estimate().unwrap_or(f64::NAN)) / truth - 1.0,
        wrong_passes: share(&|search| {
            search.bracket().passed.is_some_and(|rate| rate >= 1.05 * truth)
        }),
        replicates: mean(&|search| f64::from(search.replicates())),
    }
}
