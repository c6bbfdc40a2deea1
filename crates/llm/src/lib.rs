//! The executor that runs a transformer: weights, the decoder, its kernels, and the tokenizer.

mod attention;
mod config;
mod executor;
pub mod hub {
    //! Temporary.
    mod files;
    pub use files::*;
}
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
mod text {
    use metron_engine::{SampledToken, TextPiece};
    use metron_trace::RequestId;
    #[derive(Debug, Default)]
    pub struct TextStreams;
    impl TextStreams {
        pub(crate) fn push(&mut self, _: &[SampledToken], _: &mut Vec<TextPiece>) -> Result<(), std::fmt::Error> { Ok(()) }
        pub(crate) fn end(&mut self, _: RequestId) {}
        pub(crate) fn clear(&mut self) {}
    }
}
mod weights;

pub use config::{ConfigError, Family, ModelConfig, RopeScaling, RopeType, TokenIds};
pub use executor::{CandleExecutor, KvPool};
pub use load::{DeviceChoice, Dtype, LoadOptions, LoadedModel, read_config};
pub use sampler::SampleError;
pub use text::TextStreams;
pub use weights::LoadError;
