//! Prints how often Metron's intervals cover the truth and its verdicts find what is there, on
//! queues with known answers:
//!
//!     cargo run --release --example coverage -- 2000
//!
//! (the repetitions of each row). Exits with 1 if a row misses what is promised.

mod experiments;
mod objectives;
mod queue;

use std::cmp::Ordering;
use std::process::ExitCode;

use experiments::{
    CONTEST_PAIRS, CONTEST_REQUESTS, Contest, STATISTICS, called_different, coverage,
};
use objectives::Objected;
use queue::{Queue, Service};

/// Loads with lengths of a run: where the length rule refuses most runs for P99, where it refuses
/// half of them, and where it accepts nearly all.
const LENGTHS: [(f64, [usize; 3]); 3] = [
    (0.5, [14_000, 20_000, 30_000]),
    (0.7, [52_500, 75_000, 112_500]),
    (0.8, [126_000, 180_000, 270_000]),
];

/// Requests of a run, and runs, that are judged by an objective.
const OBJECTED_RUNS: [(usize, u64); 6] =
    [(300, 1), (2_000, 1), (10_000, 1), (60, 2), (200, 10), (200, 20)];

/// Wrong verdicts in so many of a hundred are a nominal 5 % that few repetitions scatter.
const MOST_WRONG: f64 = 7.0;

/// The share that an objective asks, and the one that keeps it in truth: at the edge, where either
/// verdict is wrong, and far from it.
const OBJECTED_SHARES: [(f64, f64); 4] = [(0.9, 0.9), (0.99, 0.99), (0.9, 0.99), (0.9, 0.6)];

/// Of each row, unless told otherwise.
const REPETITIONS: u64 = 2_000;

const SERVICES: [Service; 2] = [Service::Exponential, Service::Constant];

/// Loads of contests and objectives.
const LOADS: [f64; 4] = [0.5, 0.7, 0.8, 0.9];

/// A load and a length that no interval is given for.
const TOO_SHORT: (f64, usize) = (0.9, 5_000);

#[expect(clippy::print_stderr, reason = "what can't be read is said")]
fn main() -> ExitCode {
    let repetitions = match std::env::args().nth(1).as_deref().map(str::parse) {
        None => REPETITIONS,
        Some(Ok(repetitions)) if repetitions > 0 => repetitions,
        Some(_) => {
            eprintln!("how often each row is repeated is a whole number from 1 on");
            return ExitCode::from(2);
        }
    };
    // Every row, also behind one that misses.
    let parts = [interval_rows, contest_rows, objective_rows].map(|rows| rows(repetitions));
    if parts == [true; 3] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn interval_rows(repetitions: u64) -> bool {
    let mut is_kept = true;
    println!("Nominal 95 % intervals from one run; seeds 0 to {}.", repetitions - 1);
    println!("queue  load  requests  of      accepted  covered  promised");
    for service in SERVICES {
        for (load, lengths) in LENGTHS {
            for (requests, is_promised) in lengths.into_iter().zip([false, true, true]) {
                let promise = if is_promised { Promise::Covered } else { Promise::None };
                is_kept &= intervals(Queue { service, load }, requests, repetitions, promise);
            }
        }
        let (load, requests) = TOO_SHORT;
        is_kept &= intervals(Queue { service, load }, requests, repetitions, Promise::Refused);
    }
    is_kept
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn contest_rows(repetitions: u64) -> bool {
    let mut is_kept = true;
    println!(
        "\nVerdicts at a nominal 5 % on mean, P50 and P99 together: {CONTEST_PAIRS} pairs of runs \
         of {CONTEST_REQUESTS} requests; seeds 0 to {}.",
        repetitions * CONTEST_PAIRS - 1
    );
    println!("queue  load  requests  other policy  called different  worse  promised");
    for service in SERVICES {
        for load in LOADS {
            for (same_requests, slowdown) in [(true, 1.0), (false, 1.0), (true, 1.05)] {
                let queue = Queue { service, load };
                is_kept &= verdicts(Contest { queue, slowdown, same_requests }, repetitions);
            }
        }
    }
    is_kept
}

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn objective_rows(repetitions: u64) -> bool {
    let mut is_kept = true;
    println!(
        "\nObjectives on the response time, with verdicts that are wrong in a nominal 5 % at most; \
         {repetitions} repetitions a row."
    );
    println!("queue  load  runs of requests  asked  kept in truth  PASS  FAIL  promised");
    for service in SERVICES {
        for load in LOADS {
            for (requests, runs) in OBJECTED_RUNS {
                for (asked, kept) in OBJECTED_SHARES {
                    let queue = Queue { service, load };
                    let objected = Objected { queue, requests, runs, asked, kept };
                    is_kept &= objectives(&objected, repetitions);
                }
            }
        }
    }
    is_kept
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

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn objectives(objected: &Objected, repetitions: u64) -> bool {
    let Objected { queue, requests, runs, asked, kept } = *objected;
    let reached = objected.reached(0..repetitions);
    let share = |part: u32| f64::from(part) / repetitions as f64 * 100.0;
    let [pass, fail] = [share(reached.pass), share(reached.fail)];
    let is_wrong = [pass, fail].map(|share| share > MOST_WRONG);
    let (promise, is_kept) = match asked.total_cmp(&kept) {
        Ordering::Equal => ("neither > 7", is_wrong == [false, false]),
        Ordering::Less => ("FAIL <= 7", !is_wrong[1]),
        Ordering::Greater => ("PASS <= 7", !is_wrong[0]),
    };
    println!(
        "{}  {:.1}   {runs:>4} of {requests:<8}  {asked:<5}  {kept:<13}  {pass:>4.1}  {fail:>4.1}  \
         {promise}{}",
        queue.name(),
        queue.load,
        if is_kept { "" } else { "  MISSED" }
    );
    is_kept
}
