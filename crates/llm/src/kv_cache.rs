//! Unsafe because threads write the keys and values of different positions at the same time.
//!
//! The KV cache in pages. A layer's keys are `[num_blocks, kv_heads, head_dim, block_size]` and its
//! values `[num_blocks, kv_heads, block_size, head_dim]`: each is laid out for the product that
//! reads it, so that attention streams blocks as they are and copies nothing.

#![expect(unsafe_code, reason = "disjoint writes from several threads")]

use candle_core::{DType, Device, Result};
use rayon::prelude::*;

use crate::plan::Places;
use crate::tensor_cache::TensorLayer;

/// The KV cache of a model.
#[derive(Debug)]
pub(crate) enum KvCache {
    /// On the CPU, for the kernels of this crate: a layer each.
    Paged(Vec<KvLayer>),
    /// As tensors, for any device: a layer each.
    Tensors(Vec<TensorLayer>),
}

impl KvCache {
    /// An empty cache for the kernels of the CPU.
    pub(crate) fn paged(shape: KvShape, layers: usize) -> Self {
        Self::Paged((0..layers).map(|_| KvLayer::new(shape)).collect())
    }

    /// An empty cache of tensors.
    pub(crate) fn tensors(
        shape: KvShape,
        layers: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let layers = (0..layers).map(|_| TensorLayer::new(shape, dtype, device));
        Ok(Self::Tensors(layers.collect::<Result<_>>()?))
    }
}

impl KvCache {
    /// Fills it with numbers.
    pub(crate) fn fill(&mut self) -> Result<()> {
        match self {
            Self::Paged(layers) => {
                for layer in layers {
                    let (keys, values) = (&mut layer.keys, &mut layer.values);
                    for numbers in [keys, values] {
                        numbers.par_iter_mut().enumerate().for_each(|(at, number)| {
                            *number = (at % 251) as f32 / 251.0 - 0.5;
                        });
                    }
                }
                Ok(())
            }
            Self::Tensors(layers) => layers.iter_mut().try_for_each(TensorLayer::fill),
        }
    }
}

/// The sizes of a paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) num_blocks: usize,
    pub(crate) block_size: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl KvShape {
    /// Floats of a layer's keys, or of its values.
    pub(crate) fn layer_len(&self) -> usize {
        self.num_blocks * self.block_len()
    }

    /// Floats of a block's keys, or of its values, in one layer.
    pub(crate) fn block_len(&self) -> usize {
        self.block_size * self.kv_heads * self.head_dim
    }

    /// Where a head of a block begins, in keys and in values alike.
    pub(crate) fn head_at(&self, block: usize, head: usize) -> usize {
        (block * self.kv_heads + head) * self.head_dim * self.block_size
    }
}

/// The keys and values of one layer, on the CPU.
#[derive(Debug)]
pub(crate) struct KvLayer {
    pub(crate) shape: KvShape,
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl KvLayer {
    /// An empty layer. The memory is only promised by the system until it is first written.
    pub(crate) fn new(shape: KvShape) -> Self {
        let empty = || vec![0.0; shape.layer_len()];
        Self { shape, keys: empty(), values: empty() }
    }

    /// Stores the keys and values of tokens, `[kv_heads, head_dim]` of each a token, from several
    /// threads.
    pub(crate) fn store<'a>(
        &mut self,
        places: &Places,
        keys_and_values: impl Fn(usize) -> (&'a [f32], &'a [f32]) + Sync,
    ) {
        let cache = Pages { keys: self.keys.as_mut_ptr(), values: self.values.as_mut_ptr() };
        let shape = self.shape;
        places.as_slice().par_iter().enumerate().for_each(|(token, &(block, offset))| {
            let (keys, values) = keys_and_values(token);
            let heads = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
            for (head, (key, value)) in heads.enumerate() {
                // SAFETY: no two places are the same, and nobody else has the layer.
                unsafe { cache.write(shape, (block as usize, offset as usize, head), key, value) }
            }
        });
    }
}

/// A layer's memory, written by several threads.
struct Pages {
    keys: *mut f32,
    values: *mut f32,
}

// SAFETY: each thread writes other places.
unsafe impl Sync for Pages {}

impl Pages {
    /// # Safety
    /// The pages have this shape, and no other thread touches this place.
    unsafe fn write(
        &self,
        shape: KvShape,
        (block, offset, head): (usize, usize, usize),
        key: &[f32],
        value: &[f32],
    ) {
        let KvShape { num_blocks, block_size, kv_heads, head_dim } = shape;
        assert!(block < num_blocks && offset < block_size && head < kv_heads);
        assert!(key.len() == head_dim && value.len() == head_dim);
        let head = shape.head_at(block, head);
        // SAFETY: within the layer, as asserted; the place is this thread's alone.
        unsafe {
            let values = self.values.add(head + offset * head_dim);
            std::ptr::copy_nonoverlapping(value.as_ptr(), values, head_dim);
            for (dim, key) in key.iter().enumerate() {
                *self.keys.add(head + dim * block_size + offset) = *key;
            }
        }
    }
}
