mod archive;
mod rehearsal;

use std::path::Path;

use metron_engine::RunEnd;
use metron_lab::{
    Calibrated, CapacitySetting, Found, LabError, Load, Replicates, Rig, SearchPlan, Watch,
    capacities,
};
use metron_metrics::Objectives;
use metron_report::CapacityReport;
use metron_schedulers::Registry;
use metron_sim::CostFile;
use metron_trace::{Header, Origin, RequestId, Work, WorkKind};
use metron_workload::{Vocabulary, WorkloadSpec};

use self::archive::{Archive, saved_experiment};
use self::rehearsal::Rehearsal;
use super::experiment::{Session, System, check_fits, header};
use super::{ended, lab_failure};
use crate::args::{CapacityArgs, ExperimentArgs};
use crate::conditions::MachineWatch;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::Experiment;
use crate::facts;
use crate::prepare::{Defaulted, Prepared, draw, prepare, quick_calibration, submissions};
use crate::print;
use crate::progress::{Progress, StopSignal};
use crate::workload_draft::{WorkloadDraft, set_rate};

/// The objective of the paper, where none is given.
const DEFAULT_OBJECTIVE: &str = "fluidity_index >= 0.9 for 99%";

/// How sure brackets are.
const CONFIDENCE: f64 = 0.95;

/// With what probability a run keeps its objectives at the capacity, unless asked otherwise.
const PROBABILITY: f64 = 0.5;

/// `metron capacity`: the greatest rate at which each policy keeps its objectives.
pub(crate) fn run(args: &CapacityArgs, registry: &Registry) -> Result<(), Failure> {
    let usage = |error: anyhow::Error| Failure { kind: Kind::Usage, error };
    check_of_comparisons(&args.experiment).map_err(usage)?;
    // A search that goes on begins with its own experiment.
    let output = args.experiment.output.output.as_deref();
    let saved = output.map_or(Ok(None), saved_experiment)?;
    let asked = ExperimentArgs {
        experiment: args.experiment.experiment.clone().or(saved),
        ..args.experiment.clone()
    };
    let mut experiment = Experiment::from_args(&asked)?;
    if experiment.scoring.objectives.is_empty() {
        let objective = DEFAULT_OBJECTIVE.parse().or_fail(Kind::Internal)?;
        experiment.scoring.objectives = Objectives::new(vec![objective]).or_fail(Kind::Internal)?;
    }
    experiment.probability = args.probability.or(experiment.probability);
    let probability = *experiment.probability.get_or_insert(PROBABILITY);
    if !(probability > 0.0 && probability < 1.0) {
        return Err(usage(anyhow::anyhow!(
            "--probability is {probability}; it must be above 0 and below 1"
        )));
    }
    let draft = WorkloadDraft::new(experiment.workload.as_ref(), &asked.workload)?;
    check_open_loop(&draft, &asked).map_err(usage)?;
    Session { args: &asked, defaulted: Defaulted::Capacity, registry, experiment, draft }.begin()
}

