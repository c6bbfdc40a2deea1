use std::time::Duration;

use metron_engine::{CostModel, Submission};
use metron_lab::{
    Calibrated, CalibrationPlan, Contestant, Load, Replicates, Requests, Rig, calibrate,
    check_labels,
};
use metron_metrics::statistics::Looks;
use metron_metrics::{Judging, Scoring};
use metron_schedulers::{Defaults, PolicySpec, Registry};
use metron_trace::{Limits, Request};
use metron_workload::{Vocabulary, Workload, WorkloadError, WorkloadSpec, generate};

use crate::derive::{LoadFacts, derive_rate, derive_scoring, prompts_within, token_budget};
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::{Experiment, MOST_POSITIONS};
use crate::progress::Progress;
use crate::workload_draft::{WorkloadDraft, class_names};

/// How long the runs of a comparison may take on the machine, all together.
const COMPARE_TIME: Duration = Duration::from_secs(150);

/// How long a single run should take.
const RUN_TIME: Duration = Duration::from_secs(30);

/// Requests of a run in virtual time.
const VIRTUAL_PROMPTS: u32 = 512;

/// Replicates of a comparison in virtual time, and the most that `--until decided` makes there.
const VIRTUAL_REPLICATES: u32 = 10;
const MOST_VIRTUAL_REPLICATES: u32 = 40;

/// The most replicates that `--until decided` makes on the machine.
const MOST_REPLICATES: u32 = 10;

/// The most replicates of a capacity search on the machine. Six are the fewest that decide
/// anything, but then one odd run makes the bracket: ten leave out one on either side, which makes
/// it about half as wide for about a third more runs.
const CAPACITY_REPLICATES: u32 = 10;

/// The same in virtual time.
const VIRTUAL_CAPACITY_REPLICATES: u32 = 40;

/// Which command's defaults apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defaulted {
    Compare,
    Capacity,
    Run,
}

impl Defaulted {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Capacity => "capacity",
            Self::Run => "run",
        }
    }

    fn schedulers(self) -> &'static [&'static str] {
        match self {
            Self::Compare | Self::Capacity => &["static", "orca", "vllm-v0", "sarathi"],
            Self::Run => &["sarathi"],
        }
    }

    /// How long a run should take, where so many policies are run.
    fn time_of_a_run(self, policies: u32) -> Duration {
        match self {
            Self::Compare => COMPARE_TIME / (2 * policies.max(1)),
            Self::Capacity | Self::Run => RUN_TIME,
        }
    }
}

/// An experiment with nothing left to derive.
pub(crate) struct Prepared {
    /// As run.
    pub(crate) experiment: Experiment,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) replicates: Replicates,
    pub(crate) scoring: Scoring,
    pub(crate) judging: Judging,
    pub(crate) load: LoadFacts,
}

/// The limits of an experiment whose longest sequence is `longest`; `free_bytes` says for a block size
/// what memory is free and what a block takes of it, once that is known.
pub(crate) fn limits(
    experiment: &Experiment,
    longest: u32,
    context: Option<u32>,
    free_bytes: impl FnOnce(u32) -> Option<(u64, u64)>,
) -> Result<Limits, Failure> {
    let block_size = experiment.engine.block_size.unwrap_or(16);
    let max_num_seqs = experiment.engine.max_num_seqs.unwrap_or(32);
    let whole_blocks = longest.div_ceil(block_size).saturating_mul(block_size);
    let max_model_len = experiment
        .engine
        .max_model_len
        .unwrap_or_else(|| context.map_or(whole_blocks, |context| whole_blocks.min(context)));
    if max_model_len > MOST_POSITIONS {
        let error = anyhow::anyhow!(
            "a request of {longest} tokens is longer than any sequence may be ({MOST_POSITIONS}); \
             shorten it, or give --max-model-len and --too-long drop or truncate"
        );
        return Err(Failure { kind: Kind::Usage, error });
    }
    let all_slots = max_num_seqs.saturating_mul(max_model_len.div_ceil(block_size));
    let num_blocks = experiment.engine.kv_blocks.unwrap_or_else(|| {
        let quarter = free_bytes(block_size).map_or(u64::MAX, |(free, block)| free / 4 / block);
        let most = all_slots.clamp(1, MOST_POSITIONS);
        u32::try_from(quarter).unwrap_or(u32::MAX).clamp(1, most)
    });
    Ok(Limits { block_size, num_blocks, max_num_seqs, max_model_len })
}

