//! The executor that runs a transformer: weights, the decoder, its kernels, and the tokenizer.

mod allocator;
mod attention;
mod chat;
mod config;
mod detokenizer;
mod dtype;
mod eos;
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
mod threads;
mod tokenizer;
mod weights;

pub use chat::{ChatError, ChatTemplate};
pub use config::{
    ConfigError, Family, ModelConfig, Quantisation, RopeParameters, RopeScaling, RopeType,
};
pub use detokenizer::Detokenizer;
pub use dtype::Dtype;
pub use eos::eos_ids;
pub use executor::{CandleExecutor, KvPool};
pub use load::{DeviceChoice, LoadOptions, LoadedModel, read_config};
pub use plan::BatchError;
pub use profile::{ProfileError, measure_roofs};
pub use sampler::SampleError;
pub use text::TextStreams;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use weights::LoadError;
