use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Device, IndexOp, Layout, Result, Shape, Tensor};
use candle_nn::ops::rms_norm;

use crate::attention::attend;
use crate::config::{Family, ModelConfig};
use crate::kernels::swiglu;
use crate::kv_cache::{KvLayer, KvShape};
use crate::linear::{Layouts, Linear, floats};
use crate::matmul::Packed;
use crate::plan::ForwardPlan;
use crate::rope::Rope;
use crate::tensor_cache::TensorLayer;
use crate::weights::{LoadError, Weights};
use rayon::prelude::*;

/// A llama-family decoder that runs a ragged hybrid batch in one pass.
///
/// The tokens of all sequences stand one behind the other in a `[tokens, hidden]` matrix that goes
/// through every projection once; only attention looks at sequences, each over its own blocks of
/// the paged KV cache; logits are made for the rows that sample.
#[derive(Debug)]
pub(crate) struct Model {
    config: ModelConfig,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Linear,
    rope: Rope,
    device: Device,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    /// Queries, keys and values in one product.
    qkv: Linear,
    qkv_bias: Option<Tensor>,
    output: Linear,
    mlp_norm: Tensor,
    /// Gate and up in one product.
    gate_up: Linear,
    down: Linear,
}

/// The table of token embeddings.
#[derive(Debug)]
enum Embedding {
    /// The packed output projection, whose rows it shares.
    Tied(std::sync::Arc<Packed>),
    /// `[vocabulary, hidden]`
    Table(Tensor),
}

/// The KV cache of a model, a page table's worth of blocks a layer.
#[derive(Debug)]
pub(crate) enum KvCache {
    /// On the CPU, for the kernels of this crate.
    Paged(Vec<Mutex<KvLayer>>),
    /// As tensors, for any device.
    Tensors(Vec<TensorLayer>),
}

impl Model {
    /// Loads the weights, layer by layer, into the layout that computes with them. `positions` is
    /// the longest sequence that will run.
    pub(crate) fn load(
        config: &ModelConfig,
        weights: &dyn Weights,
        layout: Layouts,
        device: &Device,
        positions: usize,
    ) -> std::result::Result<Self, LoadError> {
        let dense = |name: &str| -> std::result::Result<Tensor, LoadError> {
            let tensor = weights.tensor(name)?.to_device(device)?;
            Ok(match layout {
                Layouts::Dense(dtype) => tensor.to_dtype(dtype)?,
                Layouts::Packed | Layouts::Q8 => tensor,
            })
        };
        let linear = |names: &[String]| -> std::result::Result<Linear, LoadError> {
            let tensors = names
                .iter()
                .map(|name| weights.tensor(name))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            Ok(Linear::stack(&tensors.iter().collect::<Vec<_>>(), layout, device)?)
        };
        let head_name =
            if config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let head = linear(&[head_name.to_owned()])?;
        let embedding = match &head {
            Linear::Packed(packed) if config.tie_word_embeddings => Embedding::Tied(packed.clone()),
            _ => Embedding::Table(dense("model.embed_tokens.weight")?),
        };
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                let name = |part: &str| format!("model.layers.{index}.{part}");
                let qkv =
                    ["q", "k", "v"].map(|part| name(&format!("self_attn.{part}_proj.weight")));
                let qkv_bias = if config.family() == Ok(Family::Qwen2) {
                    let parts = ["q", "k", "v"]
                        .map(|part| dense(&name(&format!("self_attn.{part}_proj.bias"))));
                    let parts = parts.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
                    Some(Tensor::cat(&parts, 0)?)
                } else {
                    None
                };
                Ok(Layer {
                    attention_norm: dense(&name("input_layernorm.weight"))?,
                    qkv: linear(&qkv)?,
                    qkv_bias,
                    output: linear(&[name("self_attn.o_proj.weight")])?,
                    mlp_norm: dense(&name("post_attention_layernorm.weight"))?,
                    gate_up: linear(&[name("mlp.gate_proj.weight"), name("mlp.up_proj.weight")])?,
                    down: linear(&[name("mlp.down_proj.weight")])?,
                })
            })
            .collect::<std::result::Result<Vec<_>, LoadError>>()?;
        Ok(Self {
            embedding,
            layers,
            norm: dense("model.norm.weight")?,
            head,
            rope: Rope::new(config, positions),
            device: device.clone(),
            config: config.clone(),
        })
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// An empty KV cache of so many blocks.
    pub(crate) fn new_cache(&self, num_blocks: usize, block_size: usize) -> Result<KvCache> {
        let shape = KvShape {
            num_blocks,
            block_size,
            kv_heads: self.config.kv_heads(),
            head_dim: self.config.head_width(),
        };
        let layers = 0..self.config.num_hidden_layers;
        if self.device.is_cpu() {
            return Ok(KvCache::Paged(layers.map(|_| Mutex::new(KvLayer::new(shape))).collect()));
        }
        let dtype = self.norm.dtype();
        let layers = layers.map(|_| TensorLayer::new(shape, dtype, &self.device));
        Ok(KvCache::Tensors(layers.collect::<Result<_>>()?))
    }

    /// Runs a batch: writes its keys and values into the cache, and returns the logits of the rows
    /// that sample, `[rows, vocabulary]`; `None` if no row does.
    pub(crate) fn forward(
        &self,
        plan: &ForwardPlan,
        cache: &mut KvCache,
    ) -> Result<Option<Tensor>> {
        let eps = self.config.rms_norm_eps as f32;
        let mut x = self.embed(&plan.token_ids)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let mut qkv = layer.qkv.forward(&rms_norm(&x, &layer.attention_norm, eps)?)?;
            if let Some(bias) = &layer.qkv_bias {
                qkv = qkv.broadcast_add(bias)?;
            }
            let attended = self.attend(plan, &qkv, index, cache)?;
            x = (x + layer.output.forward(&attended)?)?;
            let gate_up = layer.gate_up.forward(&rms_norm(&x, &layer.mlp_norm, eps)?)?;
            x = (x + layer.down.forward(&self.swiglu(&gate_up)?)?)?;
        }
        if plan.logit_rows.is_empty() {
            return Ok(None);
        }
        // The rows are picked before the norm and the projection: a prefill's other rows are a
        // third of a small model's work.
        let rows = Tensor::new(plan.logit_rows.as_slice(), &self.device)?;
        let x = rms_norm(&x.index_select(&rows, 0)?, &self.norm, eps)?;
        Ok(Some(self.head.forward(&x)?.to_dtype(candle_core::DType::F32)?))
    }

    fn embed(&self, token_ids: &[u32]) -> Result<Tensor> {
        let hidden = self.config.hidden_size;
        match &self.embedding {
            Embedding::Tied(packed) => {
                let mut rows = vec![0.0; token_ids.len() * hidden];
                for (id, row) in token_ids.iter().zip(rows.chunks_exact_mut(hidden)) {
                    packed.copy_row(*id as usize, row);
                }
                Tensor::from_vec(rows, (token_ids.len(), hidden), &self.device)
            }
            Embedding::Table(table) => {
                table.index_select(&Tensor::new(token_ids, &self.device)?, 0)
            }
        }
    }

    /// `[tokens, (heads + 2 kv_heads) * head_dim]` to `[tokens, heads * head_dim]`.
    fn attend(
        &self,
        plan: &ForwardPlan,
        qkv: &Tensor,
        layer: usize,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        match cache {
            KvCache::Paged(layers) => {
                let op = PagedAttention { model: self, plan, layer: &layers[layer] };
                qkv.apply_op1_no_bwd(&op)
            }
            KvCache::Tensors(layers) => {
                layers[layer].attend(plan, qkv, &self.rope, self.config.num_attention_heads)
            }
        }
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        let width = self.config.intermediate_size;
        if self.device.is_cpu() {
            return gate_up.apply_op1_no_bwd(&Swiglu { width });
        }
        let (gate, up) = (gate_up.i((.., ..width))?, gate_up.i((.., width..))?);
        candle_nn::ops::silu(&gate.contiguous()?)?.mul(&up)
    }
}

