use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metron_engine::RunEnd;
use metron_metrics::{GatheredDoubts, Probed, RunOf, judge_objectives};
use metron_trace::{StoreError, Trace, TraceReader};

use super::policies::CapacitySetting;
use super::search::Probe;
use crate::error::{FailedRun, LabError};
use crate::rig::Rig;
use crate::run::{Contestant, Setting, Watch, file_name, length, measure, trace_name};

/// Where a run's trace is while it goes on.
const RUNNING: &str = "running";
/// Where traces are that are whole, by rate.
const PROBES: &str = "probes";
const AT_RATE: &str = "rate-";

/// What runs are made with, and what is counted of them.
pub(super) struct Bench<'a> {
    rig: &'a mut dyn Rig,
    setting: &'a CapacitySetting<'a>,
    watch: &'a mut dyn Watch,
    pub(super) doubts: GatheredDoubts,
    /// Runs that were made.
    pub(super) runs: u32,
    /// Runs that were there.
    pub(super) saved: u32,
    /// How long all of them were together.
    pub(super) length: Duration,
}

impl<'a> Bench<'a> {
    /// Removes what a killed search left half-done.
    pub(super) fn new(
        rig: &'a mut dyn Rig,
        setting: &'a CapacitySetting<'a>,
        watch: &'a mut dyn Watch,
    ) -> Result<Self, LabError> {
        let running = setting.output.join(RUNNING);
        if running.exists() {
            fs::remove_dir_all(&running).map_err(|error| StoreError::io(&running, &error))?;
        }
        let (doubts, length) = (GatheredDoubts::default(), Duration::ZERO);
        Ok(Self { rig, setting, watch, doubts, runs: 0, saved: 0, length })
    }

    /// Keeps what is wanted of a run that was judged.
    fn count(&mut self, policy: &str, replicate: u32, trace: &Trace, passes: bool) {
        let run = RunOf { policy, replicate, trace };
        if passes {
            self.doubts.add(&run, self.setting.scoring);
        } else {
            self.doubts.add_overloaded(&run, self.setting.scoring);
        }
        self.length += length(trace);
    }

    /// The rates at which something is saved, from the least.
    fn saved_rates(&self) -> Result<Vec<f64>, LabError> {
        let probes = self.setting.output.join(PROBES);
        if !probes.exists() {
            return Ok(Vec::new());
        }
        let entries = probes.read_dir().map_err(|error| StoreError::io(&probes, &error))?;
        let rate = |name: &str| name.strip_prefix(AT_RATE)?.parse().ok();
        let mut rates: Vec<f64> =
            entries.filter_map(|entry| rate(entry.ok()?.file_name().to_str()?)).collect();
        rates.sort_unstable_by(f64::total_cmp);
        Ok(rates)
    }

    /// The saved trace of a policy's run, if there is one and it is whole.
    ///
    /// # Errors
    /// If it is of other options: it is not replaced.
    fn saved(
        &mut self,
        contestant: &Contestant,
        rate: f64,
        replicate: u32,
    ) -> Result<Option<Trace>, LabError> {
        let Some(place) = saved_dir(self.setting.output, &contestant.info.label, rate, replicate)
        else {
            return Ok(None);
        };
        let (trace, missing) = TraceReader::read(&place)?;
        if !missing.is_empty() {
            return Ok(None);
        }
        if trace.header.policy != contestant.info {
            let label = trace.header.policy.label;
            return Err(LabError::AnothersTrace { place, label });
        }
        self.saved += 1;
        Ok(Some(trace))
    }

    /// Makes a run, and puts its trace in its place.
    fn run(
        &mut self,
        contestant: &Contestant,
        rate: f64,
        replicate: u32,
    ) -> Result<Trace, LabError> {
        let header = (self.setting.header)(rate);
        let output = self.setting.output.join(RUNNING);
        let setting = Setting {
            header: &header,
            cost_model: Some(self.setting.cost_model),
            max_concurrency: None,
            output: &output,
        };
        let submissions = (self.setting.workload)(rate, replicate)?;
        self.watch.rate_is_tried(rate);
        let run = measure(self.rig, &setting, contestant, replicate, submissions, self.watch)?;
        if run.end == RunEnd::Stopped {
            return Err(LabError::Interrupted);
        }
        self.keep(&run.dir, &self.place(contestant, rate, replicate))?;
        self.runs += 1;
        Ok(run.trace)
    }

