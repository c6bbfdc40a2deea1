use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metron_llm::hub::{HubError, ModelName};
use metron_metrics::{
    ClassDeadlines, CountingRule, DeadlineRule, FirstTokenRule, FluidityRule, Objectives,
    RateTarget, RequestLimit, RequestLimits,
};
use metron_schedulers::PolicySpec;
use metron_trace::Limits;
use metron_workload::{Arrivals, Lengths, Prompts, TooLong, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::args::{
    EngineArgs, ExperimentArgs, LoadFormatArg, MaxSlack, ModelArgs, RuleArg, ScoringArgs,
    TooLongArg, Until,
};
use crate::calibrations::LAST;
use crate::exit::{Failure, Kind, OrFail};

/// An experiment, as its file has it. What is absent is derived; as run, nothing is absent. Paths in
/// a file start at its directory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Experiment {
    /// Seed of everything random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Repetitions with other seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicates: Option<u32>,
    /// Add replicates until this, and at most `replicates`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Until>,
    /// Of a search for the capacity: how probably a run keeps its objectives at that rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probability: Option<f64>,
    /// The scheduler that the others are compared with; the first where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) baseline: Option<String>,
    /// What to do with requests longer than a sequence may be.
    pub(crate) too_long: TooLong,
    /// Run in virtual time, with the costs of this file, or with the `last` calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) simulate: Option<PathBuf>,
    pub(crate) model: ModelSection,
    pub(crate) engine: EngineSection,
    pub(crate) scoring: ScoringSection,
    /// Requests of a run and their arrivals and lengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workload: Option<WorkloadSpec>,
    /// The schedulers, in the order of the tables.
    #[serde(rename = "scheduler", skip_serializing_if = "Vec::is_empty")]
    pub(crate) schedulers: Vec<PolicySpec>,
}

/// The model, and what computes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelSection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<usize>,
    /// Refuse a device on which results depend on the batch.
    pub(crate) batch_invariant: bool,
    pub(crate) dummy_weights: bool,
}

/// The engine's limits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EngineSection {
    /// Time every operator of every step.
    pub(crate) trace_operators: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kv_blocks: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_num_seqs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_model_len: Option<u32>,
}

/// Deadlines, and how they are scored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScoringSection {
    /// Deadline of the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_token: Option<FirstTokenRule>,
    /// Deadline of each later token.
    #[serde(with = "metron_metrics::optional_deadline", skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<Duration>,
    /// A TBT above this is a stall.
    #[serde(with = "metron_metrics::optional_span", skip_serializing_if = "Option::is_none")]
    pub(crate) stall_limit: Option<Duration>,
    pub(crate) rule: CountingRule,
    pub(crate) without_first_token: bool,
    /// The fluidity-index from which a request counts as fluid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fluid_index: Option<f64>,
    /// The share of requests that have to be fluid at the fluid token generation rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fluid_share: Option<f64>,
    #[serde(with = "metron_metrics::optional_span", skip_serializing_if = "Option::is_none")]
    pub(crate) max_slack: Option<Duration>,
    /// Limits of goodput, as `ttft:200`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goodput: Option<RequestLimits>,
    /// What a run is judged by, as `ttft <= 200 ms for 95%`.
    #[serde(skip_serializing_if = "Objectives::is_empty")]
    pub(crate) objectives: Objectives,
    /// Deadlines of classes of the workload that have their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) classes: BTreeMap<String, ClassDeadlines>,
}

