//! The executor that runs a transformer: weights, the decoder, its kernels, and the tokenizer.

mod attention;
mod config;
mod detokenizer;
mod executor;
pub mod hub;
mod kernels;
mod kv_cache;
mod linear;
mod load;
mod matmul;
mod model;
mod plan;
mod rope;
mod sampler;
mod simd;
mod tensor_cache;
mod text;
mod tokenizer;
mod weights;

pub use config::{ConfigError, Family, ModelConfig, RopeScaling, RopeType, TokenIds};
pub use detokenizer::Detokenizer;
pub use executor::{CandleExecutor, KvPool};
pub use load::{DeviceChoice, Dtype, LoadOptions, LoadedModel, read_config};
pub use sampler::SampleError;
pub use text::TextStreams;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use weights::LoadError;
