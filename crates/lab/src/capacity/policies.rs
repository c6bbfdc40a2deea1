use std::fs;
use std::path::{Path, PathBuf};

use metron_engine::{CostModel, RunEnd};
use metron_metrics::{Capacity, Objective, Probed, Scoring, judge_objectives, reached_by};
use metron_trace::{Header, StoreError, Trace, TraceReader};

use super::bound::greatest_rate;
use super::search::{CapacitySearch, Probe, SearchPlan};
use crate::LabError;
use crate::rig::Rig;
use crate::run::{Contestant, Requests, Setting, Watch, measure, trace_name};

/// What all searches share.
pub struct CapacitySetting<'a> {
    /// How runs are scored; they pass if they keep its objectives.
    pub scoring: &'a Scoring,
    /// The latency oracle that policies may ask.
    pub cost_model: &'a dyn CostModel,
    /// Prices of work below the cost of every step, for the bound.
    pub least: &'a dyn CostModel,
    /// What is looked for. Its start is lowered to the bound.
    pub plan: SearchPlan,
    /// Names of the workload's classes.
    pub classes: &'a [String],
    /// The header of the traces at a rate.
    pub header: &'a dyn Fn(f64) -> Header,
    /// The requests of a replicate at a rate.
    pub workload: &'a dyn Fn(f64, u32) -> Result<Requests, LabError>,
    /// Where the traces go, and where those of earlier searches are.
    pub output: &'a Path,
}

impl std::fmt::Debug for CapacitySetting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapacitySetting").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What came of the searches.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// A capacity for each policy.
    pub capacities: Vec<Capacity>,
    /// Whether they were cut short.
    pub end: RunEnd,
    /// Runs that were made.
    pub runs: u32,
    /// Runs that were there already, and were scored again.
    pub saved: u32,
}

/// Searches the capacity of every policy, look by look with the policies one after the other. Every run is saved under `output` before it counts, and one that is there already is
/// scored again and not repeated: so a search goes on after a kill, and under other objectives.
pub fn capacities(
    rig: &mut dyn Rig,
    setting: &CapacitySetting<'_>,
    contestants: &[Contestant],
    watch: &mut dyn Watch,
) -> Result<Found, LabError> {
    let running = setting.output.join(RUNNING);
    // What a killed search left half-done.
    if running.exists() {
        fs::remove_dir_all(&running).map_err(|error| StoreError::io(&running, &error))?;
    }
    let mut bounds = Bounds { setting, of_replicates: Vec::new() };
    let plan = SearchPlan { start: bounds.start()?, ..setting.plan };
    let mut searches: Vec<Searching<'_>> =
        contestants.iter().map(|contestant| Searching::new(contestant, plan)).collect();
    let mut bench = Bench { rig, setting, watch, runs: 0, saved: 0 };
    let mut end = RunEnd::Complete;
    'searching: while searches.iter().any(|own| own.search.wants_another()) {
        for own in searches.iter_mut().filter(|own| own.search.wants_another()) {
            match own.look(&mut bench) {
                Err(LabError::Interrupted) => {
                    end = RunEnd::Stopped;
                    break 'searching;
                }
                other => other?,
            }
        }
    }
    let (runs, saved) = (bench.runs, bench.saved);
    let capacities = searches
        .into_iter()
        .map(|own| {
            let bound = bounds.of_first(own.search.replicates())?;
            Ok(own.capacity(bound))
        })
        .collect::<Result<_, LabError>>()?;
    Ok(Found { capacities, end, runs, saved })
}

/// Where a run's trace is while it goes on.
const RUNNING: &str = "running";
/// Where traces are that are whole, by rate.
const PROBES: &str = "probes";

/// The bound of each replicate's requests.
struct Bounds<'a> {
    setting: &'a CapacitySetting<'a>,
    of_replicates: Vec<Option<f64>>,
}

impl Bounds<'_> {
    /// The bound of the first replicates together, `None` where there is none.
    fn of_first(&mut self, replicates: u32) -> Result<Option<f64>, LabError> {
        let CapacitySetting { scoring, least, plan, workload, classes, .. } = self.setting;
        for replicate in self.of_replicates.len() as u32..replicates.max(1) {
            let submissions = workload(plan.start, replicate)?.submissions;
            let greatest = greatest_rate(&submissions, plan.start, scoring, classes, *least);
            self.of_replicates.push(greatest);
        }
        let first = &self.of_replicates[..replicates.max(1) as usize];
        Ok(reached_by(first, plan.probability))
    }

    /// Where searches begin: at the bound, or where the plan says.
    fn start(&mut self) -> Result<f64, LabError> {
        let [least, _] = self.setting.plan.range;
        let start = self.setting.plan.start;
        Ok(self.of_first(1)?.map_or(start, |bound| bound.min(start)).max(least))
    }
}

