use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metron_metrics::{
    ClassDeadlines, CountingRule, DeadlineRule, FirstTokenRule, FluidityRule, Objectives,
    RateTarget, RequestLimit, RequestLimits,
};
use metron_schedulers::PolicySpec;
use metron_workload::{Arrivals, Class, Lengths, Prompts, TooLong, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::args::{
    ArrivalsArg, EngineArgs, ExperimentArgs, LoadFormatArg, MaxSlack, ModelArgs, RuleArg,
    ScoringArgs, TooLongArg, Until, WorkloadArgs,
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
            experiment.simulate = Some(match cost_file == Path::new(LAST) {
                true => cost_file.clone(),
                false => absolute(cost_file),
            });
        }
        experiment.model.overlay(&args.model);
        experiment.engine.overlay(&args.engine)?;
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
}

impl EngineSection {
    pub(crate) fn overlay(&mut self, args: &EngineArgs) -> Result<(), Failure> {
        let EngineArgs { kv_blocks, block_size, max_num_seqs, trace_operators, max_model_len } =
            *args;
        self.trace_operators |= trace_operators;
        self.kv_blocks = kv_blocks.or(self.kv_blocks);
        self.block_size = block_size.or(self.block_size);
        self.max_num_seqs = max_num_seqs.or(self.max_num_seqs);
        self.max_model_len = max_model_len.or(self.max_model_len);
        let all = [
            ("kv_blocks", self.kv_blocks),
            ("block_size", self.block_size),
            ("max_num_seqs", self.max_num_seqs),
            ("max_model_len", self.max_model_len),
        ];
        for (name, value) in all {
            if let Some(value) = value.filter(|value| !(1..=1 << 24).contains(value)) {
                let error = anyhow::anyhow!("{name} is {value}; it must be from 1 to 16777216");
                return Err(Failure { kind: Kind::Usage, error });
            }
        }
        Ok(())
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

/// A workload with what is still to be derived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkloadDraft {
    pub(crate) spec: WorkloadSpec,
    /// Whether the rate is a placeholder.
    pub(crate) derive_rate: bool,
    /// Whether the number of requests is a placeholder.
    pub(crate) derive_count: bool,
}

/// Requests to draw lengths from while the number is not known.
const SAMPLE: u32 = 256;

impl WorkloadDraft {
    /// The workload of an experiment's file, with the command line's options before it.
    pub(crate) fn new(spec: Option<&WorkloadSpec>, args: &WorkloadArgs) -> Result<Self, Failure> {
        let is_given = spec.is_some();
        let mut draft = Self {
            spec: spec.cloned().unwrap_or_else(default_workload),
            derive_rate: !is_given,
            derive_count: !is_given,
        };
        draft.overlay_lengths(args)?;
        draft.overlay_arrivals(args)?;
        let WorkloadArgs { num_prompts, max_concurrency, prompt_text, .. } = args;
        if let Some(count) = num_prompts {
            draft.spec.num_prompts = *count;
            draft.derive_count = false;
        }
        draft.spec.max_concurrency = max_concurrency.or(draft.spec.max_concurrency);
        if let Some(path) = prompt_text {
            draft.spec.prompts = Prompts::Text { path: absolute(path) };
        }
        draft.spec.stop_at_eos |= args.stop_at_eos;
        draft.spec.temperature = args.temperature.unwrap_or(draft.spec.temperature);
        Ok(draft)
    }

    fn overlay_lengths(&mut self, args: &WorkloadArgs) -> Result<(), Failure> {
        if let Some(path) = &args.dataset_path {
            let path = absolute(path);
            let rows = metron_workload::read_recorded(&path).or_fail(Kind::Input)?;
            self.spec.classes = vec![one_class(Lengths::Recorded { path: path.clone() })];
            if rows[0].arrived_at.is_some() && args.request_rate.is_none() {
                self.spec.arrivals = Arrivals::Recorded { path, speed: 1.0 };
                self.spec.num_prompts = rows.len() as u32;
                self.derive_rate = false;
                self.derive_count = false;
            }
        } else if args.input_len.is_some() || args.output_len.is_some() {
            let ratio = args.random_range_ratio.unwrap_or(0.0);
            if !(0.0..1.0).contains(&ratio) {
                let error = anyhow::anyhow!(
                    "--random-range-ratio is {ratio}; it must be from 0 to below 1"
                );
                return Err(Failure { kind: Kind::Usage, error });
            }
            self.spec.classes = vec![one_class(Lengths::Uniform {
                prompt_tokens: around(args.input_len.unwrap_or(512), ratio),
                output_tokens: around(args.output_len.unwrap_or(64), ratio),
            })];
        }
        Ok(())
    }

