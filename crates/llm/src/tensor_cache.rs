use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::rotary_emb::rope_thd;
use metron_trace::Operator;

use crate::attention::SequenceKind;
use crate::kv_cache::KvShape;
use crate::operators::OperatorClock;
use crate::plan::{ForwardPlan, SequenceSlice};
use crate::rope::Rope;

/// One layer's keys and values as tensors, `[num_blocks, block_size, kv_heads, head_dim]` each, and
/// attention over them by tensor operations: what runs on any device.
#[derive(Debug)]
pub(crate) struct TensorLayer {
    shape: KvShape,
    keys: Tensor,
    values: Tensor,
}

impl TensorLayer {
    pub(crate) fn new(shape: KvShape, dtype: DType, device: &Device) -> Result<Self> {
        let size = (shape.num_blocks, shape.block_size, shape.kv_heads, shape.head_dim);
        let empty = || Tensor::zeros(size, dtype, device);
        Ok(Self { shape, keys: empty()?, values: empty()? })
    }

    /// Fills it with numbers.
    pub(crate) fn fill(&mut self) -> Result<()> {
        let random = |like: &Tensor| like.rand_like(-0.5, 0.5);
        (self.keys, self.values) = (random(&self.keys)?, random(&self.values)?);
        Ok(())
    }

    /// `qkv` is `[tokens, (heads + 2 kv_heads) * head_dim]`, the result `[tokens, heads * head_dim]`.
    pub(crate) fn attend(
        &self,
        plan: &ForwardPlan,
        qkv: &Tensor,
        rope: &Rope,
        heads: usize,
        clock: &mut OperatorClock<'_>,
    ) -> Result<Tensor> {
        let KvShape { kv_heads, head_dim, .. } = self.shape;
        let tokens = plan.token_ids.len();
        let part = |from: usize, count: usize| {
            qkv.narrow(1, from * head_dim, count * head_dim)?
                .contiguous()?
                .reshape((1, tokens, count, head_dim))
        };
        let (queries, keys) = clock.time(Operator::Rope, || {
            let (cos, sin) = rope.of_tokens(&plan.positions, qkv.dtype(), qkv.device())?;
            let queries = rope_thd(&part(0, heads)?, &cos, &sin)?.squeeze(0)?;
            Ok((queries, rope_thd(&part(heads, kv_heads)?, &cos, &sin)?.squeeze(0)?))
        })?;
        let values = part(heads + kv_heads, kv_heads)?.squeeze(0)?;
        clock.time(Operator::CacheWrite, || self.store(plan, &keys, &values))?;
        let mut attended = Vec::with_capacity(plan.sequences.len());
        for sequence in &plan.sequences {
            let operator = match SequenceKind::of(sequence) {
                SequenceKind::Decode => Operator::AttentionDecode,
                SequenceKind::Prefill => Operator::AttentionPrefill,
            };
            attended.push(clock.time(operator, || self.attend_one(plan, sequence, &queries))?);
        }
        Tensor::cat(&attended, 0)
    }

    /// Writes the tokens' keys and values, `[tokens, kv_heads, head_dim]`, a block's run at a time.
    fn store(&self, plan: &ForwardPlan, keys: &Tensor, values: &Tensor) -> Result<()> {
        let KvShape { num_blocks, block_size, kv_heads, head_dim } = self.shape;
        let flat = (num_blocks * block_size, kv_heads, head_dim);
        let (to_keys, to_values) = (self.keys.reshape(flat)?, self.values.reshape(flat)?);
        for sequence in &plan.sequences {
            let blocks = &plan.block_ids[sequence.blocks.clone()];
            let end = sequence.context + sequence.tokens;
            let mut position = sequence.context;
            while position < end {
                let run = (block_size - position % block_size).min(end - position);
                let slot =
                    blocks[position / block_size] as usize * block_size + position % block_size;
                let row = sequence.first_token + position - sequence.context;
                to_keys.slice_set(&keys.narrow(0, row, run)?.contiguous()?, 0, slot)?;
                to_values.slice_set(&values.narrow(0, row, run)?.contiguous()?, 0, slot)?;
                position += run;
            }
        }
        Ok(())
    }

