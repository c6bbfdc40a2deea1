use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use super::{LoadError, StoredTensor, Weights};
use crate::config::ModelConfig;
use crate::dtype::StoredDtype;

/// Seeded random weights in a model's shape: timings are real, the text isn't.
///
/// Projections are uniform with the variance `1 / inputs`, so that activations keep their scale;
/// norms are 1, biases and the embedding small.
#[derive(Debug)]
pub(crate) struct DummyWeights {
    tensors: BTreeMap<String, Vec<usize>>,
    seed: u64,
}

/// Floats drawn from one stream.
const CHUNK: usize = 1 << 16;

impl DummyWeights {
    pub(crate) fn new(config: &ModelConfig, seed: u64) -> Self {
        Self { tensors: config.tensors(), seed }
    }

    /// A generator of the tensor's own: its place in the order of names is its stream.
    fn stream(&self, name: &str) -> ChaCha8Rng {
        let place = self.tensors.keys().position(|key| key == name).unwrap_or_default();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(place as u64);
        rng
    }
}

impl Weights for DummyWeights {
    fn stored(&self, name: &str) -> Option<StoredTensor> {
        let shape = self.tensors.get(name)?.clone();
        Some(StoredTensor { shape, format: "f32".to_owned(), dtype: Some(StoredDtype::Other) })
    }

    fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        let shape = self.tensors.get(name).cloned().unwrap_or_default();
        let len: usize = shape.iter().product();
        if name.contains("norm") {
            return Ok(Tensor::from_vec(vec![1.0_f32; len], shape, &Device::Cpu)?);
        }
        let inputs = if shape.len() == 2 { shape[1] as f32 } else { 1e4 };
        let width = (12.0 / inputs).sqrt();
        let stream = self.stream(name);
        let mut values = vec![0.0_f32; len];
        values.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, values)| {
            let mut rng = stream.clone();
            rng.set_word_pos((chunk * CHUNK) as u128);
            for value in values {
                // 24 bits fill a float's mantissa.
                let unit = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
                *value = (unit - 0.5) * width;
            }
        });
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn name_in_files(&self, _name: &str) -> Option<String> {
        None
    }

    fn names_in_files(&self) -> Vec<String> {
        Vec::new()
    }

    fn format(&self) -> String {
        "dummy".to_owned()
    }
}