    /// Moves a trace that is whole to its place, where another may be that is cut off.
    fn keep(&self, trace: &Path, place: &Path) -> Result<(), LabError> {
        let moved = || {
            if place.exists() {
                fs::remove_dir_all(place)?;
            }
            fs::create_dir_all(place.parent().unwrap_or(place))?;
            fs::rename(trace, place)?;
            fs::remove_dir(self.setting.output.join(RUNNING))
        };
        Ok(moved().map_err(|error| StoreError::io(place, &error))?)
    }

    fn place(&self, contestant: &Contestant, rate: f64, replicate: u32) -> PathBuf {
        probe_dir(self.setting.output, &contestant.info.label, rate, replicate)
    }
}

/// Where the trace of a search's run is kept, in the directory of the search.
fn probe_dir(output: &Path, policy: &str, rate: f64, replicate: u32) -> PathBuf {
    at_rate(output, rate).join(trace_name(policy, replicate))
}

fn at_rate(output: &Path, rate: f64) -> PathBuf {
    output.join(PROBES).join(format!("{AT_RATE}{rate}"))
}

/// Where the trace of a search's run is, if there is one. Names in older directories count replicates
/// from 0, without the `r`.
pub fn saved_dir(output: &Path, policy: &str, rate: f64, replicate: u32) -> Option<PathBuf> {
    let old = at_rate(output, rate).join(format!("{}-{replicate}.trace", file_name(policy)));
    [probe_dir(output, policy, rate, replicate), old].into_iter().find(|dir| dir.exists())
}

/// Runs of one policy, as its search asks for them.
pub(super) struct PolicyProbe<'a, 'b> {
    pub(super) bench: &'a mut Bench<'b>,
    pub(super) contestant: &'a Contestant,
    /// What each run missed.
    pub(super) probed: &'a mut Vec<Probed>,
}

/// Why searches end early.
pub(super) enum Cut {
    /// By Ctrl-C.
    Interrupted,
    /// By a run.
    Failed(Box<FailedRun>),
}

impl PolicyProbe<'_, '_> {
    /// Whether a run passed.
    fn judge(&mut self, trace: &Trace, rate: f64, replicate: u32) -> Result<bool, LabError> {
        let judged = judge_objectives(&[trace], self.bench.setting.scoring);
        let mut missed = Vec::new();
        for own in &judged {
            match own.is_met() {
                Some(true) => {}
                Some(false) => missed.push(own.objective.clone()),
                None => return Err(LabError::NothingToJudge { objective: own.objective.clone() }),
            }
        }
        let passes = missed.is_empty();
        self.bench.count(&self.contestant.info.label, replicate, trace, passes);
        self.probed.push(Probed { rate, replicate, missed, judged });
        Ok(passes)
    }

    fn cut(&self, cause: LabError, rate: Option<f64>, replicate: u32) -> Cut {
        match cause {
            LabError::Interrupted => Cut::Interrupted,
            cause => {
                let policy = self.contestant.info.label.clone();
                Cut::Failed(Box::new(FailedRun { policy, replicate, rate, cause }))
            }
        }
    }
}

impl Probe for PolicyProbe<'_, '_> {
    type Error = Cut;

    fn passes(&mut self, rate: f64, replicate: u32) -> Result<bool, Cut> {
        let trace = self.bench.run(self.contestant, rate, replicate);
        trace
            .and_then(|trace| self.judge(&trace, rate, replicate))
            .map_err(|cause| self.cut(cause, Some(rate), replicate))
    }

    fn saved(&mut self, replicate: u32) -> Result<Vec<(f64, bool)>, Cut> {
        let mut saved = Vec::new();
        for rate in self.bench.saved_rates().map_err(|cause| self.cut(cause, None, replicate))? {
            let passed = self.bench.saved(self.contestant, rate, replicate).and_then(|trace| {
                trace.map(|trace| self.judge(&trace, rate, replicate)).transpose()
            });
            let passed = passed.map_err(|cause| self.cut(cause, Some(rate), replicate))?;
            saved.extend(passed.map(|passed| (rate, passed)));
        }
        Ok(saved)
    }

    fn is_saved(&self, rate: f64) -> bool {
        saved_dir(self.bench.setting.output, &self.contestant.info.label, rate, 0).is_some()
    }
}