struct Swiglu {
    width: usize,
}

impl CustomOp1 for Swiglu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = swiglu(floats(storage, layout, self.name())?, self.width);
        let shape = Shape::from((out.len() / self.width, self.width));
        Ok((CpuStorage::F32(out), shape))
    }
}

/// Rotary embedding, the write into the cache, and attention, on the CPU.
struct PagedAttention<'a> {
    model: &'a Model,
    plan: &'a ForwardPlan,
    layer: &'a Mutex<KvLayer>,
}

impl PagedAttention<'_> {
    /// Turns the queries: `[tokens, heads, head_dim]`.
    fn turned_queries(&self, rows: &Rows<'_>) -> Vec<f32> {
        let mut queries = vec![0.0; self.plan.token_ids.len() * rows.query_width];
        let tokens = queries.par_chunks_exact_mut(rows.query_width).enumerate();
        tokens.for_each(|(token, turned)| {
            let heads = rows.queries(token).chunks_exact(rows.head_dim);
            for (head, turned) in heads.zip(turned.chunks_exact_mut(rows.head_dim)) {
                self.model.rope.turn(self.plan.positions[token], head, turned);
            }
        });
        queries
    }

    /// Turns the keys, and stores them with the values.
    fn store(&self, rows: &Rows<'_>, layer: &mut KvLayer) {
        let places = self.plan.places(layer.shape.block_size);
        layer.store(&places, |token, store| {
            let mut turned = vec![0.0; rows.head_dim];
            let (keys, values) = rows.keys_and_values(token);
            let heads = keys.chunks_exact(rows.head_dim).zip(values.chunks_exact(rows.head_dim));
            for (head, (key, value)) in heads.enumerate() {
                self.model.rope.turn(self.plan.positions[token], key, &mut turned);
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
        let mut layer = self.layer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (heads, head_dim) = (self.model.config.num_attention_heads, layer.shape.head_dim);
        let rows = Rows {
            qkv,
            query_width: heads * head_dim,
            kv_width: layer.shape.kv_heads * head_dim,
            head_dim,
        };
        self.store(&rows, &mut layer);
        let queries = self.turned_queries(&rows);
        let out = attend(self.plan, &queries, &layer, heads);
        let tokens = self.plan.token_ids.len();
        let shape = Shape::from((tokens, out.len() / tokens.max(1)));
        Ok((CpuStorage::F32(out), shape))
    }
}
