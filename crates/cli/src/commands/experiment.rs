mod outcome;

use std::path::Path;
use std::sync::Arc;

use metron_lab::{Calibrated, Comparing, LabError, Repeating, Rig, Setting, compare};
use metron_schedulers::Registry;
use metron_sim::CostFile;
use metron_trace::{ExecutorInfo, Header, Limits, ModelInfo, Origin};
use metron_workload::{Prompts, Vocabulary, WorkloadSpec, longest_possible};

use self::outcome::{COST, report, write_experiment};
use super::lab_failure;
use crate::args::ExperimentArgs;
use crate::calibrations;
use crate::conditions::MachineWatch;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::Experiment;
use crate::facts;
use crate::header::header_of;
use crate::machine::this_machine;
use crate::model_rig::{ModelOnDisk, ModelRig};
use crate::output::OutputDir;
use crate::prepare::{
    Defaulted, Prepared, check_schedulers, draw, limits, prepare, quick_calibration, submissions,
    workload_failure,
};
use crate::print;
use crate::progress::{Progress, StopSignal};
use crate::save_result::SavedResults;
use crate::virtual_rig::{SharedCost, VirtualRig};
use crate::workload_draft::{WorkloadDraft, class_names};

/// `metron compare` and `metron run`: they differ in their defaults.
pub(crate) fn run(
    args: &ExperimentArgs,
    defaulted: Defaulted,
    registry: &Registry,
) -> Result<(), Failure> {
    let experiment = Experiment::from_args(args)?;
    let draft = WorkloadDraft::new(experiment.workload.as_ref(), &args.workload)?;
    Session { args, defaulted, registry, experiment, draft }.begin()
}

pub(super) struct Session<'a> {
    pub(super) args: &'a ExperimentArgs,
    pub(super) defaulted: Defaulted,
    pub(super) registry: &'a Registry,
    pub(super) experiment: Experiment,
    pub(super) draft: WorkloadDraft,
}

/// What runs, for the header.
pub(super) struct System {
    pub(super) origin: Origin,
    model: ModelInfo,
    pub(super) executor: ExecutorInfo,
    pub(super) vocabulary: Vocabulary,
}

impl Session<'_> {
    /// Checks what can be checked before anything is loaded, and goes on.
    pub(super) fn begin(mut self) -> Result<(), Failure> {
        check_schedulers(&mut self.experiment, self.defaulted, self.registry)?;
        self.experiment.scoring.check_classes(&class_names(&self.draft.spec))?;
        match self.experiment.simulate.clone() {
            Some(cost_file) => self.in_virtual_time(&cost_file),
            None => self.on_this_machine(),
        }
    }

    /// Refuses what virtual time would leave unheard: it has no model, and prompts without a text.
    fn check_virtual_time(&self) -> Result<(), Failure> {
        let mut unheard = self.experiment.model.given();
        if self.experiment.engine.trace_operators {
            unheard.push("--trace-operators");
        }
        if self.draft.spec.prompts != Prompts::Random {
            unheard.push("--prompt-text");
        }
        if unheard.is_empty() {
            return Ok(());
        }
        let error = anyhow::anyhow!(
            "{} can't be honoured in virtual time, where no model computes; leave {} out (of an \
             experiment file too)",
            unheard.join(", "),
            if unheard.len() == 1 { "it" } else { "them" }
        );
        Err(Failure { kind: Kind::Usage, error })
    }

    fn in_virtual_time(self, cost_file: &Path) -> Result<(), Failure> {
        self.check_virtual_time()?;
        let cost = Arc::new(calibrations::read(cost_file)?);
        let longest = longest(&self.draft.sample())?;
        let limits = limits(&self.experiment, longest, None, |_| None)?;
        let system = System {
            origin: Origin::Simulated,
            model: ModelInfo {
                id: cost.name.clone(),
                source: cost.source.clone(),
                format: "cost model".to_owned(),
                parameters: 0,
                sha256: None,
                dummy: false,
            },
            executor: ExecutorInfo {
                device: "virtual time".to_owned(),
                dtype: None,
                threads: None,
                batch_invariant: None,
            },
            vocabulary: Vocabulary::default(),
        };
        let mut rig = VirtualRig::new(limits, SharedCost(Arc::clone(&cost)));
        self.measure(&mut rig, &system, |_| Ok(cost.as_ref().clone()))
    }

    fn on_this_machine(self) -> Result<(), Failure> {
        let quiet = self.args.output.quiet || self.args.output.json;
        let model = ModelOnDisk::find(&self.experiment.model, quiet)?;
        if !quiet {
            print::note(&model.files.sentence());
        }
        let vocabulary = vocabulary(&model, &self.draft.spec)?;
        let longest = longest(&self.draft.sample())?;
        let mut rig = model.rig_for(&self.experiment, longest)?;
        rig.executor.time_operators(self.experiment.engine.trace_operators);
        let system = System {
            origin: Origin::Measured,
            model: rig.model_info(),
            executor: rig.executor_info(),
            vocabulary,
        };
        let machine = this_machine(&system.executor.device);
        let fit = |calibrated: &Calibrated| {
            let quick = calibrations::Thoroughness::Quick;
            let (model, executor) = (&system.model, &system.executor);
            let cost = calibrations::cost_of(calibrated, model, executor, &machine, quick);
            // A cache that can't be written costs a later --simulate, not this run.
            let _ = calibrations::keep(&cost, quick);
            Ok(cost)
        };
        self.measure::<ModelRig>(&mut rig, &system, fit)
    }

    fn measure<R: Rig>(
        self,
        rig: &mut R,
        system: &System,
        fit: impl Fn(&Calibrated) -> Result<CostFile, Failure>,
    ) -> Result<(), Failure> {
        if self.defaulted == Defaulted::Capacity {
            return super::capacity::search(self, rig, system, fit);
        }
        let Self { args, defaulted, registry, experiment, draft } = self;
        let quiet = args.output.quiet || args.output.json;
        let seed = experiment.seed.unwrap_or_default();
        let limits = rig.limits();
        check_fits(&experiment, &draft.sample(), limits, seed)?;
        let output = OutputDir::create(args.output.output.as_deref(), defaulted.name())?;
        let saved = SavedResults::open(&args.save_result, &output.path.join("vllm"))?;
        let stop = StopSignal::on_ctrl_c();
        let mut progress = Progress::new(stop, quiet);
        let calibrated = quick_calibration(rig, &draft, seed, &mut progress)?;
        let cost = fit(&calibrated)?;
        let prepared = prepare(experiment, draft, defaulted, registry, limits, &calibrated, &cost)?;
        let header = header(system, &prepared, limits, &calibrated);
        let mut facts = facts::facts(&header, &prepared, &args.scoring);
        facts.extend(facts::verdict_facts(&prepared));
        facts.extend(facts::origin_facts(&header));
        if !quiet {
            progress.suspend(|| print::note(&facts::as_text(&facts)));
        }
        progress.expect_runs(prepared.replicates, prepared.contestants.len());
        let comparing = run_all(rig, system, &prepared, &header, &cost, &output, &mut progress)?;
        progress.finish();
        report(&comparing, &prepared, &header, facts, &output, saved.as_ref(), args)
    }
}

