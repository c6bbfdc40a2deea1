use std::result::Result as StdResult;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use metron_trace::Operator;

use crate::config::{Family, ModelConfig};
use crate::dtype::Dtype;
use crate::kv_cache::{KvCache, KvShape};
use crate::linear::Linear;
use crate::matmul::Matrix;
use crate::operators::OperatorClock;
use crate::ops::{residual, rms_norm, swiglu};
use crate::paged::PagedAttention;
use crate::plan::{Capacity, ForwardPlan};
use crate::rope::Rope;
use crate::weights::{LoadError, ROPE_DIVISORS, Weights};

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
    dtype: Dtype,
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
    /// On the CPU; the output projection itself, where they are tied.
    Packed(Arc<dyn Matrix>),
    /// On another device: `[vocabulary, hidden]`.
    Table(Tensor),
}

impl Model {
    /// Loads the weights, layer by layer, into the layout that computes with them. `positions` is
    /// the longest sequence that will run.
    pub(crate) fn load(
        config: &ModelConfig,
        weights: &dyn Weights,
        dtype: Dtype,
        device: &Device,
        positions: usize,
    ) -> StdResult<Self, LoadError> {
        let loader = Loader { config, weights, dtype, device };
        let head_name =
            if config.tie_word_embeddings { EMBEDDING } else { "lm_head.weight" }.to_owned();
        let head = loader.linear(&[head_name])?;
        let divisors = weights.stored(ROPE_DIVISORS).map(|_| weights.tensor(ROPE_DIVISORS));
        let divisors = divisors.transpose()?.map(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        Ok(Self {
            embedding: loader.embedding(&head)?,
            layers: (0..config.num_hidden_layers)
                .map(|index| loader.layer(index))
                .collect::<StdResult<_, LoadError>>()?,
            norm: loader.vector("model.norm.weight")?,
            head,
            rope: Rope::new(config, positions, divisors.transpose()?.as_deref()),
            device: device.clone(),
            dtype,
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
        let layers = self.config.num_hidden_layers;
        if self.device.is_cpu() {
            return Ok(KvCache::paged(shape, layers));
        }
        KvCache::tensors(shape, layers, self.dtype.of_activations(&self.device), &self.device)
    }

    /// What a batch may ask of this model and a cache of this size.
    pub(crate) fn capacity(&self, num_blocks: usize, block_size: usize) -> Capacity {
        Capacity {
            vocab_size: self.config.vocab_size,
            positions: self.rope.positions(),
            block_size,
            num_blocks,
        }
    }

    /// Runs a batch: writes its keys and values into the cache, and returns the logits of the rows
    /// that sample, `[rows, vocabulary]` in f32; `None` if no row does.
    pub(crate) fn forward(
        &self,
        plan: &ForwardPlan,
        cache: &mut KvCache,
        clock: &mut OperatorClock<'_>,
    ) -> Result<Option<Tensor>> {
        let mut x = clock.time(Operator::Embedding, || self.embed(&plan.token_ids))?;
        for index in 0..self.layers.len() {
            clock.enter(Some(index));
            x = self.run_layer(index, x, plan, cache, clock)?;
        }
        clock.enter(None);
        if plan.logit_rows.is_empty() {
            return Ok(None);
        }
        // The rows are picked before the norm and the projection: a prefill's other rows are a
        // third of a small model's work.
        let rows = Tensor::new(plan.logit_rows.as_slice(), &self.device)?;
        let x = x.index_select(&rows, 0)?;
        let x = clock.time(Operator::Norm, || self.normed(&x, &self.norm))?;
        clock.time(Operator::Logits, || self.head.forward(&x)?.to_dtype(DType::F32)).map(Some)
    }

    fn run_layer(
        &self,
        index: usize,
        x: Tensor,
        plan: &ForwardPlan,
        cache: &mut KvCache,
        clock: &mut OperatorClock<'_>,
    ) -> Result<Tensor> {
        let layer = &self.layers[index];
        let normed = clock.time(Operator::Norm, || self.normed(&x, &layer.attention_norm))?;
        let qkv = clock.time(Operator::Qkv, || {
            let qkv = layer.qkv.forward(&normed)?;
            layer.qkv_bias.as_ref().map_or(Ok(qkv.clone()), |bias| qkv.broadcast_add(bias))
        })?;
        let attended = self.attend(plan, &qkv, index, cache, clock)?;
        let output = clock.time(Operator::Output, || layer.output.forward(&attended))?;
        let x = clock.time(Operator::Residual, || residual(x, &output))?;
        let normed = clock.time(Operator::Norm, || self.normed(&x, &layer.mlp_norm))?;
        let gate_up = clock.time(Operator::GateUp, || layer.gate_up.forward(&normed))?;
        let activated = clock.time(Operator::Activation, || swiglu(&gate_up))?;
        let down = clock.time(Operator::Down, || layer.down.forward(&activated))?;
        clock.time(Operator::Residual, || residual(x, &down))
    }

    fn normed(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, self.config.rms_norm_eps as f32)
    }

    fn embed(&self, token_ids: &[u32]) -> Result<Tensor> {
        let hidden = self.config.hidden_size;
        match &self.embedding {
            Embedding::Packed(matrix) => {
                let mut rows = vec![0.0; token_ids.len() * hidden];
                for (id, row) in token_ids.iter().zip(rows.chunks_exact_mut(hidden)) {
                    matrix.copy_row(*id as usize, row);
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
        clock: &mut OperatorClock<'_>,
    ) -> Result<Tensor> {
        let heads = self.config.num_attention_heads;
        match cache {
            KvCache::Paged(layers) => {
                let attention =
                    PagedAttention { rope: &self.rope, plan, layer: &mut layers[layer], heads };
                attention.run(qkv, clock)
            }
            KvCache::Tensors(layers) => layers[layer].attend(plan, qkv, &self.rope, heads, clock),
        }
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";

/// Brings tensors onto a device in the layout that computes with them.
struct Loader<'a> {
    config: &'a ModelConfig,
    weights: &'a dyn Weights,
    dtype: Dtype,
    device: &'a Device,
}

impl Loader<'_> {
    fn layer(&self, index: usize) -> StdResult<Layer, LoadError> {
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let qkv = |kind: &str| ["q", "k", "v"].map(|p| name(&format!("self_attn.{p}_proj.{kind}")));
        let qkv_bias = match self.config.family() {
            Ok(Family::Qwen2) => {
                let biases = qkv("bias").map(|name| self.vector(&name));
                let biases = biases.into_iter().collect::<StdResult<Vec<_>, _>>()?;
                Some(Tensor::cat(&biases, 0)?)
            }
            _ => None,
        };
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm.weight"))?,
            qkv: self.linear(&qkv("weight"))?,
            qkv_bias,
            output: self.linear(&[name("self_attn.o_proj.weight")])?,
            mlp_norm: self.vector(&name("post_attention_layernorm.weight"))?,
            gate_up: self.linear(&[name("mlp.gate_proj.weight"), name("mlp.up_proj.weight")])?,
            down: self.linear(&[name("mlp.down_proj.weight")])?,
        })
    }

    fn embedding(&self, head: &Linear) -> StdResult<Embedding, LoadError> {
        let own = self.device.is_cpu() && !self.config.tie_word_embeddings;
        let linear = if own { self.linear(&[EMBEDDING.to_owned()])? } else { head.clone() };
        match linear {
            Linear::Packed(matrix) => Ok(Embedding::Packed(matrix)),
            Linear::Dense(_) | Linear::Quantized(_) => {
                Ok(Embedding::Table(self.vector(EMBEDDING)?))
            }
        }
    }

    fn linear(&self, names: &[String]) -> StdResult<Linear, LoadError> {
        let tensors = names.iter().map(|name| self.weights.tensor(name));
        let tensors = tensors.collect::<StdResult<Vec<_>, _>>()?;
        Ok(Linear::stack(&tensors, self.dtype, self.device)?)
    }

    /// A tensor that is not a projection, in the format of activations.
    fn vector(&self, name: &str) -> StdResult<Tensor, LoadError> {
        let dtype = self.dtype.of_activations(self.device);
        Ok(self.weights.tensor(name)?.to_dtype(dtype)?.to_device(self.device)?)
    }
}

#[cfg(test)]
mod invariance;
#[cfg(test)]
pub(crate) mod tests;
