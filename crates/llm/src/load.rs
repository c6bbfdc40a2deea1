use std::path::Path;
use std::str::FromStr;

use candle_core::Device;
use metron_trace::ModelInfo;

use crate::allocator::return_memory;
use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::eos::eos_ids;
use crate::hub::{ConfigSource, ModelFiles, WeightFiles};
use crate::memory::{check_loads, free_memory};
use crate::model::Model;
use crate::threads;
use crate::weights::{
    DummyWeights, GgufWeights, LoadError, SafetensorsWeights, Weights, check_tensors, stored_dtype,
};

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA where this build has it and a device is there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, by its index.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = |text: &str| text.parse().ok().map(Self::Cuda);
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(index),
        }
        .ok_or_else(|| format!("`{text}` is no device; devices are auto, cpu, cuda and cuda:INDEX"))
    }
}

impl DeviceChoice {
    /// The device itself.
    pub(crate) fn open(self) -> Result<Device, LoadError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if !cfg!(feature = "cuda") => Ok(Device::Cpu),
            Self::Auto => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
            Self::Cuda(index) if cfg!(feature = "cuda") => {
                Device::new_cuda(index).map_err(|error| LoadError::Device {
                    device: format!("cuda:{index}"),
                    cause: error.to_string(),
                })
            }
            Self::Cuda(index) => Err(LoadError::Device {
                device: format!("cuda:{index}"),
                cause: "this build has no CUDA; build with `--features cuda`, or use --device cpu"
                    .to_owned(),
            }),
        }
    }

    /// Whether this build and machine would compute on CUDA.
    pub fn is_cuda(self) -> bool {
        self.open().is_ok_and(|device| device.is_cuda())
    }
}

/// How to load a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Number format of the weights; `None` for the default of docs/dtypes.md.
    pub dtype: Option<Dtype>,
    /// Seed of dummy weights.
    pub seed: u64,
    /// The longest sequence that will run, at most the model's own context; `None` for that.
    pub max_model_len: Option<u32>,
    /// Refuse kernels whose results depend on the batch.
    pub batch_invariant: bool,
    /// Threads that lay the weights out; `None` for the physical cores that the process may use.
    /// They are the process's shared pool, so the first load decides.
    pub threads: Option<usize>,
}

/// A model on its device, ready to run.
#[derive(Debug)]
pub struct LoadedModel {
    pub(crate) model: Model,
    pub(crate) device: Device,
    /// The number format it computes with.
    pub(crate) dtype: Dtype,
    /// Tokens that end a sequence.
    pub(crate) eos_ids: Vec<u32>,
    info: ModelInfo,
}

impl LoadedModel {
    /// Reads, checks and lays out a model's weights.
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self, LoadError> {
        return_memory();
        let device = options.device.open()?;
        if options.batch_invariant && !has_invariant_kernels(&device) {
            return Err(LoadError::NotBatchInvariant { device: "CUDA".to_owned() });
        }
        let Source { config, eos_ids, weights } = Source::open(files, options.seed)?;
        check_tensors(weights.as_ref(), &config, &files.source)?;
        let default = || Dtype::default_of(stored_dtype(weights.as_ref(), &config), &device);
        let dtype = options.dtype.unwrap_or_else(default);
        check_dtype(dtype, &config, &device)?;
        let context = config.max_position_embeddings;
        let positions = options.max_model_len.map_or(context, |len| len as usize);
        if positions > context {
            let (model, asked) = (files.id.clone(), positions as u32);
            return Err(LoadError::BeyondContext { model, asked, context });
        }
        if let Some(free) = free_memory(&device) {
            check_loads(&files.id, &config, dtype, &device, free)?;
        }
        threads::limit_shared_pool(options.threads);
        let model = Model::load(&config, weights.as_ref(), dtype, &device, positions)?;
        let info = ModelInfo {
            id: files.id.clone(),
            source: files.source.clone(),
            format: weights.format(),
            parameters: config.parameters(),
            sha256: files.sha256.clone(),
            dummy: files.weights == WeightFiles::Dummy,
        };
        Ok(Self { model, device, dtype, eos_ids, info })
    }