/// Refuses what only comparisons and single runs heed.
fn check_of_comparisons(args: &ExperimentArgs) -> anyhow::Result<()> {
    let given = [
        ("--baseline", args.baseline.is_some()),
        ("--save-result", args.save_result.save_result),
        ("--save-detailed", args.save_result.save_detailed),
        ("--result-dir", args.save_result.result_dir.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => anyhow::bail!("{name} means nothing to a search; leave it out"),
        None => Ok(()),
    }
}

/// A capacity is of arrivals whose rate can be set.
fn check_open_loop(draft: &WorkloadDraft, args: &ExperimentArgs) -> anyhow::Result<()> {
    if args.workload.request_rate.is_some() {
        anyhow::bail!("capacity looks for the rate itself; leave --request-rate out");
    }
    if draft.spec.max_concurrency.is_some() {
        anyhow::bail!(
            "a closed loop (max_concurrency) has no arrival rate; capacity needs an open one"
        );
    }
    if draft.rate().is_none() {
        anyhow::bail!(
            "these arrivals have no rate to set; give --arrivals poisson, gamma or constant \
             (with --dataset-path FILE the lengths are still the file's)"
        );
    }
    Ok(())
}

/// Searches on a rig that is ready.
pub(super) fn search<R: Rig>(
    session: Session<'_>,
    rig: &mut R,
    system: &System,
    fit: impl Fn(&Calibrated) -> Result<CostFile, Failure>,
) -> Result<(), Failure> {
    let Session { args, defaulted, registry, experiment, draft } = session;
    let quiet = args.output.quiet || args.output.json;
    let seed = experiment.seed.unwrap_or_default();
    let limits = rig.limits();
    check_fits(&experiment, &draft.sample(), limits, seed)?;
    let archive = Archive::open(args.output.output.as_deref())?;
    let stop = StopSignal::on_ctrl_c();
    let mut progress = Progress::new(stop.clone(), quiet);
    let (calibrated, cost) = match archive.calibration()? {
        Some((calibrated, cost)) if system.origin == Origin::Simulated => {
            archive.check_cost(&cost, &fit(&calibrated)?)?;
            (calibrated, cost)
        }
        Some(saved) => saved,
        None => {
            let calibrated = quick_calibration(rig, &draft, seed, &mut progress)?;
            let cost = fit(&calibrated)?;
            (calibrated, cost)
        }
    };
    let prepared = prepare(experiment, draft, defaulted, registry, limits, &calibrated, &cost)?;
    archive.keep(&prepared.experiment, &calibrated, &cost)?;
    let header = header(system, &prepared, limits, &calibrated);
    let search = Search { system, prepared: &prepared, header: &header, cost: &cost, args };
    let mut facts = search.facts()?;
    let mut expected = Vec::new();
    if system.origin == Origin::Measured {
        progress.phase("rehearsing in virtual time");
        let rehearsed = Rehearsal::of(&search, limits, stop, &archive.dir.path)?;
        facts.push(facts::fact("planned", rehearsed.sentence()));
        progress.expect_search(rehearsed.runs, rehearsed.length);
        expected = rehearsed.expected;
    }
    facts.extend(facts::origin_facts(&header));
    if !quiet {
        progress.suspend(|| print::note(&facts::as_text(&facts)));
    }
    let mut machine = MachineWatch::of(system.origin, &system.executor);
    let found =
        search.run(rig, &archive.dir.path, &expected, &mut (&mut progress, &mut machine))?;
    progress.finish();
    search.report(&found, &facts, &archive)
}

/// A search with nothing left to derive.
struct Search<'a> {
    system: &'a System,
    prepared: &'a Prepared,
    header: &'a Header,
    cost: &'a CostFile,
    args: &'a ExperimentArgs,
}

