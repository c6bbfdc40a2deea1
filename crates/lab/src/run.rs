use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metron_engine::{CostModel, Engine, RunEnd, Scheduler, StepObserver, Submission};
use metron_metrics::RunOf;
use metron_trace::{
    Conditions, Header, Missing, PolicyInfo, Timestamp, Trace, TraceReader, TraceWriter,
};

use crate::LabError;
use crate::calibrate::warm_up;
use crate::record::DiskRecorder;
use crate::rig::Rig;

/// A policy in an experiment: how it is called, and how to make a fresh one.
pub struct Contestant {
    /// Label, name and options.
    pub info: PolicyInfo,
    /// Makes one that has seen no events.
    pub make: Box<dyn Fn() -> Box<dyn Scheduler>>,
}

impl std::fmt::Debug for Contestant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contestant").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Whoever follows an experiment: told of each run, and of everything in it.
pub trait Watch: StepObserver {
    /// The next run is one of a search, at so many requests a second.
    fn rate_is_tried(&mut self, _rate: f64) {}

    /// A run begins.
    fn run_begins(&mut self, _policy: &str, _replicate: u32, _num_requests: usize) {}

    /// The run has ended: what the machine was like since it began, if this one looked.
    fn run_ended(&mut self) -> Option<Conditions> {
        None
    }
}

/// Each in turn.
impl<A: Watch + ?Sized, B: Watch + ?Sized> Watch for (&mut A, &mut B) {
    fn rate_is_tried(&mut self, rate: f64) {
        self.0.rate_is_tried(rate);
        self.1.rate_is_tried(rate);
    }

    fn run_begins(&mut self, policy: &str, replicate: u32, num_requests: usize) {
        self.0.run_begins(policy, replicate, num_requests);
        self.1.run_begins(policy, replicate, num_requests);
    }

    fn run_ended(&mut self) -> Option<Conditions> {
        let (first, second) = (self.0.run_ended(), self.1.run_ended());
        first.or(second)
    }
}

/// What all runs of an experiment share.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The header of every trace; what is a single run's is filled in.
    pub header: &'a Header,
    /// The latency oracle that policies may ask, and the predictions in the trace.
    pub cost_model: Option<&'a dyn CostModel>,
    /// Closed loop.
    pub max_concurrency: Option<u32>,
    /// Where the traces go.
    pub output: &'a Path,
}

impl std::fmt::Debug for Setting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting").field("output", &self.output).finish_non_exhaustive()
    }
}

/// The requests of a run, and what became of those that were too long for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Requests {
    /// What is served.
    pub submissions: Vec<Submission>,
    /// Requests that were left out.
    pub dropped: u32,
    /// Requests that were cut.
    pub truncated: u32,
}

/// A run that was measured, as its trace on disk has it.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredRun {
    /// Whose run it was.
    pub policy: String,
    /// Which repetition, from 0.
    pub replicate: u32,
    /// Its trace's directory.
    pub dir: PathBuf,
    /// Its trace.
    pub trace: Trace,
    /// What the trace should hold and does not.
    pub missing: Vec<Missing>,
    /// Whether it was cut short.
    pub end: RunEnd,
}

impl MeasuredRun {
    /// As metrics take it.
    pub fn as_run_of(&self) -> RunOf<'_> {
        RunOf::of(&self.trace)
    }

    /// How long the run was, by its own clock.
    pub fn length(&self) -> Duration {
        length(&self.trace)
    }
}

/// How long a run was, by its own clock.
pub(crate) fn length(trace: &Trace) -> Duration {
    trace.steps.last().map_or(Duration::ZERO, |step| step.ended_at - Timestamp::ZERO)
}

/// Serves `requests` under one policy, after a warm-up that is not recorded, and writes the
/// trace while the run goes on. What is returned was read back from the disk: numbers come from
/// the trace as stored, and from nowhere else.
pub fn measure(
    rig: &mut dyn Rig,
    setting: &Setting<'_>,
    contestant: &Contestant,
    replicate: u32,
    requests: Requests,
    watch: &mut dyn Watch,
) -> Result<MeasuredRun, LabError> {
    warm_up(rig)?;
    let policy = contestant.info.label.clone();
    watch.run_begins(&policy, replicate, requests.submissions.len());
    let dir = setting.output.join(trace_name(&policy, replicate));
    let header = Header {
        policy: contestant.info.clone(),
        replicate,
        max_concurrency: setting.max_concurrency,
        dropped_requests: requests.dropped,
        truncated_requests: requests.truncated,
        ..setting.header.clone()
    };
    let mut recorder = DiskRecorder(TraceWriter::create(&dir, &header)?);
    let engine = Engine {
        policy: &policy,
        limits: rig.limits(),
        max_concurrency: setting.max_concurrency,
        cost_model: setting.cost_model,
    };
    let end = engine.run(
        rig.start()?,
        (contestant.make)().as_mut(),
        requests.submissions,
        &mut (&mut recorder, &mut *watch),
    );
    let conditions = watch.run_ended();
    let written = conditions.map_or(Ok(()), |seen| recorder.0.write_conditions(&seen));
    // The trace is closed even if the run failed: what was measured stands.
    recorder.0.finish()?;
    written?;
    let end = end?;
    let (trace, missing) = TraceReader::read(&dir)?;
    Ok(MeasuredRun { policy, replicate, dir, trace, missing, end })
}

/// What the directory of a policy's trace is called: replicates count from 1 in names.
pub(crate) fn trace_name(label: &str, replicate: u32) -> String {
    format!("{}-r{}.trace", file_name(label), u64::from(replicate) + 1)
}

/// Two policies whose traces would be written to the same place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policies `{first}` and `{second}` would write to the same files, `{}-r1.trace` and so on: \
     there a label has letters of either case, digits and -_.= alone; give one of them another",
    file_name(second)
)]
pub struct SameFiles {
    /// A label.
    pub first: String,
    /// The other; the same, where a policy stands twice.
    pub second: String,
}

/// Refuses labels that are alike as parts of a file's name, also where its case does not count.
pub fn check_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<(), SameFiles> {
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for label in labels {
        if let Some(first) = names.insert(file_name(label).to_lowercase(), label) {
            return Err(SameFiles { first: first.to_owned(), second: label.to_owned() });
        }
    }
    Ok(())
}

/// A label as part of a file's name.
pub fn file_name(label: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
    label.chars().map(|c| if keep(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_would_share_their_files_are_refused() {
        assert_eq!(check_labels(["a b", "a-b", "sarathi:token_budget=128"]), Ok(()));
        for (first, second) in [("a b", "a_b"), ("Mine", "mine"), ("mine", "mine"), ("ä", "ö")] {
            let refused = check_labels(["orca", first, second]).expect_err("they share a name");
            assert_eq!((refused.first.as_str(), refused.second.as_str()), (first, second));
        }
    }
}
