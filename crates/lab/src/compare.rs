use std::time::Duration;

use metron_engine::{RunEnd, Submission};

use crate::LabError;
use crate::rig::Rig;
use crate::run::{Contestant, MeasuredRun, Setting, Watch, measure};

/// How often an experiment is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicates {
    /// So often.
    Exactly(u32),
    /// Twice, and again as long as another round is expected to end within this time of running.
    Within(Duration),
}

/// The runs of a comparison, in the order in which they were made.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparing {
    /// The runs.
    pub runs: Vec<MeasuredRun>,
    /// Whether it was cut short.
    pub end: RunEnd,
}

/// Runs every policy on the same requests, replicate by replicate: the policies of a replicate
/// one after the other, each replicate beginning with another policy, so that a machine that
/// grows slower or faster favours none. `workload` makes the requests of a replicate.
pub fn compare(
    rig: &mut dyn Rig,
    setting: &Setting<'_>,
    contestants: &[Contestant],
    replicates: Replicates,
    workload: &dyn Fn(u32) -> Result<Vec<Submission>, LabError>,
    watch: &mut dyn Watch,
) -> Result<Comparing, LabError> {
    let mut comparing = Comparing { runs: Vec::new(), end: RunEnd::Complete };
    let mut replicate = 0;
    while comparing.wants_another(replicates, replicate) {
        for turn in 0..contestants.len() {
            let contestant = &contestants[(turn + replicate as usize) % contestants.len()];
            let submissions = workload(replicate)?;
            let run = measure(rig, setting, contestant, replicate, submissions, watch)?;
            comparing.end = run.end;
            comparing.runs.push(run);
            if comparing.end == RunEnd::Stopped {
                return Ok(comparing);
            }
        }
        replicate += 1;
    }
    Ok(comparing)
}

impl Comparing {
    fn wants_another(&self, replicates: Replicates, done: u32) -> bool {
        match replicates {
            Replicates::Exactly(count) => done < count,
            Replicates::Within(_) if done < 2 => true,
            Replicates::Within(limit) => {
                let spent: Duration = self.runs.iter().map(MeasuredRun::length).sum();
                spent + spent / done <= limit
            }
        }
    }
}