impl Search<'_> {
    fn spec(&self) -> Result<&WorkloadSpec, Failure> {
        let spec = self.prepared.experiment.workload.as_ref();
        spec.ok_or_else(|| anyhow::anyhow!("the search was prepared without a workload"))
            .or_fail(Kind::Internal)
    }

    /// The facts of a run, with what is searched in the place of the rate.
    fn facts(&self) -> Result<Vec<(String, String)>, Failure> {
        let requests = self.spec()?.num_prompts;
        let Self { prepared, header, args, .. } = self;
        let mut facts = facts::facts(header, prepared, &args.scoring);
        for (name, sentence) in &mut facts {
            if name == "workload" {
                *sentence = format!(
                    "{requests} requests a run, the same at every rate with the gaps scaled; seed \
                     {}",
                    header.seed
                );
            }
        }
        let objectives = &prepared.scoring.objectives;
        let sentence = format!(
            "the rate at which {objectives} holds with probability {}, by at most {} replicates",
            self.probability(),
            self.most_replicates()
        );
        facts.push(facts::fact("searched", sentence));
        Ok(facts)
    }

    /// Searches on a rig; `expected` has where the capacities are expected, by policy.
    fn run(
        &self,
        rig: &mut dyn Rig,
        output: &Path,
        expected: &[(String, f64)],
        watch: &mut dyn Watch,
    ) -> Result<Found, Failure> {
        let spec = self.spec()?;
        let fits = rig.limits().longest_sequence();
        let too_long = self.prepared.experiment.too_long;
        let workload = |rate: f64, replicate: u32| {
            let mut spec = spec.clone();
            set_rate(&mut spec, rate);
            let workload = draw(&spec, &self.system.vocabulary, self.header.seed, replicate)
                .and_then(|mut workload| {
                    workload.fit(fits, too_long).or_fail(Kind::Input)?;
                    Ok(workload)
                })
                .map_err(|failure| LabError::Workload { replicate, cause: failure.to_string() })?;
            Ok(submissions(workload, &spec, &self.prepared.scoring))
        };
        let lengths = draw(spec, &Vocabulary::default(), self.header.seed, 0)?.lengths();
        let slots = rig.limits().max_num_seqs;
        let load = Load { cost_model: self.cost, lengths: &lengths };
        let least = self.cost.least_prices(slots, &mix(&lengths));
        let setting = CapacitySetting {
            scoring: &self.prepared.scoring,
            cost_model: self.cost,
            least: &least,
            plan: self.plan(&load, slots),
            expected,
            classes: &self.header.classes,
            header: &|rate| self.header_at(rate),
            workload: &workload,
            output,
        };
        capacities(rig, &setting, &self.prepared.contestants, watch).map_err(lab_failure)
    }

    /// Rates from one at which requests hardly meet to one at which they come all at once.
    fn plan(&self, load: &Load<'_>, slots: u32) -> SearchPlan {
        let start = load.rate_for_batch(slots);
        SearchPlan {
            probability: self.probability(),
            confidence: CONFIDENCE,
            replicates: self.most_replicates(),
            start,
            range: [load.rate_for_batch(1) / 10.0, 100.0 * start],
        }
    }

    fn probability(&self) -> f64 {
        self.prepared.experiment.probability.unwrap_or(PROBABILITY)
    }

    fn most_replicates(&self) -> u32 {
        match self.prepared.replicates {
            // A search adds replicates until they decide in any case.
            Replicates::Exactly(count) | Replicates::UntilDecided(count) => count,
            Replicates::Within(_) => 1,
        }
    }

    /// The header of the traces at a rate: that of all, with the rate in its experiment.
    fn header_at(&self, rate: f64) -> Header {
        let mut header = self.header.clone();
        let of_rate = "/experiment/workload/arrivals/request_rate";
        if let Some(value) = header.experiment.pointer_mut(of_rate) {
            *value = rate.into();
        }
        header
    }

    fn report(
        &self,
        found: &Found,
        facts: &[(String, String)],
        archive: &Archive,
    ) -> Result<(), Failure> {
        let output = &self.args.output;
        let is_partial = found.end == RunEnd::Stopped;
        let report = CapacityReport {
            header: self.header,
            facts,
            capacities: &found.capacities,
            doubts: &found.doubts,
            objectives: &self.prepared.scoring.objectives,
            num_requests: self.spec()?.num_prompts,
            probability: self.probability(),
            confidence: CONFIDENCE,
            is_partial,
        };
        let json = report.to_json().or_fail(Kind::Internal)?;
        archive.dir.write("capacity.json", &json)?;
        let html = report.to_html().or_fail(Kind::Internal)?;
        let html = archive.dir.write("report.html", &html)?;
        print::result(if output.json { json } else { report.to_text() }.as_str());
        if !output.quiet && !output.json {
            print::note(&format!(
                "{} runs made, {} saved ones scored again. Written to {dir}: open {}; the same \
                 command with -o {dir} and other objectives runs only what is missing",
                found.runs,
                found.saved,
                html.display(),
                dir = archive.dir.path.display()
            ));
        }
        ended(found.end, found.failure.as_ref())
    }
}

/// All work of these requests as one: what prices should be highest for.
fn mix(lengths: &[(u32, u32)]) -> [Work; 2] {
    let sum = |of: fn(&(u32, u32)) -> u32| lengths.iter().map(of).fold(0, u32::saturating_add);
    let work = |tokens, kind| Work { request: RequestId(0), context: 0, tokens, kind };
    [
        work(sum(|(prompt, _)| *prompt), WorkKind::Prefill),
        work(sum(|(_, output)| output.saturating_sub(1)), WorkKind::Decode),
    ]
}