    /// What the trace's header says of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// Whether the bits of a request's logits are the same whatever runs beside it, however it is
    /// cut into chunks and blocks, and on any number of threads.
    pub fn is_batch_invariant(&self) -> bool {
        has_invariant_kernels(&self.device)
    }

    /// Bytes of the KV cache in one block of `block_size` positions, all layers together.
    pub fn kv_bytes_per_block(&self, block_size: u32) -> u64 {
        let config = self.config();
        let floats = 2 * config.num_hidden_layers * config.kv_heads() * config.head_width();
        (floats * self.activation_bytes()) as u64 * u64::from(block_size)
    }

    /// Bytes that are free on its device; `None` if that does not tell.
    pub fn free_memory(&self) -> Option<u64> {
        free_memory(&self.device)
    }

    /// Bytes of an activation, and of a number in the KV cache.
    pub(crate) fn activation_bytes(&self) -> usize {
        self.dtype.of_activations(&self.device).size_in_bytes()
    }
}

/// The CPU's kernels of this crate make every sum in one order; those of other devices choose
/// theirs by the shape of the batch.
fn has_invariant_kernels(device: &Device) -> bool {
    device.is_cpu()
}

/// Candle quantises whole blocks only; the CPU's kernels pad.
fn check_dtype(dtype: Dtype, config: &ModelConfig, device: &Device) -> Result<(), LoadError> {
    const BLOCK: usize = 32;
    let rows = [
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads * config.head_width(),
    ];
    if dtype == Dtype::Q8_0 && !device.is_cpu() && rows.iter().any(|k| !k.is_multiple_of(BLOCK)) {
        return Err(LoadError::Dtype {
            dtype: dtype.to_string(),
            device: "CUDA, where rows must be multiples of 32,".to_owned(),
            allowed: "f32, f16 and bf16",
        });
    }
    Ok(())
}

/// Reads a model's shape, without its weights.
pub fn read_config(files: &ModelFiles) -> Result<ModelConfig, LoadError> {
    match &files.config {
        ConfigSource::HfConfig(path) => from_json(path),
        ConfigSource::Gguf(path) => GgufWeights::open(path)?.config(),
        ConfigSource::Card(table) => {
            let config: ModelConfig =
                table.clone().try_into().map_err(|error: toml::de::Error| {
                    LoadError::Malformed {
                        path: files.id.clone().into(),
                        cause: format!("the card's shape: {}", error.message()),
                    }
                })?;
            check(config, &files.id)
        }
    }
}

fn from_json(path: &Path) -> Result<ModelConfig, LoadError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| LoadError::Io { path: path.to_owned(), cause })?;
    let config = serde_json::from_str(&text).map_err(|error| LoadError::Malformed {
        path: path.to_owned(),
        cause: format!("not a model's config: {error}"),
    })?;
    check(config, &path.display().to_string())
}

fn check(config: ModelConfig, source_name: &str) -> Result<ModelConfig, LoadError> {
    let fail = |cause| LoadError::Config { source_name: source_name.to_owned(), cause };
    config.check().map_err(fail)?;
    Ok(config)
}

/// What a model is loaded from.
struct Source {
    config: ModelConfig,
    eos_ids: Vec<u32>,
    weights: Box<dyn Weights>,
}

impl Source {
    fn open(files: &ModelFiles, seed: u64) -> Result<Self, LoadError> {
        match &files.weights {
            WeightFiles::Gguf(path) => {
                let weights = GgufWeights::open(path)?;
                let eos_ids = weights.eos_ids().into_iter().collect();
                Ok(Self { config: weights.config()?, eos_ids, weights: Box::new(weights) })
            }
            WeightFiles::Safetensors(paths) => {
                let (config, eos_ids) = (read_config(files)?, eos_ids(files)?);
                let refused = |cause| LoadError::Config { source_name: files.id.clone(), cause };
                config.check_weights().map_err(refused)?;
                Ok(Self { config, eos_ids, weights: Box::new(SafetensorsWeights::open(paths)?) })
            }
            WeightFiles::Dummy => {
                let (config, eos_ids) = (read_config(files)?, eos_ids(files)?);
                let weights = Box::new(DummyWeights::new(&config, seed));
                Ok(Self { config, eos_ids, weights })
            }
        }
    }
}
