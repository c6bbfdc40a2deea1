use std::path::Path;
use std::str::FromStr;

use candle_core::{DType, Device};
use metron_trace::ModelInfo;

use crate::config::ModelConfig;
use crate::hub::{ConfigSource, ModelFiles, WeightFiles};
use crate::linear::Layouts;
use crate::model::Model;
use crate::plan::ForwardPlan;
use crate::weights::{
    DummyWeights, GgufWeights, LoadError, SafetensorsWeights, Weights, check_complete,
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

/// Number format to compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    Bf16,
    /// 8-bit weights in blocks of 32 with a scale each; activations in f32.
    Q8_0,
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" | "float32" => Ok(Self::F32),
            "f16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "q8_0" => Ok(Self::Q8_0),
            _ => Err(format!("`{text}` is no dtype; dtypes are f32, f16, bf16 and q8_0")),
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        })
    }
}

impl Dtype {
    /// The rule of docs/dtypes.md: f32 on the CPU, bf16 on CUDA, whatever the file has.
    fn default_on(device: &Device) -> Self {
        if device.is_cpu() { Self::F32 } else { Self::Bf16 }
    }

    fn layout(self, device: &Device) -> Result<Layouts, LoadError> {
        match (self, device.is_cpu()) {
            (Self::F32, true) => Ok(Layouts::Packed),
            (Self::Q8_0, _) => Ok(Layouts::Q8),
            (Self::F16 | Self::Bf16, true) => Err(LoadError::Dtype {
                dtype: self.to_string(),
                device: "the CPU".to_owned(),
                allowed: "f32 and q8_0",
            }),
            (Self::F32, false) => Ok(Layouts::Dense(DType::F32)),
            (Self::F16, false) => Ok(Layouts::Dense(DType::F16)),
            (Self::Bf16, false) => Ok(Layouts::Dense(DType::BF16)),
        }
    }
}

/// How to load a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceChoice,
    /// Number format; `None` for the device's default.
    pub dtype: Option<Dtype>,
    /// Seed of dummy weights.
    pub seed: u64,
    /// The longest sequence that will run; `None` for the model's own context.
    pub max_model_len: Option<u32>,
}

/// A model on its device, ready to run.
#[derive(Debug)]
pub struct LoadedModel {
    pub(crate) model: Model,
    pub(crate) device: Device,
    /// The number format it computes with.
    pub(crate) dtype: Dtype,
    info: ModelInfo,
}

impl LoadedModel {
    /// Reads, checks and lays out a model's weights.
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self, LoadError> {
        let device = options.device.open()?;
        let dtype = options.dtype.unwrap_or_else(|| Dtype::default_on(&device));
        let layout = dtype.layout(&device)?;
        let (config, weights) = open(files, options.seed)?;
        check_complete(weights.as_ref(), &config, &files.source)?;
        let positions =
            options.max_model_len.map_or(config.max_position_embeddings, |len| len as usize);
        let model = Model::load(&config, weights.as_ref(), layout, &device, positions)?;
        let info = ModelInfo {
            id: files.id.clone(),
            source: files.source.clone(),
            format: weights.format(),
            parameters: config.parameters(),
            sha256: files.sha256.clone(),
            dummy: files.weights == WeightFiles::Dummy,
        };
        Ok(Self { model, device, dtype, info })
    }

    /// What the trace's header says of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its shape.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// The logits of the token after `token_ids`, `[vocabulary]`, by one forward pass of their own:
    /// what a comparison with another implementation needs.
    pub fn logits_after(&self, token_ids: &[u32]) -> candle_core::Result<Vec<f32>> {
        const BLOCK: usize = 16;
        let blocks = token_ids.len().div_ceil(BLOCK);
        let mut plan = ForwardPlan::default();
        plan.push(token_ids, 0, 0..blocks as u32, true);
        let mut cache = self.model.new_cache(blocks, BLOCK)?;
        let logits = self.model.forward(&plan, &mut cache)?;
        logits.map_or(Ok(Vec::new()), |logits| logits.squeeze(0)?.to_vec1())
    }

    /// Bytes of the KV cache in one block of `block_size` positions, all layers together.
    pub fn kv_bytes_per_block(&self, block_size: u32) -> u64 {
        let config = self.config();
        let floats = 2 * config.num_hidden_layers * config.kv_heads() * config.head_width();
        let bytes = if self.device.is_cpu() || self.dtype == Dtype::F32 { 4 } else { 2 };
        floats as u64 * u64::from(block_size) * bytes
    }
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

fn open(files: &ModelFiles, seed: u64) -> Result<(ModelConfig, Box<dyn Weights>), LoadError> {
    match &files.weights {
        WeightFiles::Gguf(path) => {
            let weights = GgufWeights::open(path)?;
            Ok((weights.config()?, Box::new(weights)))
        }
        WeightFiles::Safetensors(paths) => {
            Ok((read_config(files)?, Box::new(SafetensorsWeights::open(paths)?)))
        }
        WeightFiles::Dummy => {
            let config = read_config(files)?;
            let weights = DummyWeights::new(&config, seed);
            Ok((config, Box::new(weights)))
        }
    }
}
