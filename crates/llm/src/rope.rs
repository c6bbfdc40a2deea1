use std::f64::consts::TAU;

use candle_core::{DType, Device, Result, Tensor};

use crate::config::{ModelConfig, RopeScaling, RopeType};

/// Cosines and sines of the rotary embedding: `[positions, head_dim / 2]` each.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    /// The tables for positions below `positions`. `divisors`, where a file has them (the tensor
    /// `rope_freqs` of llama.cpp), say by how much each frequency is stretched.
    pub(crate) fn new(config: &ModelConfig, positions: usize, divisors: Option<&[f32]>) -> Self {
        let mut frequencies = frequencies(config);
        for (frequency, divisor) in frequencies.iter_mut().zip(divisors.unwrap_or_default()) {
            *frequency /= f64::from(*divisor);
        }
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        Self {
            cos: angles().map(|angle| angle.cos() as f32).collect(),
            sin: angles().map(|angle| angle.sin() as f32).collect(),
            half: frequencies.len(),
        }
    }

    /// Positions that the tables have.
    pub(crate) fn positions(&self) -> usize {
        self.cos.len() / self.half
    }

    /// The cosines and sines of a position, `head_dim / 2` each.
    pub(crate) fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let row = position as usize * self.half..(position as usize + 1) * self.half;
        (&self.cos[row.clone()], &self.sin[row])
    }

    /// Turns a head, in halves: `(x1 cos - x2 sin, x2 cos + x1 sin)`.
    pub(crate) fn turn(&self, position: u32, head: &[f32], turned: &mut [f32]) {
        let (cos, sin) = self.at(position);
        let (x1, x2) = head.split_at(self.half);
        let (y1, y2) = turned.split_at_mut(self.half);
        for i in 0..self.half {
            y1[i] = x1[i] * cos[i] - x2[i] * sin[i];
            y2[i] = x2[i] * cos[i] + x1[i] * sin[i];
        }
    }

    /// The cosines and sines of a batch's tokens as tensors, `[tokens, head_dim / 2]` each.
    pub(crate) fn of_tokens(
        &self,
        positions: &[u32],
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let rows = |table: &[f32]| {
            let row = |p: &u32| &table[*p as usize * self.half..][..self.half];
            let values: Vec<f32> = positions.iter().flat_map(row).copied().collect();
            Tensor::from_vec(values, (positions.len(), self.half), device)?.to_dtype(dtype)
        };
        Ok((rows(&self.cos)?, rows(&self.sin)?))
    }
}

fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let dim = config.head_width();
    let scaling = config.rope_scaling();
    (0..dim / 2)
        .map(|i| config.rope_theta().powf(-2.0 * i as f64 / dim as f64))
        .map(|frequency| scaling.map_or(frequency, |scaling| scale(scaling, frequency)))
        .collect()
}

/// Llama 3.1's rule: long wavelengths are stretched, short ones are left, and between the two
/// thresholds the stretching fades in (Hugging Face transformers, `_compute_llama3_parameters`).
fn scale(scaling: &RopeScaling, frequency: f64) -> f64 {
    match scaling.rope_type {
        RopeType::Default => frequency,
        RopeType::Linear => frequency / scaling.factor,
        RopeType::Llama3 => {
            let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
            let turns = scaling.original_max_position_embeddings as f64 * frequency / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            kept * frequency + (1.0 - kept) * frequency / scaling.factor
        }
    }
}
