//! Holds the search for a capacity to queues with known answers, and prints what comes out:
//!
//!     cargo run --release --example capacity_check
//!
//! `scripts/capacity-check.sh` is the same. The seeds are fixed, so that it prints the same
//! everywhere.

#[path = "../coverage/queue.rs"]
mod queue;
mod searches;

use std::io::{self, Write};

use queue::{Queue, Service};
use searches::{Runs, STEADY_CAPACITY, tally};

/// Searches of each row.
const SEARCHES: u64 = 200;
/// The most replicates of a search.
const REPLICATES: u32 = 640;
/// Runs at each rate of the brute force.
const RUNS: u32 = 40_000;
/// The brute force's seed; searches have 0 to 199, bisections 1000 to 1199.
const BRUTE_FORCE_SEED: u64 = 7;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "The greatest load at which the 99th percentile of the time in a queue is within its \
         limit.\nSteady state: {STEADY_CAPACITY}, from the closed forms. Runs begin with an empty \
         queue; the truth of their\nlength is brute force: {RUNS} fresh runs a rate, seed \
         {BRUTE_FORCE_SEED}. {SEARCHES} searches a row (seeds 0 to {}), of at most\n{REPLICATES} \
         replicates, at 95 % confidence; beside them {SEARCHES} bisections with one run a rate, \
         as the original\ntool searches (seeds 1000 to {}).\n",
        SEARCHES - 1,
        1000 + SEARCHES - 1,
    )?;
    writeln!(
        out,
        "{:<6} {:>8} {:>7} | {:>8} {:>8} {:>6} {:>8} {:>10} {:>10} | {:>9} {:>8} {:>10}",
        "",
        "requests",
        "truth",
        "holds the",
        "narrower",
        "mean",
        "bias of",
        "passes 5 %",
        "",
        "one run a",
        "against",
        "more than"
    )?;
    writeln!(
        out,
        "{:<6} {:>8} {:>7} | {:>9} {:>8} {:>5} {:>9} {:>9} {:>10} | {:>9} {:>8} {:>10}",
        "queue",
        "a run",
        "of it",
        "truth",
        "than 10 %",
        "width",
        "estimate",
        "above it",
        "replicates",
        "rate: bias",
        "steady",
        "5 % over"
    )?;
    for service in [Service::Exponential, Service::Constant] {
        let name = Queue { service, load: STEADY_CAPACITY }.name();
        for requests in [500, 2000, 10_000] {
            row(&mut out, name, Runs::new(service, requests))?;
        }
    }
    Ok(())
}

fn row(out: &mut impl Write, name: &str, of: Runs) -> io::Result<()> {
    // As many requests in all, whatever the length of a run.
    let runs = (RUNS * 500 / of.requests).max(4000);
    let truth = of.brute_force_capacity(runs, BRUTE_FORCE_SEED);
    let found = tally(of, truth, 0..SEARCHES, REPLICATES);
    let bisected: Vec<f64> = (1000..1000 + SEARCHES).map(|seed| of.one_run_a_rate(seed)).collect();
    let mean = bisected.iter().sum::<f64>() / bisected.len() as f64;
    let over = bisected.iter().filter(|rate| **rate > 1.05 * STEADY_CAPACITY).count();
    writeln!(
        out,
        "{name:<6} {:>8} {truth:>7.4} | {:>7.1} % {:>7.1} % {:>4.1} % {:>+7.2} % {:>7.1} % {:>10.1} \
         | {:>+8.1} % {:>+6.1} % {:>8.1} %",
        of.requests,
        found.covered * 100.0,
        found.narrow * 100.0,
        found.mean_width * 100.0,
        found.bias * 100.0,
        found.wrong_passes * 100.0,
        found.replicates,
        (mean / truth - 1.0) * 100.0,
        (mean / STEADY_CAPACITY - 1.0) * 100.0,
        over as f64 / bisected.len() as f64 * 100.0,
    )
}