    /// One sequence's tokens: `[tokens, heads * head_dim]`.
    fn attend_one(
        &self,
        plan: &ForwardPlan,
        sequence: &SequenceSlice,
        queries: &Tensor,
    ) -> Result<Tensor> {
        let KvShape { block_size, kv_heads, head_dim, .. } = self.shape;
        let SequenceSlice { first_token, tokens, context, .. } = *sequence;
        let positions = context + tokens;
        let heads = queries.dim(1)?;
        let device = queries.device();
        let blocks = &plan.block_ids[sequence.blocks.clone()][..positions.div_ceil(block_size)];
        let blocks = Tensor::new(blocks, device)?;
        // [kv_heads, positions, head_dim]
        let gather = |cache: &Tensor| {
            cache
                .index_select(&blocks, 0)?
                .flatten(0, 1)?
                .narrow(0, 0, positions)?
                .transpose(0, 1)?
                .contiguous()
        };
        let (keys, values) = (gather(&self.keys)?, gather(&self.values)?);
        // [kv_heads, group * tokens, head_dim]: the heads that share keys and values together.
        let group = heads / kv_heads;
        let queries = queries
            .narrow(0, first_token, tokens)?
            .transpose(0, 1)?
            .contiguous()?
            .reshape((kv_heads, group * tokens, head_dim))?;
        let scores = (queries.matmul(&keys.transpose(1, 2)?.contiguous()?)?
            / (head_dim as f64).sqrt())?
        .to_dtype(DType::F32)?;
        let mask = causal_mask(tokens, context, device)?;
        let scores = scores
            .reshape((kv_heads, group, tokens, positions))?
            .broadcast_add(&mask)?
            .reshape((kv_heads, group * tokens, positions))?;
        let weights = softmax_last_dim(&scores)?.to_dtype(values.dtype())?;
        weights
            .matmul(&values)?
            .reshape((heads, tokens, head_dim))?
            .transpose(0, 1)?
            .contiguous()?
            .flatten_from(D::Minus2)
    }
}

/// `[tokens, context + tokens]`: 0 where a token sees a position, else minus infinity.
fn causal_mask(tokens: usize, context: usize, device: &Device) -> Result<Tensor> {
    let seen = |token: usize, position: usize| {
        if position <= context + token { 0.0 } else { f32::NEG_INFINITY }
    };
    let positions = context + tokens;
    let mask: Vec<f32> =
        (0..tokens).flat_map(|token| (0..positions).map(move |p| seen(token, p))).collect();
    Tensor::from_vec(mask, (tokens, positions), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::dtype::Dtype;
    use crate::kv_cache::KvCache;
    use crate::model::Model;
    use crate::plan::Share;
    use crate::weights::DummyWeights;
    use metron_engine::BlockId;
    use metron_trace::RequestId;

    const BLOCKS: usize = 16;

    fn model() -> Model {
        let config: ModelConfig = toml::from_str(
            r#"
            architectures = ["LlamaForCausalLM"]
            hidden_size = 48
            intermediate_size = 40
            num_hidden_layers = 2
            num_attention_heads = 6
            num_key_value_heads = 2
            head_dim = 8
            vocab_size = 50
            max_position_embeddings = 64
            rms_norm_eps = 1e-5
            "#,
        )
        .expect("a shape");
        let weights = DummyWeights::new(&config, 3);
        Model::load(&config, &weights, Dtype::F32, &Device::Cpu, 64).expect("it is whole")
    }

    fn tensors(model: &Model, block_size: usize) -> KvCache {
        let config = model.config();
        let shape = KvShape {
            num_blocks: BLOCKS,
            block_size,
            kv_heads: config.kv_heads(),
            head_dim: config.head_width(),
        };
        KvCache::tensors(shape, config.num_hidden_layers, DType::F32, &Device::Cpu)
            .expect("there is room")
    }

    /// Two steps: a prefill and part of another, then a decode beside the rest. Blocks are out of
    /// order.
    fn steps(model: &Model, block_size: usize) -> [ForwardPlan; 2] {
        let ids: Vec<u32> = (0..23).map(|i| i * 7 % 50).collect();
        let (one, other) = ([5, 2, 9].map(BlockId), [1, 14, 3, 7].map(BlockId));
        let share = |token_ids, context, blocks, samples| Share {
            request: RequestId(0),
            token_ids,
            context,
            blocks,
            samples,
        };
        let plan = |shares: [Share<'_>; 2]| {
            let mut plan = ForwardPlan::default();
            plan.refill(shares, &model.capacity(BLOCKS, block_size)).expect("it fits");
            plan
        };
        [
            plan([share(&ids[..9], 0, &one, true), share(&ids[..6], 0, &other, false)]),
            plan([share(&ids[9..10], 9, &one, true), share(&ids[6..14], 6, &other, true)]),
        ]
    }

    /// What runs on any device gives what the CPU's own kernel gives.
    #[test]
    fn attention_by_tensor_operations_agrees_with_the_kernel() {
        let model = model();
        for block_size in [4, 5, 16, 33] {
            check(&model, block_size);
        }
    }

    fn check(model: &Model, block_size: usize) {
        let mut paged = model.new_cache(BLOCKS, block_size).expect("there is room");
        let mut tensors = tensors(model, block_size);
        for plan in steps(model, block_size) {
            let logits = |cache: &mut KvCache| -> Vec<Vec<f32>> {
                let logits =
                    model.forward(&plan, cache, &mut OperatorClock::off()).expect("it runs");
                logits.expect("rows sample").to_vec2().expect("two dimensions")
            };
            let (kernel, operations) = (logits(&mut paged), logits(&mut tensors));
            assert_eq!(kernel.len(), plan.logit_rows.len());
            for (kernel, operations) in kernel.iter().flatten().zip(operations.iter().flatten()) {
                assert!((kernel - operations).abs() < 1e-4, "{kernel} and {operations}");
            }
        }
    }
}