impl Experiment {
    /// The experiment of a command line: its file, if it names one, with its options before it.
    pub(crate) fn from_args(args: &ExperimentArgs) -> Result<Self, Failure> {
        let mut experiment = match &args.experiment {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        experiment.seed = args.seed.or(experiment.seed);
        experiment.replicates = args.replicates.or(experiment.replicates);
        experiment.until = args.until.or(experiment.until);
        experiment.baseline = args.baseline.clone().or(experiment.baseline);
        if experiment.replicates == Some(0) {
            let error = anyhow::anyhow!("replicates is 0; it must be at least 1");
            return Err(Failure { kind: Kind::Usage, error });
        }
        if let Some(cost_file) = &args.simulate {
            let is_last = cost_file == Path::new(LAST);
            let cost_file = if is_last { cost_file.clone() } else { absolute(cost_file) };
            experiment.simulate = Some(cost_file);
        }
        experiment.model.overlay(&args.model);
        experiment.engine.overlay(&args.engine)?;
        experiment.engine.trace_operators |= args.trace_operators;
        experiment.scoring.overlay(&args.scoring)?;
        if !args.schedulers.is_empty() {
            let specs = args.schedulers.iter().map(|text| text.parse());
            experiment.schedulers = specs.collect::<Result<_, _>>().or_fail(Kind::Usage)?;
        }
        if let Some(too_long) = args.workload.too_long {
            experiment.too_long = match too_long {
                TooLongArg::Error => TooLong::Error,
                TooLongArg::Drop => TooLong::Drop,
                TooLongArg::Truncate => TooLong::Truncate,
            };
        }
        Ok(experiment)
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
            .or_fail(Kind::Input)?;
        let mut experiment: Self = toml::from_str(&text)
            .map_err(|error| {
                let line = error.span().map_or(1, |span| line_of(&text, span.start));
                let hint = did_you_mean(error.message());
                anyhow::anyhow!("{}:{line}: {}{hint}", path.display(), error.message())
            })
            .or_fail(Kind::Input)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for own in experiment.paths_mut() {
            *own = absolute(&folder.join(&own));
        }
        experiment.model.id = experiment.model.id.map(|id| model_from(folder, id));
        let RateTarget { index, share } = experiment.scoring.rate_target();
        for (key, value) in [("fluid_index", index), ("fluid_share", share)] {
            if !(value > 0.0 && value <= 1.0) {
                let path = path.display();
                let error = anyhow::anyhow!(
                    "{path}: scoring.{key} is {value}; it must be above 0 and at most 1"
                );
                return Err(Failure { kind: Kind::Input, error });
            }
        }
        Ok(experiment)
    }

    /// The files that it names.
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let simulate = self.simulate.as_mut().filter(|path| *path != Path::new(LAST));
        let of_workload = self.workload.as_mut().map(|spec| {
            let lengths = spec.classes.iter_mut().filter_map(|class| match &mut class.lengths {
                Lengths::Recorded { path } => Some(path),
                _ => None,
            });
            let arrivals = match &mut spec.arrivals {
                Arrivals::Recorded { path, .. } => Some(path),
                _ => None,
            };
            let prompts = match &mut spec.prompts {
                Prompts::Text { path } => Some(path),
                Prompts::Random => None,
            };
            lengths.chain(arrivals).chain(prompts)
        });
        simulate.into_iter().chain(of_workload.into_iter().flatten())
    }
}

/// A model as a file in `folder` names it: a card, what is there, or a model of the hub.
fn model_from(folder: &Path, id: String) -> String {
    let path = absolute(&folder.join(&id));
    match id.parse::<ModelName>() {
        Ok(ModelName::Card(_)) => id,
        Ok(ModelName::Hub(_)) | Err(HubError::UnknownModel { .. }) if !path.exists() => id,
        _ => path.display().to_string(),
    }
}

/// The same path from any directory.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The known key that is nearest to an unknown one, from serde's message, which lists them.
fn did_you_mean(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown field"));
    unknown
        .and_then(|unknown| {
            quoted
                .map(|known| (strsim::jaro_winkler(unknown, known), known))
                .filter(|(likeness, _)| *likeness > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0))
        })
        .map_or_else(String::new, |(_, known)| format!(" (did you mean `{known}`?)"))
}

impl ModelSection {
    pub(crate) fn overlay(&mut self, args: &ModelArgs) {
        let ModelArgs { model, device, dtype, threads, batch_invariant, load_format } = args;
        self.id = model.clone().or(self.id.take());
        self.device = device.clone().or(self.device.take());
        self.dtype = dtype.clone().or(self.dtype.take());
        self.threads = threads.or(self.threads);
        self.batch_invariant |= batch_invariant;
        if let Some(format) = load_format {
            self.dummy_weights = *format == LoadFormatArg::Dummy;
        }
    }

    /// The options that say other than the defaults.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let options = [
            ("--model", self.id.is_some()),
            ("--device", self.device.is_some()),
            ("--dtype", self.dtype.is_some()),
            ("--threads", self.threads.is_some()),
            ("--batch-invariant", self.batch_invariant),
            ("--load-format dummy", self.dummy_weights),
        ];
        options.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect()
    }
}

/// The most blocks, positions of a block, and positions of a sequence.
pub(crate) const MOST_POSITIONS: u32 = 1 << 24;

