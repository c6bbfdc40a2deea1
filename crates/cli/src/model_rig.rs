use std::sync::Arc;

use metron_engine::{Executor, ExecutorError};
use metron_lab::Rig;
use metron_llm::hub::{
    self, HubEnvironment, HubError, LoadFormat, ModelFiles, ModelName, ResolveOptions,
};
use metron_llm::{
    CandleExecutor, DeviceChoice, Dtype, KvPool, LoadOptions, LoadedModel, ModelConfig,
    TextStreams, Tokenizer, eos_ids, read_config,
};
use metron_trace::{ExecutorInfo, Limits, ModelInfo};

use crate::download::DownloadBar;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::{Experiment, ModelSection};
use crate::prepare::limits;
use crate::print;

/// A model's files with its tokenizer, before its weights are loaded.
pub(crate) struct ModelOnDisk {
    pub(crate) files: ModelFiles,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    eos_ids: Vec<u32>,
    device: DeviceChoice,
    dtype: Option<Dtype>,
    threads: Option<usize>,
    batch_invariant: bool,
}

impl ModelOnDisk {
    /// Finds a model, downloading it if it is not on disk.
    pub(crate) fn find(section: &ModelSection, quiet: bool) -> Result<Self, Failure> {
        let usage = |error: String| Failure { kind: Kind::Usage, error: anyhow::anyhow!(error) };
        let device: DeviceChoice =
            section.device.as_deref().unwrap_or("auto").parse().map_err(usage)?;
        let dtype = section.dtype.as_deref().map(str::parse).transpose().map_err(usage)?;
        if section.threads == Some(0) {
            return Err(usage("--threads is 0; it must be at least 1".to_owned()));
        }
        let kind = if device.is_cuda() { hub::DeviceKind::Cuda } else { hub::DeviceKind::Cpu };
        let name = match &section.id {
            Some(id) => id.parse::<ModelName>().or_fail(Kind::Usage)?,
            None => ModelName::Card(
                hub::default_card(kind)
                    .ok_or_else(|| usage("no card is the default; give --model".to_owned()))?,
            ),
        };
        let options = ResolveOptions {
            load_format: if section.dummy_weights { LoadFormat::Dummy } else { LoadFormat::Auto },
            environment: HubEnvironment::from_env(),
        };
        let mut bar = DownloadBar::new(quiet);
        let files = hub::resolve(&name, &options, &mut bar).map_err(|error| {
            let kind = match error {
                HubError::UnknownModel { .. } => Kind::Usage,
                HubError::WrongHash { .. } | HubError::NoSource { .. } | HubError::Io { .. } => {
                    Kind::Environment
                }
                _ => Kind::Input,
            };
            Failure { kind, error: error.into() }
        })?;
        bar.finish();
        let config = read_config(&files).or_fail(Kind::Input)?;
        let tokenizer = Tokenizer::open(&files).or_fail(Kind::Input)?.map(Arc::new);
        let eos_ids = eos_ids(&files).or_fail(Kind::Input)?;
        let (threads, batch_invariant) = (section.threads, section.batch_invariant);
        warn_of_threads(threads, quiet);
        Ok(Self { files, config, tokenizer, eos_ids, device, dtype, threads, batch_invariant })
    }

    /// Token ids that prompts may be made of.
    pub(crate) fn ordinary_token_ids(&self) -> Vec<u32> {
        let in_vocabulary = |id: &u32| (*id as usize) < self.config.vocab_size;
        if let Some(tokenizer) = &self.tokenizer {
            return tokenizer.ordinary_token_ids().into_iter().filter(in_vocabulary).collect();
        }
        (0..self.config.vocab_size as u32).filter(|id| !self.eos_ids.contains(id)).collect()
    }

    /// Loads the weights, for sequences of at most `max_model_len`.
    pub(crate) fn load(&self, max_model_len: u32, seed: u64) -> Result<LoadedModel, Failure> {
        let options = LoadOptions {
            device: self.device,
            dtype: self.dtype,
            seed,
            max_model_len: Some(max_model_len),
            batch_invariant: self.batch_invariant,
            threads: self.threads,
        };
        LoadedModel::load(&self.files, &options).map_err(|error| {
            let kind = match error {
                metron_llm::LoadError::Dtype { .. }
                | metron_llm::LoadError::BeyondContext { .. }
                | metron_llm::LoadError::NotBatchInvariant { .. } => Kind::Usage,
                metron_llm::LoadError::Device { .. }
                | metron_llm::LoadError::TooLarge { .. }
                | metron_llm::LoadError::KvPool { .. } => Kind::Environment,
                _ => Kind::Input,
            };
            Failure { kind, error: error.into() }
        })
    }

    /// The most positions of a sequence.
    pub(crate) fn context(&self) -> u32 {
        u32::try_from(self.config.max_position_embeddings).unwrap_or(u32::MAX)
    }

    /// Loads the weights for an experiment whose longest sequence is `longest`, with a KV pool in what
    /// they leave of the memory.
    pub(crate) fn rig_for(
        &self,
        experiment: &Experiment,
        longest: u32,
    ) -> Result<ModelRig, Failure> {
        let context = Some(self.context());
        let asked = limits(experiment, longest, context, |_| None)?;
        let loaded = self.load(asked.max_model_len, experiment.seed.unwrap_or_default())?;
        let limits = limits(experiment, longest, context, |block_size| {
            Some((loaded.free_memory()?, loaded.kv_bytes_per_block(block_size)))
        })?;
        self.rig(loaded, limits)
    }

    /// An executor of the loaded model with a KV pool.
    pub(crate) fn rig(&self, model: LoadedModel, limits: Limits) -> Result<ModelRig, Failure> {
        let info = model.info().clone();
        let pool = KvPool { block_size: limits.block_size, num_blocks: limits.num_blocks };
        let text = TextStreams::of(self.tokenizer.clone());
        let executor = CandleExecutor::new(Arc::new(model), pool, self.threads, text)
            .or_fail(Kind::Environment)?;
        Ok(ModelRig { executor, limits, info, ordinary: self.ordinary_token_ids() })
    }
}

/// Threads that share cores wait for each other at the end of every operator.
fn warn_of_threads(threads: Option<usize>, quiet: bool) {
    let cores = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    if let Some(threads) = threads.filter(|threads| *threads > cores && !quiet) {
        print::note(&format!(
            "warning: {threads} threads on {cores} cores: they wait for each other, and steps take \
             longer"
        ));
    }
}

/// The system under test: a model on this machine.
pub(crate) struct ModelRig {
    pub(crate) executor: CandleExecutor,
    limits: Limits,
    info: ModelInfo,
    ordinary: Vec<u32>,
}

impl ModelRig {
    pub(crate) fn model_info(&self) -> ModelInfo {
        self.info.clone()
    }

    pub(crate) fn executor_info(&self) -> ExecutorInfo {
        self.executor.info()
    }
}

impl Rig for ModelRig {
    fn start(&mut self) -> Result<&mut dyn Executor, ExecutorError> {
        self.executor.restart();
        Ok(&mut self.executor)
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn ordinary_token_ids(&self) -> &[u32] {
        &self.ordinary
    }
}
