use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};
use rayon::prelude::*;

use crate::attention::attend;
use crate::kv_cache::KvLayer;
use crate::linear::floats;
use crate::plan::ForwardPlan;
use crate::rope::Rope;

/// Rotary embedding, the write into the cache, and attention, on the CPU.
pub(crate) struct PagedAttention<'a> {
    pub(crate) rope: &'a Rope,
    pub(crate) plan: &'a ForwardPlan,
    pub(crate) layer: &'a Mutex<KvLayer>,
    /// Query heads.
    pub(crate) heads: usize,
}

impl PagedAttention<'_> {
    /// Turns the queries: `[tokens, heads, head_dim]`.
    fn turned_queries(&self, rows: &Rows<'_>) -> Vec<f32> {
        let mut queries = vec![0.0; self.plan.token_ids.len() * rows.query_width];
        let tokens = queries.par_chunks_exact_mut(rows.query_width).enumerate();
        tokens.for_each(|(token, turned)| {
            let heads = rows.queries(token).chunks_exact(rows.head_dim);
            for (head, turned) in heads.zip(turned.chunks_exact_mut(rows.head_dim)) {
                self.rope.turn(self.plan.positions[token], head, turned);
            }
        });
        queries
    }

    /// Turns the keys, and stores them with the values.
    fn store(&self, rows: &Rows<'_>, layer: &mut KvLayer) {
        layer.store(&self.plan.places, |token, store| {
            let mut turned = vec![0.0; rows.head_dim];
            let (keys, values) = rows.keys_and_values(token);
            let heads = keys.chunks_exact(rows.head_dim).zip(values.chunks_exact(rows.head_dim));
            for (head, (key, value)) in heads.enumerate() {
                self.rope.turn(self.plan.positions[token], key, &mut turned);
                store(head, &turned, value);
            }
        });
    }
}

/// The rows of a fused product: queries, keys and values of each token.
struct Rows<'a> {
    qkv: &'a [f32],
    query_width: usize,
    kv_width: usize,
    head_dim: usize,
}

impl Rows<'_> {
    fn row(&self, token: usize) -> &[f32] {
        let width = self.query_width + 2 * self.kv_width;
        &self.qkv[token * width..][..width]
    }

    fn queries(&self, token: usize) -> &[f32] {
        &self.row(token)[..self.query_width]
    }

    fn keys_and_values(&self, token: usize) -> (&[f32], &[f32]) {
        self.row(token)[self.query_width..].split_at(self.kv_width)
    }
}

impl CustomOp1 for PagedAttention<'_> {
    fn name(&self) -> &'static str {
        "paged-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = floats(storage, layout, self.name())?;
        let mut layer = self.layer.lock().unwrap_or_else(PoisonError::into_inner);
        let head_dim = layer.shape.head_dim;
        let rows = Rows {
            qkv,
            query_width: self.heads * head_dim,
            kv_width: layer.shape.kv_heads * head_dim,
            head_dim,
        };
        self.store(&rows, &mut layer);
        let out = attend(self.plan, &self.turned_queries(&rows), &layer, self.heads);
        let tokens = self.plan.token_ids.len();
        let shape = Shape::from((tokens, out.len() / tokens.max(1)));
        Ok((CpuStorage::F32(out), shape))
    }
}
