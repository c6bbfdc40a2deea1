//! How often intervals cover the truth, and verdicts find what is there.

use std::ops::Range;
use std::thread;

use metron::metrics::statistics::{
    LEVEL, NoInterval, Steady, steady_mean, steady_percentile, steady_share,
};
use metron::metrics::{Better, Pairs, Scale, Verdict, interpolated, judge};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::queue::{Queue, Service, lindley};

/// What is estimated from a run.
pub(crate) const STATISTICS: [&str; 4] = ["mean", "P50", "P99", "share"];

/// The share of requests within a limit is asked of the limit that holds for this share.
const SHARE: f64 = 0.95;

/// The median and the tail.
const PERCENTILES: [f64; 2] = [0.5, 0.99];

/// The mean response time in the steady state (Pollaczek and Khinchine).
pub(crate) fn mean_response(queue: Queue) -> f64 {
    let square = match queue.service {
        Service::Exponential => 2.0,
        Service::Constant => 1.0,
    };
    1.0 + queue.load * square / (2.0 * (1.0 - queue.load))
}

/// How often a run was long enough, and its interval covered the truth.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Coverage {
    /// Runs that the length rule accepted.
    pub(crate) accepted: u32,
    /// Of them: runs whose interval covers the truth.
    pub(crate) covered: u32,
}

/// The intervals of each statistic over runs with the seeds `seeds`.
pub(crate) fn coverage(queue: Queue, requests: usize, seeds: Range<u64>) -> [Coverage; 4] {
    let limit = queue.percentile(SHARE);
    let [median, tail] = PERCENTILES.map(|p| queue.percentile(p));
    let truth = [mean_response(queue), median, tail, SHARE];
    let parts = in_parallel(seeds, |seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let run = lindley(queue.requests(&mut rng).take(requests));
        let are_within: Vec<bool> = run.iter().map(|response| *response <= limit).collect();
        let intervals = [
            steady_mean(&run),
            steady_percentile(&run, PERCENTILES[0]),
            steady_percentile(&run, PERCENTILES[1]),
            steady_share(&are_within),
        ];
        let judged = |(found, truth): (&Result<Steady, NoInterval>, f64)| match found {
            // A median on the step of a distribution is met by the step.
            Ok(steady)
                if steady.interval.low <= truth + 1e-9 && truth <= steady.interval.high + 1e-9 =>
            {
                Coverage { accepted: 1, covered: 1 }
            }
            Ok(_) => Coverage { accepted: 1, covered: 0 },
            Err(_) => Coverage::default(),
        };
        let mut judged = intervals.iter().zip(truth).map(judged);
        [(); 4].map(|()| judged.next().unwrap_or_default())
    });
    let mut all = [Coverage::default(); 4];
    for (sum, part) in parts.iter().flat_map(|part| (0..4).zip(part)) {
        all[sum].accepted += part.accepted;
        all[sum].covered += part.covered;
    }
    all
}

/// Two policies on one queue: how they differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contest {
    /// The queue under the baseline.
    pub(crate) queue: Queue,
    /// How much longer the other policy serves: 1.05 is 5 % slower.
    pub(crate) slowdown: f64,
    /// Whether both serve the same requests, each with a noise of 10 % of its own; otherwise each
    /// has requests of its own.
    pub(crate) same_requests: bool,
}

/// Requests of a run of a contest.
pub(crate) const CONTEST_REQUESTS: usize = 2_000;

/// Pairs of runs of a contest.
pub(crate) const CONTEST_PAIRS: u64 = 10;

/// How often the other policy was called different from the baseline, by any of three headline
/// measures (mean, P50 and P99 of the response time), and how often worse.
pub(crate) fn called_different(contest: Contest, seeds: Range<u64>) -> (u32, u32) {
    let verdicts = in_parallel(seeds, |seed| {
        let runs: Vec<[[f64; 3]; 2]> =
            (0..CONTEST_PAIRS).map(|pair| contest.pair(seed * CONTEST_PAIRS + pair)).collect();
        let pairs: Vec<Pairs> = (0..3)
            .map(|measure| Pairs {
                is_headline: true,
                better: Better::Lower,
                scale: Scale::Ratio,
                values: runs
                    .iter()
                    .map(|run| (Some(run[0][measure]), Some(run[1][measure])))
                    .collect(),
            })
            .collect();
        let verdicts: Vec<Verdict> = judge(&pairs, LEVEL).iter().map(|d| d.verdict).collect();
        let has = |verdict| verdicts.contains(&verdict);
        (has(Verdict::Better) || has(Verdict::Worse), has(Verdict::Worse))
    });
    let count =
        |of: fn(&(bool, bool)) -> bool| verdicts.iter().filter(|one| of(one)).count() as u32;
    (count(|verdict| verdict.0), count(|verdict| verdict.1))
}

impl Contest {
    /// The measures of both policies with a seed.
    fn pair(&self, seed: u64) -> [[f64; 3]; 2] {
        let mut noise = ChaCha8Rng::seed_from_u64(seed);
        noise.set_stream(1);
        [(0, 1.0), (1, self.slowdown)].map(|(policy, slowdown)| {
            let mut requests = ChaCha8Rng::seed_from_u64(seed);
            if !self.same_requests {
                requests.set_stream(2 + policy);
            }
            self.run(slowdown, &mut requests, &mut noise)
        })
    }

    fn run(&self, slowdown: f64, requests: &mut impl Rng, noise: &mut impl Rng) -> [f64; 3] {
        let requests = self.queue.requests(requests).take(CONTEST_REQUESTS);
        let noisy =
            requests.map(|(gap, service)| (gap, service * slowdown * noise.random_range(0.9..1.1)));
        let mut run = lindley(noisy);
        let mean = run.iter().sum::<f64>() / run.len() as f64;
        run.sort_unstable_by(f64::total_cmp);
        let [median, tail] = PERCENTILES.map(|p| interpolated(&run, p).unwrap_or(f64::NAN));
        [mean, median, tail]
    }
}

/// What `of` makes of each seed, in their order, on all processors.
pub(crate) fn in_parallel<T: Send>(seeds: Range<u64>, of: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let part = (seeds.end - seeds.start).div_ceil(threads).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|nth| {
                let from = (seeds.start + nth * part).min(seeds.end);
                let own = from..(from + part).min(seeds.end);
                let of = &of;
                scope.spawn(move || own.map(of).collect::<Vec<T>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker ends")).collect()
    })
}