/// Measures what defaults are derived from.
pub(crate) fn quick_calibration(
    rig: &mut dyn Rig,
    draft: &WorkloadDraft,
    seed: u64,
    progress: &mut Progress,
) -> Result<Calibrated, Failure> {
    let sample = draw(&draft.sample(), &Vocabulary::default(), seed, 0)?;
    let prompts = || sample.requests.iter().map(|request| request.prompt_tokens);
    let (shortest, longest) = (prompts().min().unwrap_or(1), prompts().max().unwrap_or(1));
    let plan = CalibrationPlan::quick(shortest, longest, &rig.limits());
    progress.phase("calibrating");
    calibrate(rig, &plan, progress).map_err(crate::commands::lab_failure)
}

/// Draws a workload; the user's numbers are checked on the way.
pub(crate) fn draw(
    spec: &WorkloadSpec,
    vocabulary: &Vocabulary,
    seed: u64,
    replicate: u32,
) -> Result<Workload, Failure> {
    generate(spec, vocabulary, seed, replicate).map_err(workload_failure)
}

/// A number is the user's; what else is wrong is in a file.
pub(crate) fn workload_failure(error: WorkloadError) -> Failure {
    let kind = match error {
        WorkloadError::BadNumber { .. } => Kind::Usage,
        _ => Kind::Input,
    };
    Failure { kind, error: error.into() }
}

/// Derives whatever an experiment leaves open, from the calibration.
pub(crate) fn prepare(
    mut experiment: Experiment,
    mut draft: WorkloadDraft,
    defaulted: Defaulted,
    registry: &Registry,
    limits: Limits,
    calibrated: &Calibrated,
    cost_model: &dyn CostModel,
) -> Result<Prepared, Failure> {
    let seed = experiment.seed.unwrap_or_default();
    let lengths = draw(&draft.sample(), &Vocabulary::default(), seed, 0)?.lengths();
    let load = Load { cost_model, lengths: &lengths };
    let facts = derive_rate(&mut draft, &experiment.scoring, &load, limits.max_num_seqs);
    let scoring = derive_scoring(&mut experiment.scoring, calibrated, &load, facts.batch);
    let defaults = Defaults {
        limits,
        token_budget: token_budget(&scoring, calibrated, &load, facts.batch, limits),
    };
    let contestants = contestants(registry, &experiment.schedulers, &defaults)?;
    if draft.derive_count {
        let in_time = || {
            let policies = contestants.len() as u32;
            prompts_within(defaulted.time_of_a_run(policies), &load, facts.batch)
        };
        let is_virtual = experiment.simulate.is_some();
        draft.spec.num_prompts = if is_virtual { VIRTUAL_PROMPTS } else { in_time() };
    }
    let replicates = replicates(&mut experiment, defaulted);
    let judging = judging(experiment.baseline.clone(), replicates);
    experiment.seed = Some(seed);
    experiment.workload = Some(draft.spec);
    experiment.engine.fill_in(limits);
    fill_in_options(&mut experiment.schedulers, &contestants);
    Ok(Prepared { experiment, contestants, replicates, scoring, judging, load: facts })
}

/// Refuses schedulers that there are not or that stand twice, a baseline that is none of them, and a
/// comparison of one: before anything is loaded. Those that are not named are the command's own.
pub(crate) fn check_schedulers(
    experiment: &mut Experiment,
    defaulted: Defaulted,
    registry: &Registry,
) -> Result<(), Failure> {
    name_schedulers(&mut experiment.schedulers, defaulted);
    // Names and labels do not depend on what the options' defaults are derived from.
    let limits = Limits { block_size: 16, num_blocks: 1, max_num_seqs: 1, max_model_len: 16 };
    let defaults = Defaults { limits, token_budget: 1 };
    let contestants = contestants(registry, &experiment.schedulers, &defaults)?;
    let labels: Vec<&str> = contestants.iter().map(|own| own.info.label.as_str()).collect();
    check_baseline(experiment.baseline.as_deref(), &labels)?;
    if experiment.until.is_some() && contestants.len() < 2 {
        let error = anyhow::anyhow!("--until decided compares schedulers; name two or more");
        return Err(Failure { kind: Kind::Usage, error });
    }
    Ok(())
}

