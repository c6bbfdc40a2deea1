//! Prints how often Metron's intervals cover the truth and its verdicts find what is there, on
//! queues with known answers:
//!
//!     cargo run --release --example coverage -- 2000
//!
//! (the repetitions of each row). Exits with 1 if a row misses what is promised.

mod experiments;
mod queue;

use std::process::ExitCode;

use experiments::{
    CONTEST_PAIRS, CONTEST_REQUESTS, Contest, STATISTICS, called_different, coverage,
};
use queue::{Queue, Service};

/// Loads with lengths of a run: where the length rule refuses most runs for P99, where it refuses
/// half of them, and where it accepts nearly all.
const LENGTHS: [(f64, [usize; 3]); 3] = [
    (0.5, [14_000, 20_000, 30_000]),
    (0.7, [52_500, 75_000, 112_500]),
    (0.8, [126_000, 180_000, 270_000]),
];

/// A load and a length that no interval is given for.
const TOO_SHORT: (f64, usize) = (0.9, 5_000);

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn main() -> ExitCode {
    let repetitions = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let mut is_kept = true;
    println!("Nominal 95 % intervals from one run; seeds 0 to {}.", repetitions - 1);
    println!("queue  load  requests  of      accepted  covered  promised");
    for service in [Service::Exponential, Service::Constant] {
        for (load, lengths) in LENGTHS {
            for (requests, is_promised) in lengths.into_iter().zip([false, true, true]) {
                let promise = if is_promised { Promise::Covered } else { Promise::None };
                is_kept &= intervals(Queue { service, load }, requests, repetitions, promise);
            }
        }
        let (load, requests) = TOO_SHORT;
        is_kept &= intervals(Queue { service, load }, requests, repetitions, Promise::Refused);
    }
    println!(
        "\nVerdicts at a nominal 5 % on mean, P50 and P99 together: {CONTEST_PAIRS} pairs of runs \
         of {CONTEST_REQUESTS} requests; seeds 0 to {}.",
        repetitions * CONTEST_PAIRS - 1
    );
    println!("queue  load  requests  other policy  called different  worse  promised");
    for service in [Service::Exponential, Service::Constant] {
        for load in [0.5, 0.7, 0.8, 0.9] {
            for (same_requests, slowdown) in [(true, 1.0), (false, 1.0), (true, 1.05)] {
                let queue = Queue { service, load };
                is_kept &= verdicts(Contest { queue, slowdown, same_requests }, repetitions);
            }
        }
    }
    if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a row of intervals has to keep.
#[derive(Clone, Copy)]
enum Promise {
    /// Nothing: it shows what happens to the few runs that pass below the rule's limit.
    None,
    /// 92 % of the intervals that are given cover the truth.
    Covered,
    /// 95 % of the runs are called too short.
    Refused,
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn intervals(queue: Queue, requests: usize, repetitions: u64, promise: Promise) -> bool {
    let mut is_kept = true;
    for (name, found) in STATISTICS.iter().zip(coverage(queue, requests, 0..repetitions)) {
        let share = |part: u32, whole: f64| f64::from(part) / whole * 100.0;
        let accepted = share(found.accepted, repetitions as f64);
        let covered = share(found.covered, f64::from(found.accepted));
        let (text, kept) = match promise {
            Promise::None => ("", true),
            Promise::Covered => (">= 92 covered", covered >= 92.0),
            Promise::Refused => ("<= 5 accepted", accepted <= 5.0),
        };
        let covered = if found.accepted > 0 { format!("{covered:.1}") } else { "-".to_owned() };
        println!(
            "{}  {:.1}   {requests:<8}  {name:<6}  {accepted:>8.1}  {covered:>7}  {}{}",
            queue.name(),
            queue.load,
            text,
            if kept { "" } else { "  MISSED" }
        );
        is_kept &= kept;
    }
    is_kept
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn verdicts(contest: Contest, repetitions: u64) -> bool {
    let (different, worse) = called_different(contest, 0..repetitions);
    let share = |part: u32| f64::from(part) / repetitions as f64 * 100.0;
    let (name, promise, is_kept) = if contest.slowdown > 1.0 {
        ("5 % slower", ">= 90 worse", share(worse) >= 90.0)
    } else {
        ("equal", "<= 7 different", share(different) <= 7.0)
    };
    println!(
        "{}  {:.1}   {:<8}  {name:<12}  {:>16.1}  {:>5.1}  {promise}{}",
        contest.queue.name(),
        contest.queue.load,
        if contest.same_requests { "same" } else { "its own" },
        share(different),
        share(worse),
        if is_kept { "" } else { "  MISSED" }
    );
    is_kept
}
