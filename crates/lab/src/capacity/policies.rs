use std::path::Path;
use std::time::Duration;

use metron_engine::{CostModel, RunEnd};
use metron_metrics::{Capacity, Objective, Probed, RaisedDoubt, Scoring, reached_by};
use metron_trace::Header;

use super::bench::{Bench, Cut, PolicyProbe};
use super::bound::greatest_rate;
use super::search::{CapacitySearch, SearchPlan};
use crate::error::{FailedRun, LabError};
use crate::rig::Rig;
use crate::run::{Contestant, Requests, Watch, check_labels};

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
    /// Where the capacity of each policy is expected, by name, if anything is: its search begins
    /// there.
    pub expected: &'a [(String, f64)],
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
#[derive(Debug)]
pub struct Found {
    /// A capacity for each policy.
    pub capacities: Vec<Capacity>,
    /// The doubts that the runs give cause for.
    pub doubts: Vec<RaisedDoubt>,
    /// Whether they were cut short.
    pub end: RunEnd,
    /// The run that failed and cut them short, if one did.
    pub failure: Option<FailedRun>,
    /// Runs that were made.
    pub runs: u32,
    /// Runs that were there already, and were scored again.
    pub saved: u32,
    /// How long all these runs were together, by their own clock.
    pub length: Duration,
}

/// Searches the capacity of every policy, look by look with the policies one after the other. Every
/// run is saved under `output` before it counts, and one that is there already is scored again and
/// not repeated: so a search goes on after a kill, and under other objectives. A run that fails
/// ends the searches, but not what others have found.
///
/// # Errors
/// If a run fails before any has told anything, or two policies would write the same files.
pub fn capacities(
    rig: &mut dyn Rig,
    setting: &CapacitySetting<'_>,
    contestants: &[Contestant],
    watch: &mut dyn Watch,
) -> Result<Found, LabError> {
    check_labels(contestants.iter().map(|own| own.info.label.as_str()))?;
    let mut bounds = Bounds { setting, of_replicates: Vec::new() };
    let start = bounds.start()?;
    let mut searches: Vec<Searching<'_>> =
        contestants.iter().map(|own| Searching::new(own, setting.plan_of(own, start))).collect();
    let mut bench = Bench::new(rig, setting, watch)?;
    let searched = search_all(&mut searches, &mut bench);
    let has_told = searches.iter().any(|own| !own.probed.is_empty());
    let (end, failure) = match searched {
        Ok(()) => (RunEnd::Complete, None),
        Err(Cut::Interrupted) => (RunEnd::Stopped, None),
        Err(Cut::Failed(run)) if has_told => (RunEnd::Stopped, Some(*run)),
        Err(Cut::Failed(run)) => return Err(run.cause),
    };
    // One bound for all: it is the requests', whoever serves them.
    let replicates = searches.iter().map(Searching::replicates).max().unwrap_or(0);
    let bound = bounds.of_first(replicates)?;
    let capacities = searches.into_iter().map(|own| own.capacity(bound)).collect();
    Ok(Found {
        capacities,
        doubts: bench.doubts.of_runs_alone(setting.scoring),
        end,
        failure,
        runs: bench.runs,
        saved: bench.saved,
        length: bench.length,
    })
}

/// Takes the policies' looks in turn until every search has ended.
fn search_all(searches: &mut [Searching<'_>], bench: &mut Bench<'_>) -> Result<(), Cut> {
    while searches.iter().any(|own| own.search.wants_another()) {
        for own in searches.iter_mut().filter(|own| own.search.wants_another()) {
            own.look(bench)?;
        }
    }
    Ok(())
}

impl CapacitySetting<'_> {
    /// The plan of a policy's search, which begins at `start` unless more is known.
    fn plan_of(&self, contestant: &Contestant, start: f64) -> SearchPlan {
        let own = self.expected.iter().find(|(policy, _)| *policy == contestant.info.label);
        SearchPlan { start: own.map_or(start, |(_, expected)| *expected), ..self.plan }
    }
}

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

    fn look(&mut self, bench: &mut Bench<'_>) -> Result<(), Cut> {
        let mut probe =
            PolicyProbe { bench, contestant: self.contestant, probed: &mut self.probed };
        self.search.look(&mut probe)
    }

    /// Replicates that it has asked anything of, also in a look that was cut short.
    fn replicates(&self) -> u32 {
        let asked = self.probed.iter().map(|probed| probed.replicate + 1).max();
        asked.unwrap_or(0).max(self.search.replicates())
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