/// The command's own schedulers where none are named.
fn name_schedulers(schedulers: &mut Vec<PolicySpec>, defaulted: Defaulted) {
    if schedulers.is_empty() {
        let named = |name: &&str| PolicySpec {
            name: (*name).to_owned(),
            label: None,
            options: serde_json::Map::new(),
        };
        schedulers.extend(defaulted.schedulers().iter().map(named));
    }
}

/// Every option of every scheduler, as they run.
fn fill_in_options(schedulers: &mut [PolicySpec], contestants: &[Contestant]) {
    for (spec, contestant) in schedulers.iter_mut().zip(contestants) {
        if let serde_json::Value::Object(options) = &contestant.info.options {
            spec.label = Some(contestant.info.label.clone());
            spec.options.clone_from(options);
        }
    }
}

/// How often to repeat; the limit of `--until decided` is filled into the experiment.
fn replicates(experiment: &mut Experiment, defaulted: Defaulted) -> Replicates {
    let virtual_time = experiment.simulate.is_some();
    if experiment.until.is_some() {
        let most = if virtual_time { MOST_VIRTUAL_REPLICATES } else { MOST_REPLICATES };
        return Replicates::UntilDecided(*experiment.replicates.get_or_insert(most));
    }
    match (experiment.replicates, defaulted, virtual_time) {
        (Some(count), ..) => Replicates::Exactly(count),
        (None, Defaulted::Run, _) => Replicates::Exactly(1),
        (None, Defaulted::Capacity, true) => Replicates::Exactly(VIRTUAL_CAPACITY_REPLICATES),
        (None, Defaulted::Capacity, false) => Replicates::Exactly(CAPACITY_REPLICATES),
        (None, Defaulted::Compare, true) => Replicates::Exactly(VIRTUAL_REPLICATES),
        (None, Defaulted::Compare, false) => Replicates::Within(COMPARE_TIME),
    }
}

fn judging(baseline: Option<String>, replicates: Replicates) -> Judging {
    let judging = Judging { baseline, ..Judging::default() };
    match replicates {
        Replicates::UntilDecided(limit) => {
            Judging { level: Looks::up_to(limit).level(), ..judging }
        }
        Replicates::Exactly(_) | Replicates::Within(_) => judging,
    }
}

/// Refuses a baseline that is not compared.
pub(crate) fn check_baseline(baseline: Option<&str>, policies: &[&str]) -> Result<(), Failure> {
    match baseline.filter(|named| !policies.contains(named)) {
        Some(named) => {
            let error = anyhow::anyhow!(
                "the baseline `{named}` is not in the comparison; there are {}",
                policies.join(", ")
            );
            Err(Failure { kind: Kind::Usage, error })
        }
        None => Ok(()),
    }
}

fn contestants(
    registry: &Registry,
    specs: &[PolicySpec],
    defaults: &Defaults,
) -> Result<Vec<Contestant>, Failure> {
    let mut contestants: Vec<Contestant> = Vec::new();
    for spec in specs {
        // Built once to see that it can be, and what its options are; then afresh for each run.
        let (_, info) = registry.build(spec, defaults).or_fail(Kind::Usage)?;
        if contestants.iter().any(|other| other.info.label == info.label) {
            let error = anyhow::anyhow!(
                "scheduler `{}` stands twice in the comparison; give one of them other options, \
                 or a label of its own in an experiment file",
                info.label
            );
            return Err(Failure { kind: Kind::Usage, error });
        }
        let (registry, spec, defaults) = (registry.clone(), spec.clone(), *defaults);
        let make = move || {
            let (scheduler, _) =
                registry.build(&spec, &defaults).expect("it was built with the same options");
            scheduler
        };
        contestants.push(Contestant { info, make: Box::new(make) });
    }
    let labels = contestants.iter().map(|own| own.info.label.as_str());
    check_labels(labels).or_fail(Kind::Usage)?;
    Ok(contestants)
}

/// The requests of a replicate with their deadlines, for the engine.
pub(crate) fn submissions(workload: Workload, spec: &WorkloadSpec, scoring: &Scoring) -> Requests {
    let classes = class_names(spec);
    let Workload { requests, prompts, dropped, truncated } = workload;
    let submission = |(mut request, prompt): (Request, Vec<u32>)| {
        let class = classes.get(request.class as usize).map(String::as_str);
        request.deadlines = scoring.deadlines_of(class, request.prompt_tokens, None);
        Submission { request, prompt }
    };
    let submissions = requests.into_iter().zip(prompts).map(submission).collect();
    Requests { submissions, dropped, truncated }
}