/// One policy's search.
struct Searching<'a> {
    contestant: &'a Contestant,
    search: CapacitySearch,
    /// What each run missed.
    probed: Vec<Probed>,
}

impl<'a> Searching<'a> {
    fn new(contestant: &'a Contestant, plan: SearchPlan) -> Self {
        Self { contestant, search: CapacitySearch::new(plan), probed: Vec::new() }
    }

    fn look(&mut self, bench: &mut Bench<'_>) -> Result<(), LabError> {
        let mut probe =
            PolicyProbe { bench, contestant: self.contestant, probed: &mut self.probed };
        self.search.look(&mut probe)
    }

    fn capacity(self, upper_bound: Option<f64>) -> Capacity {
        let search = self.search;
        let mut probes = self.probed;
        probes.sort_by(|a, b| a.replicate.cmp(&b.replicate).then(a.rate.total_cmp(&b.rate)));
        Capacity {
            policy: self.contestant.info.label.clone(),
            bracket: search.bracket(),
            estimate: search.estimate(),
            replicates: search.replicates(),
            end: search.end(),
            binding: binding(&probes),
            upper_bound,
            not_monotone: search.not_monotone(),
            range: search.range(),
            probes,
        }
    }
}

/// The objective that most replicates miss at the least rate at which they fail.
fn binding(probes: &[Probed]) -> Option<Objective> {
    let first_failures: Vec<&Probed> = probes
        .chunk_by(|a, b| a.replicate == b.replicate)
        .filter_map(|of_replicate| of_replicate.iter().find(|probe| !probe.missed.is_empty()))
        .collect();
    let count = |objective: &&Objective| {
        first_failures.iter().filter(|probe| probe.missed.contains(objective)).count()
    };
    let all = first_failures.iter().flat_map(|probe| &probe.missed);
    // The first of equals, as the objectives stand.
    all.rev().max_by_key(count).cloned()
}

/// What runs are made with.
struct Bench<'a> {
    rig: &'a mut dyn Rig,
    setting: &'a CapacitySetting<'a>,
    watch: &'a mut dyn Watch,
    runs: u32,
    saved: u32,
}

impl Bench<'_> {
    /// The trace of a run: the saved one if there is one, else that of a run now.
    fn trace(
        &mut self,
        contestant: &Contestant,
        rate: f64,
        replicate: u32,
    ) -> Result<Trace, LabError> {
        let saved = self.place(contestant, rate, replicate);
        if saved.exists() {
            let (trace, missing) = TraceReader::read(&saved)?;
            if missing.is_empty() {
                self.saved += 1;
                return Ok(trace);
            }
            fs::remove_dir_all(&saved).map_err(|error| StoreError::io(&saved, &error))?;
        }
        let header = (self.setting.header)(rate);
        let output = self.setting.output.join(RUNNING);
        let setting = Setting {
            header: &header,
            cost_model: Some(self.setting.cost_model),
            max_concurrency: None,
            output: &output,
        };
        let requests = (self.setting.workload)(rate, replicate)?;
        let run = measure(self.rig, &setting, contestant, replicate, requests, self.watch)?;
        if run.end == RunEnd::Stopped {
            return Err(LabError::Interrupted);
        }
        // A trace is in its place only when it is whole.
        let parent = saved.parent().unwrap_or(&saved);
        fs::create_dir_all(parent)
            .and_then(|()| fs::rename(&run.dir, &saved))
            .and_then(|()| fs::remove_dir(&output))
            .map_err(|error| StoreError::io(&saved, &error))?;
        self.runs += 1;
        Ok(run.trace)
    }

    fn place(&self, contestant: &Contestant, rate: f64, replicate: u32) -> PathBuf {
        let at_rate = self.setting.output.join(PROBES).join(format!("rate-{rate}"));
        at_rate.join(trace_name(&contestant.info.label, replicate))
    }
}

/// Runs of one policy, as its search asks for them.
struct PolicyProbe<'a, 'b> {
    bench: &'a mut Bench<'b>,
    contestant: &'a Contestant,
    probed: &'a mut Vec<Probed>,
}

impl Probe for PolicyProbe<'_, '_> {
    type Error = LabError;

    fn passes(&mut self, rate: f64, replicate: u32) -> Result<bool, LabError> {
        let trace = self.bench.trace(self.contestant, rate, replicate)?;
        let mut missed = Vec::new();
        for judged in judge_objectives(&[&trace], self.bench.setting.scoring) {
            match judged.is_met() {
                Some(true) => {}
                Some(false) => missed.push(judged.objective),
                None => return Err(LabError::NothingToJudge { objective: judged.objective }),
            }
        }
        let passes = missed.is_empty();
        self.probed.push(Probed { rate, replicate, missed });
        Ok(passes)
    }

    fn is_saved(&self, rate: f64) -> bool {
        self.bench.place(self.contestant, rate, 0).exists()
    }
}