    fn overlay_arrivals(&mut self, args: &WorkloadArgs) -> Result<(), Failure> {
        if args.request_rate == Some(f64::INFINITY) || args.arrivals == Some(ArrivalsArg::AllAtOnce)
        {
            self.spec.arrivals = Arrivals::AllAtOnce;
            self.derive_rate = false;
            return Ok(());
        }
        let usage = |error| Failure { kind: Kind::Usage, error };
        let given = match self.spec.arrivals {
            Arrivals::Gamma { request_rate, .. } | Arrivals::Constant { request_rate } => {
                request_rate
            }
            _ => 1.0,
        };
        if args.request_rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
            let rate = args.request_rate.unwrap_or_default();
            let error = anyhow::anyhow!("--request-rate is {rate}; it must be above 0, or inf");
            return Err(usage(error));
        }
        let request_rate = args.request_rate.unwrap_or(given);
        self.derive_rate &= args.request_rate.is_none();
        let burstiness = args.burstiness.unwrap_or(1.0);
        match args.arrivals {
            Some(ArrivalsArg::Constant) => {
                self.spec.arrivals = Arrivals::Constant { request_rate };
            }
            Some(ArrivalsArg::Trace)
                if !matches!(self.spec.arrivals, Arrivals::Recorded { .. }) =>
            {
                let error = anyhow::anyhow!(
                    "--arrivals trace needs --dataset-path FILE with arrival times, and no \
                     --request-rate"
                );
                return Err(usage(error));
            }
            Some(ArrivalsArg::Poisson | ArrivalsArg::Gamma) => {
                self.spec.arrivals = Arrivals::Gamma { request_rate, burstiness };
            }
            _ if args.request_rate.is_some() || args.burstiness.is_some() => {
                self.spec.arrivals = Arrivals::Gamma { request_rate, burstiness };
            }
            _ => {}
        }
        Ok(())
    }

    /// A spec to draw lengths from, with a number of requests in any case.
    pub(crate) fn sample(&self) -> WorkloadSpec {
        let arrivals = match &self.spec.arrivals {
            Arrivals::Recorded { .. } => self.spec.arrivals.clone(),
            _ => Arrivals::AllAtOnce,
        };
        let num_prompts = if self.derive_count { SAMPLE } else { self.spec.num_prompts };
        WorkloadSpec { arrivals, num_prompts, ..self.spec.clone() }
    }

    /// The rate of the arrivals, where they have one.
    pub(crate) fn rate(&self) -> Option<f64> {
        match self.spec.arrivals {
            Arrivals::Gamma { request_rate, .. } | Arrivals::Constant { request_rate } => {
                Some(request_rate)
            }
            Arrivals::AllAtOnce | Arrivals::Recorded { .. } => None,
        }
    }
}

/// Sets the rate of arrivals that have one.
pub(crate) fn set_rate(spec: &mut WorkloadSpec, rate: f64) {
    if let Arrivals::Gamma { request_rate, .. } | Arrivals::Constant { request_rate } =
        &mut spec.arrivals
    {
        *request_rate = rate;
    }
}

/// The names of a workload's classes.
pub(crate) fn class_names(spec: &WorkloadSpec) -> Vec<String> {
    spec.classes.iter().map(|class| class.name.clone()).collect()
}

fn one_class(lengths: Lengths) -> Class {
    Class { name: String::new(), weight: 1.0, priority: 0, lengths }
}

fn around(length: u32, ratio: f64) -> [u32; 2] {
    let at = |factor: f64| {
        #[expect(clippy::cast_sign_loss, reason = "a length times a factor that is not negative")]
        let tokens = (f64::from(length) * factor).round() as u32;
        tokens.max(length.min(1)) // a length of 0 stays one, to be refused
    };
    [at(1.0 - ratio), at(1.0 + ratio)]
}

/// Long prompts among short ones, so that generation stalls can be seen.
fn default_workload() -> WorkloadSpec {
    let lengths = |prompt_median, prompt_range, output_range| Lengths::Lognormal {
        prompt_median,
        prompt_sigma: 0.6,
        prompt_range,
        output_median: 32.0,
        output_sigma: 0.4,
        output_range,
    };
    let class =
        |name: &str, weight, lengths| Class { name: name.to_owned(), weight, priority: 0, lengths };
    WorkloadSpec {
        num_prompts: SAMPLE,
        arrivals: Arrivals::Gamma { request_rate: 1.0, burstiness: 1.0 },
        max_concurrency: None,
        classes: vec![
            class("chat", 0.85, lengths(64.0, [16, 256], [8, 64])),
            class("document", 0.15, lengths(1024.0, [768, 1280], [8, 64])),
        ],
        prompts: Prompts::Random,
        temperature: 0.0,
        stop_at_eos: false,
    }
}
