use candle_core::{Result, Tensor};
use metron_trace::Operator;
use rayon::prelude::*;

use crate::attention::{Attention, SequenceKind};
use crate::kv_cache::KvLayer;
use crate::linear::with_floats;
use crate::operators::OperatorClock;
use crate::plan::ForwardPlan;
use crate::rope::Rope;

/// Rotary embedding, the write into the cache, and attention, on the CPU.
pub(crate) struct PagedAttention<'a> {
    pub(crate) rope: &'a Rope,
    pub(crate) plan: &'a ForwardPlan,
    pub(crate) layer: &'a mut KvLayer,
    /// Query heads.
    pub(crate) heads: usize,
}

impl PagedAttention<'_> {
    /// `qkv` is `[tokens, (heads + 2 kv_heads) * head_dim]`, the result `[tokens, heads * head_dim]`.
    pub(crate) fn run(self, qkv: &Tensor, clock: &mut OperatorClock<'_>) -> Result<Tensor> {
        let (tokens, width) = (self.plan.token_ids.len(), self.heads * self.layer.shape.head_dim);
        let attended = with_floats(qkv, |qkv| self.attend(qkv, clock))?;
        Tensor::from_vec(attended, (tokens, width), qkv.device())
    }

    fn attend(self, qkv: &[f32], clock: &mut OperatorClock<'_>) -> Result<Vec<f32>> {
        let Self { rope, plan, layer, heads } = self;
        let head_dim = layer.shape.head_dim;
        let rows = Rows {
            qkv,
            query_width: heads * head_dim,
            kv_width: layer.shape.kv_heads * head_dim,
            head_dim,
        };
        let turned = clock.time(Operator::Rope, || Ok(rows.turned(&plan.positions, rope)))?;
        clock.time(Operator::CacheWrite, || {
            layer.store(&plan.places, |token| (turned.keys(&rows, token), rows.values(token)));
            Ok(())
        })?;
        let mut attention = Attention::new(plan, &turned.queries, layer, heads);
        if clock.is_on() {
            for (operator, kind) in [
                (Operator::AttentionDecode, SequenceKind::Decode),
                (Operator::AttentionPrefill, SequenceKind::Prefill),
            ] {
                clock.time(operator, || {
                    attention.run(&[kind]);
                    Ok(())
                })?;
            }
        } else {
            attention.run(&[SequenceKind::Decode, SequenceKind::Prefill]);
        }
        Ok(attention.into_output())
    }
}

/// The rows of a fused product: queries, keys and values of each token.
struct Rows<'a> {
    qkv: &'a [f32],
    query_width: usize,
    kv_width: usize,
    head_dim: usize,
}

/// Turned by their positions.
struct Turned {
    /// `[tokens, heads, head_dim]`
    queries: Vec<f32>,
    /// `[tokens, kv_heads, head_dim]`
    keys: Vec<f32>,
}

impl Turned {
    fn keys(&self, rows: &Rows<'_>, token: usize) -> &[f32] {
        &self.keys[token * rows.kv_width..][..rows.kv_width]
    }
}

impl Rows<'_> {
    fn row(&self, token: usize) -> &[f32] {
        let width = self.query_width + 2 * self.kv_width;
        &self.qkv[token * width..][..width]
    }

    fn values(&self, token: usize) -> &[f32] {
        &self.row(token)[self.query_width + self.kv_width..]
    }

    fn turned(&self, positions: &[u32], rope: &Rope) -> Turned {
        let mut queries = vec![0.0; positions.len() * self.query_width];
        let mut keys = vec![0.0; positions.len() * self.kv_width];
        let tokens = queries
            .par_chunks_exact_mut(self.query_width)
            .zip(keys.par_chunks_exact_mut(self.kv_width))
            .enumerate();
        tokens.for_each(|(token, (queries, keys))| {
            let heads = self.row(token).chunks_exact(self.head_dim);
            let to =
                queries.chunks_exact_mut(self.head_dim).chain(keys.chunks_exact_mut(self.head_dim));
            for (head, to) in heads.zip(to) {
                rope.turn(positions[token], head, to);
            }
        });
        Turned { queries, keys }
    }
}
