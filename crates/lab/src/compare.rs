use std::time::Duration;

use metron_engine::RunEnd;
use metron_metrics::statistics::Looks;
use metron_metrics::{Judgement, Judging, RunOf, Scoring};
use metron_workload::{Stream, stream};
use rand::seq::SliceRandom;

use crate::error::{FailedRun, LabError};
use crate::rig::Rig;
use crate::run::{Contestant, MeasuredRun, Requests, Setting, Watch, check_labels, measure};

/// How often an experiment is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicates {
    /// So often.
    Exactly(u32),
    /// Twice, and again as long as another round is expected to end within this time of running.
    Within(Duration),
    /// Until every headline verdict is reached at one of the fixed [`Looks`], and at most so often.
    UntilDecided(u32),
}

/// How an experiment is repeated, and by what its verdicts are reached.
#[derive(Debug, Clone, Copy)]
pub struct Repeating<'a> {
    /// How often.
    pub replicates: Replicates,
    /// How runs are scored.
    pub scoring: &'a Scoring,
    /// Against which policy, and at which level.
    pub judging: &'a Judging,
}

/// The runs of a comparison, in the order in which they were made.
#[derive(Debug)]
pub struct Comparing {
    /// The runs.
    pub runs: Vec<MeasuredRun>,
    /// Whether it was cut short.
    pub end: RunEnd,
    /// The run that failed and cut it short, if one did.
    pub failure: Option<FailedRun>,
}

/// Runs every policy on the same requests, replicate by replicate: the policies of a replicate one
/// after the other, each after a warm-up, in an order that is drawn for each replicate from the
/// experiment's seed, so that a machine that grows slower or faster favours none. `workload` makes
/// the requests of a replicate. A run that fails ends the comparison, but the runs before it stand.
///
/// # Errors
/// If the first run fails, or two policies would write the same files.
pub fn compare(
    rig: &mut dyn Rig,
    setting: &Setting<'_>,
    contestants: &[Contestant],
    repeating: Repeating<'_>,
    workload: &dyn Fn(u32) -> Result<Requests, LabError>,
    watch: &mut dyn Watch,
) -> Result<Comparing, LabError> {
    check_labels(contestants.iter().map(|own| own.info.label.as_str()))?;
    let mut comparing = Comparing { runs: Vec::new(), end: RunEnd::Complete, failure: None };
    let mut replicate = 0;
    while comparing.wants_another(repeating, contestants, replicate) {
        for turn in turns(setting.header.seed, replicate, contestants.len()) {
            let contestant = &contestants[turn];
            let run = workload(replicate)
                .and_then(|requests| measure(rig, setting, contestant, replicate, requests, watch));
            match run {
                Ok(run) => {
                    comparing.end = run.end;
                    comparing.runs.push(run);
                }
                Err(cause) if comparing.runs.is_empty() => return Err(cause),
                Err(cause) => {
                    let policy = contestant.info.label.clone();
                    comparing.end = RunEnd::Stopped;
                    comparing.failure = Some(FailedRun { policy, replicate, rate: None, cause });
                }
            }
            if comparing.end == RunEnd::Stopped {
                return Ok(comparing);
            }
        }
        replicate += 1;
    }
    Ok(comparing)
}

/// The order in which a replicate's policies run.
fn turns(seed: u64, replicate: u32, policies: usize) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..policies).collect();
    turns.shuffle(&mut stream(seed, replicate, Stream::Turns));
    turns
}

impl Comparing {
    fn wants_another(
        &self,
        repeating: Repeating<'_>,
        contestants: &[Contestant],
        done: u32,
    ) -> bool {
        match repeating.replicates {
            Replicates::Exactly(count) => done < count,
            Replicates::Within(_) if done < 2 => true,
            Replicates::Within(limit) => {
                let spent: Duration = self.runs.iter().map(MeasuredRun::length).sum();
                spent + spent / done <= limit
            }
            Replicates::UntilDecided(limit) => {
                let is_look = Looks::up_to(limit).counts().contains(&done);
                done < limit && !(is_look && self.is_decided(repeating, contestants))
            }
        }
    }

    fn is_decided(&self, repeating: Repeating<'_>, contestants: &[Contestant]) -> bool {
        let policies: Vec<&str> = contestants.iter().map(|c| c.info.label.as_str()).collect();
        let runs: Vec<RunOf<'_>> = self.runs.iter().map(MeasuredRun::as_run_of).collect();
        Judgement::new(&policies, &runs, repeating.scoring, repeating.judging)
            .is_some_and(|judgement| judgement.is_decided())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_turn_and_over_the_replicates_every_place() {
        let mut firsts = [0; 4];
        for replicate in 0..200 {
            let mut order = turns(7, replicate, 4);
            assert_eq!(order, turns(7, replicate, 4), "the seed decides");
            firsts[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
        assert!(firsts.iter().all(|first| (30..70).contains(first)), "{firsts:?}");
    }
}
