//! Unsafe because threads write the keys and values of different positions at the same time.
//!
//! The KV cache in pages. A layer's keys are `[num_blocks, kv_heads, head_dim, block_size]` and its
//! values `[num_blocks, kv_heads, block_size, head_dim]`: each is laid out for the product that
//! reads it, so that attention streams blocks as they are and copies nothing.

#![expect(unsafe_code, reason = "disjoint writes from several threads")]

use rayon::prelude::*;

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

    /// Stores the keys and values of tokens, from several threads: `write(token, store)` is called
    /// for each token, and calls `store(head, key, value)` with `head_dim` floats of each.
    ///
    /// # Panics
    /// If two tokens have the same place.
    pub(crate) fn store(
        &mut self,
        places: &[(u32, u32)],
        write: impl Fn(usize, &mut dyn FnMut(usize, &[f32], &[f32])) + Sync,
    ) {
        let mut sorted = places.to_vec();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "two tokens in one place");
        let cache = Pages { keys: self.keys.as_mut_ptr(), values: self.values.as_mut_ptr() };
        let shape = self.shape;
        places.par_iter().enumerate().for_each(|(token, &(block, offset))| {
            write(token, &mut |head, key, value| {
                // SAFETY: no other token has this place, and nobody else has the layer.
                unsafe { cache.write(shape, (block as usize, offset as usize, head), key, value) }
            });
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