/// The most sequences at a time.
const MOST_SEQUENCES: u32 = 1 << 16;

impl EngineSection {
    pub(crate) fn overlay(&mut self, args: &EngineArgs) -> Result<(), Failure> {
        let EngineArgs { kv_blocks, block_size, max_num_seqs, max_model_len } = *args;
        self.kv_blocks = kv_blocks.or(self.kv_blocks);
        self.block_size = block_size.or(self.block_size);
        self.max_num_seqs = max_num_seqs.or(self.max_num_seqs);
        self.max_model_len = max_model_len.or(self.max_model_len);
        let all = [
            ("kv_blocks", self.kv_blocks, MOST_POSITIONS),
            ("block_size", self.block_size, MOST_POSITIONS),
            ("max_num_seqs", self.max_num_seqs, MOST_SEQUENCES),
            ("max_model_len", self.max_model_len, MOST_POSITIONS),
        ];
        for (name, value, most) in all {
            if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
                let error = anyhow::anyhow!("{name} is {value}; it must be from 1 to {most}");
                return Err(Failure { kind: Kind::Usage, error });
            }
        }
        Ok(())
    }

    /// The limits as they are.
    pub(crate) fn fill_in(&mut self, limits: Limits) {
        let Limits { block_size, num_blocks, max_num_seqs, max_model_len } = limits;
        self.block_size = Some(block_size);
        self.kv_blocks = Some(num_blocks);
        self.max_num_seqs = Some(max_num_seqs);
        self.max_model_len = Some(max_model_len);
    }
}

impl ScoringSection {
    pub(crate) fn overlay(&mut self, args: &ScoringArgs) -> Result<(), Failure> {
        if let Some(text) = &args.ttft_deadline {
            self.first_token = Some(text.parse().or_fail(Kind::Usage)?);
        }
        if let Some(text) = &args.tbt_deadline {
            self.next_token = Some(DeadlineRule::parse_next_token(text).or_fail(Kind::Usage)?);
        }
        self.stall_limit = args.stall_limit.or(self.stall_limit);
        self.max_slack = args.max_slack.map_or(self.max_slack, |MaxSlack(most)| most);
        self.without_first_token = args.without_first_token.unwrap_or(self.without_first_token);
        self.fluid_index = args.fluid_index.or(self.fluid_index);
        self.fluid_share = args.fluid_share.or(self.fluid_share);
        if let Some(rule) = args.rule {
            self.rule = match rule {
                RuleArg::Exact => CountingRule::Exact,
                RuleArg::Paper => CountingRule::Paper,
                RuleArg::Etalon => CountingRule::Etalon,
                RuleArg::PerToken => CountingRule::PerToken,
            };
        }
        if !args.goodput.is_empty() {
            let words = args.goodput.iter().flat_map(|text| text.split_whitespace());
            let limits: Result<Vec<RequestLimit>, _> = words.map(str::parse).collect();
            self.goodput = Some(RequestLimits(limits.or_fail(Kind::Usage)?));
        }
        if !args.objectives.is_empty() {
            let objectives = args.objectives.iter().map(|text| text.parse());
            let objectives = objectives.collect::<Result<Vec<_>, _>>().or_fail(Kind::Usage)?;
            self.objectives = Objectives::new(objectives).or_fail(Kind::Usage)?;
        }
        Ok(())
    }

    pub(crate) fn rate_target(&self) -> RateTarget {
        let RateTarget { index, share } = RateTarget::default();
        RateTarget {
            index: self.fluid_index.unwrap_or(index),
            share: self.fluid_share.unwrap_or(share),
        }
    }

    /// Refuses objectives and deadlines of classes that the workload does not have.
    pub(crate) fn check_classes(&self, classes: &[String]) -> Result<(), Failure> {
        self.objectives.check_classes(classes).or_fail(Kind::Usage)?;
        match self.classes.keys().find(|name| !classes.contains(name)) {
            Some(name) => {
                let error = anyhow::anyhow!(
                    "[scoring.classes] has deadlines for `{name}`, and the workload's classes are \
                     {}",
                    classes.join(", ")
                );
                Err(Failure { kind: Kind::Usage, error })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn fluidity_rule(&self) -> FluidityRule {
        FluidityRule {
            counting: self.rule,
            with_first_token: !self.without_first_token,
            max_slack: self.max_slack,
        }
    }
}
