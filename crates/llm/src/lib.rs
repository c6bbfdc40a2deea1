//! The executor that runs a transformer: weights, the decoder, its kernels, and the tokenizer.

mod allocator;
mod attention;
mod config;
mod detokenizer;
mod dtype;
mod executor;
mod formats;
pub mod hub;
mod kernels;
mod kv_cache;
mod linear;
mod load;
mod matmul;
mod memory;
mod model;
mod operators;
mod ops;
mod paged;
mod plan;
mod profile;
mod rope;
mod sampler;
mod simd;
mod tensor_cache;
mod text;
mod tokenizer;
mod weights;

pub use config::{
    ConfigError, Family, ModelConfig, RopeParameters, RopeScaling, RopeType, TokenIds,
};
pub use detokenizer::Detokenizer;
pub use dtype::Dtype;
pub use executor::{CandleExecutor, KvPool};
pub use load::{DeviceChoice, LoadOptions, LoadedModel, LogitsError, read_config};
pub use plan::BatchError;
pub use profile::{ProfileError, measure_roofs};
pub use sampler::SampleError;
pub use text::TextStreams;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use weights::LoadError;