/// The most tokens a request can have, with the user's numbers checked.
fn longest(spec: &WorkloadSpec) -> Result<u32, Failure> {
    longest_possible(spec).map_err(workload_failure)
}

/// Refuses requests that can't be served before anything runs, if they are not to be dropped.
pub(super) fn check_fits(
    experiment: &Experiment,
    spec: &WorkloadSpec,
    limits: Limits,
    seed: u64,
) -> Result<(), Failure> {
    let mut workload = draw(spec, &Vocabulary::default(), seed, 0)?;
    workload.fit(limits.longest_sequence(), experiment.too_long).or_fail(Kind::Input)
}

/// What prompts are made of: the tokenizer's ordinary tokens, or a text.
fn vocabulary(model: &ModelOnDisk, spec: &WorkloadSpec) -> Result<Vocabulary, Failure> {
    let ordinary = model.ordinary_token_ids();
    let Prompts::Text { path } = &spec.prompts else {
        return Ok(Vocabulary { ordinary, text: None });
    };
    let tokenizer = model
        .tokenizer
        .as_ref()
        .ok_or_else(|| {
            anyhow::anyhow!("the model has no tokenizer here, so --prompt-text can't be used")
        })
        .or_fail(Kind::Usage)?;
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
        .or_fail(Kind::Input)?;
    let text = tokenizer.encode(&text).or_fail(Kind::Input)?;
    Ok(Vocabulary { ordinary, text: Some(text) })
}

pub(super) fn header(
    system: &System,
    prepared: &Prepared,
    limits: Limits,
    calibrated: &Calibrated,
) -> Header {
    let experiment = serde_json::json!({
        "experiment": prepared.experiment,
        "scoring": prepared.scoring,
        "judging": prepared.judging,
        "policies": prepared.contestants.iter().map(|c| &c.info.label).collect::<Vec<_>>(),
    });
    let (model, executor) = (system.model.clone(), system.executor.clone());
    Header {
        seed: prepared.experiment.seed.unwrap_or_default(),
        experiment,
        classes: prepared.experiment.workload.as_ref().map(class_names).unwrap_or_default(),
        calibration: Some(calibrated.calibration.clone()),
        ..header_of(system.origin, model, executor, limits)
    }
}

fn run_all(
    rig: &mut dyn Rig,
    system: &System,
    prepared: &Prepared,
    header: &Header,
    cost: &CostFile,
    output: &OutputDir,
    progress: &mut Progress,
) -> Result<Comparing, Failure> {
    let Some(spec) = &prepared.experiment.workload else {
        let error = anyhow::anyhow!("the experiment was prepared without a workload");
        return Err(Failure { kind: Kind::Internal, error });
    };
    let fits = rig.limits().longest_sequence();
    let draw_fitting = |replicate: u32| {
        let mut workload = draw(spec, &system.vocabulary, header.seed, replicate)?;
        workload.fit(fits, prepared.experiment.too_long).or_fail(Kind::Input)?;
        Ok::<_, Failure>(workload)
    };
    // Drawn once before anything runs: a bad workload is the user's, not a run's.
    draw_fitting(0)?;
    // What was asked survives whatever becomes of the runs.
    if system.origin == Origin::Simulated {
        output.write(COST, &toml::to_string_pretty(cost).or_fail(Kind::Internal)?)?;
    }
    write_experiment(prepared, &[], output)?;
    let setting = Setting {
        header,
        cost_model: Some(cost),
        max_concurrency: spec.max_concurrency,
        output: &output.path,
    };
    let workload = |replicate: u32| {
        let workload = draw_fitting(replicate)
            .map_err(|failure| LabError::Workload { replicate, cause: failure.to_string() })?;
        Ok(submissions(workload, spec, &prepared.scoring))
    };
    let repeating = Repeating {
        replicates: prepared.replicates,
        scoring: &prepared.scoring,
        judging: &prepared.judging,
    };
    let mut machine = MachineWatch::of(system.origin, &system.executor);
    let watch = &mut (progress, &mut machine);
    compare(rig, &setting, &prepared.contestants, repeating, &workload, watch).map_err(lab_failure)
}
