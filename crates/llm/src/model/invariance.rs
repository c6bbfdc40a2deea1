//! A needle in random batches: the bits of its logits do not depend on what runs beside it.

use metron_engine::BlockId;
use metron_trace::RequestId;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::plan::Share;
use crate::weights::DummyWeights;

const MIXES: u32 = 1000;

/// A long needle: several of attention's tiles of 64 positions.
const LONG: usize = 200;
/// The longest: two of its spans of 512.
const LONGEST: usize = 800;
/// Positions of a company's sequence at most: it crosses a tile as well.
const OTHERS: usize = 100;
/// Sequences beside the needle at most.
const COMPANY: usize = 4;

/// A model of random weights, `[k, n]` products of widths that no kernel likes.
fn model(hidden: usize, dtype: Dtype) -> Model {
    let text = format!(
        "architectures = [\"LlamaForCausalLM\"]\nhidden_size = {hidden}\n\
         intermediate_size = {}\nnum_hidden_layers = 2\nnum_attention_heads = 4\n\
         num_key_value_heads = 2\nhead_dim = 12\nvocab_size = 61\n\
         max_position_embeddings = {LONGEST}\nrms_norm_eps = 1e-5\n",
        hidden + 18
    );
    let config: ModelConfig = toml::from_str(&text).unwrap();
    Model::load(&config, &DummyWeights::new(&config, 5), dtype, &Device::Cpu, LONGEST).unwrap()
}

/// One run of the needle, alone or in company.
struct Mix<'a> {
    model: &'a Model,
    cache: KvCache,
    block_size: usize,
    /// In an order of their own.
    blocks: Vec<BlockId>,
    rng: StdRng,
}

impl<'a> Mix<'a> {
    /// On a cache full of numbers, which are what company with a context sees there.
    fn new(model: &'a Model, block_size: usize, mut rng: StdRng) -> Self {
        let blocks_of = |positions: usize| positions.div_ceil(block_size);
        let num_blocks = blocks_of(LONGEST) + COMPANY * blocks_of(OTHERS);
        let mut cache = model.new_cache(num_blocks, block_size).unwrap();
        cache.fill().unwrap();
        let mut blocks: Vec<BlockId> = (0..num_blocks as u32).map(BlockId).collect();
        blocks.shuffle(&mut rng);
        Self { model, cache, block_size, blocks, rng }
    }

    /// Runs a chunk of the needle with up to `company` other sequences, of which half are decodes;
    /// the needle's logits.
    fn step(&mut self, ids: &[u32], context: usize, company: usize) -> Vec<f32> {
        let (needles, mut others) = self.blocks.split_at(LONGEST.div_ceil(self.block_size));
        let mut prompts: Vec<(RequestId, Vec<u32>, u32, &[BlockId])> = Vec::new();
        for other in 0..self.rng.random_range(0..=company) {
            let decodes = self.rng.random_bool(0.5);
            let length = if decodes { 1 } else { self.rng.random_range(1..16_usize) };
            let context = self.rng.random_range(0..=OTHERS - length);
            let ids = (0..length).map(|_| self.rng.random_range(0..61)).collect();
            let table;
            (table, others) = others.split_at((context + length).div_ceil(self.block_size));
            prompts.push((RequestId(1 + other as u32), ids, context as u32, table));
        }
        let share = |request, token_ids, context, blocks| Share {
            request,
            token_ids,
            context,
            blocks,
            samples: true,
        };
        let mut shares: Vec<Share<'_>> = prompts
            .iter()
            .map(|(id, ids, context, table)| share(*id, ids, *context, table))
            .collect();
        let place = self.rng.random_range(0..=shares.len());
        shares.insert(place, share(RequestId(0), ids, context as u32, needles));
        let mut plan = ForwardPlan::default();
        plan.refill(shares, &self.model.capacity(self.blocks.len(), self.block_size)).unwrap();
        let logits = self.model.forward(&plan, &mut self.cache, &mut OperatorClock::off());
        logits.unwrap().unwrap().to_vec2().unwrap().remove(place)
    }

    /// The logits after all of the needle, which is cut into chunks, and now and then preempted:
    /// then it begins again on other blocks.
    fn run(&mut self, needle: &[u32]) -> Vec<f32> {
        let (mut done, mut logits) = (0, Vec::new());
        while done < needle.len() {
            if self.rng.random_ratio(1, 8) {
                done = 0;
                self.blocks.reverse();
            }
            let end = self.rng.random_range(done + 1..=needle.len());
            logits = self.step(&needle[done..end], done, COMPANY);
            done = end;
        }
        logits
    }
}

fn pools() -> Vec<rayon::ThreadPool> {
    (1..=3).map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).collect()
}

/// In how many of the mixes the logits of a needle of at most `longest` tokens are not, bit for bit,
/// those that it has alone.
fn differences(model: &Model, longest: usize, mixes: u32) -> u32 {
    let pools = pools();
    let differs = |seed: u32| {
        let mut rng = StdRng::seed_from_u64(u64::from(seed));
        // Half of them within one tile.
        let most = if rng.random_bool(0.5) { longest.min(60) } else { longest };
        let needle: Vec<u32> =
            (0..rng.random_range(2..=most)).map(|_| rng.random_range(0..61)).collect();
        let block_size = rng.random_range(1..24);
        let alone =
            pools[0].install(|| Mix::new(model, 16, StdRng::seed_from_u64(0)).step(&needle, 0, 0));
        let mixed = pools[seed as usize % pools.len()]
            .install(|| Mix::new(model, block_size, rng).run(&needle));
        alone.iter().zip(&mixed).any(|(a, b)| a.to_bits() != b.to_bits())
    };
    (0..mixes).map(|seed| u32::from(differs(seed))).sum()
}

#[test]
fn the_bits_of_a_requests_logits_do_not_depend_on_the_batch_chunks_blocks_or_threads() {
    let check = |dtype: Dtype| {
        // Mostly narrow models with long needles; the wide one is where Candle's own product differs.
        for (hidden, longest, mixes) in [
            (40, LONG, MIXES * 45 / 100),
            (40, LONGEST, MIXES * 5 / 100),
            (70, LONG, MIXES * 40 / 100),
            (576, 30, MIXES * 10 / 100),
        ] {
            let found = differences(&model(hidden, dtype), longest, mixes);
            assert_eq!(found, 0, "{dtype}, {hidden} wide");
        }
    };
    std::thread::scope(|scope| {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0] {
            scope.spawn(move || check(dtype));
        }
    });
}

/// The same model on Candle's own matrix product, which picks its kernel by the number of rows.
fn on_candles_product(mut model: Model) -> Model {
    let dense = |linear: &Linear| {
        let Linear::Packed(matrix) = linear else { return linear.clone() };
        let (n, k) = (matrix.n(), matrix.k());
        let mut rows = vec![0.0; n * k];
        for (row, values) in rows.chunks_exact_mut(k).enumerate() {
            matrix.copy_row(row, values);
        }
        Linear::Dense(Tensor::from_vec(rows, (n, k), &Device::Cpu).unwrap().t().unwrap())
    };
    for layer in &mut model.layers {
        for linear in [&mut layer.qkv, &mut layer.output, &mut layer.gate_up, &mut layer.down] {
            *linear = dense(linear);
        }
    }
    model
}

/// The inverse: what the test above looks for is there with other kernels, and is seen.
#[test]
fn a_product_that_depends_on_the_batch_is_found_out() {
    let found = differences(&on_candles_product(model(576, Dtype::F32)), 30, 20);
    assert!(found > 0, "Candle's product gave the same bits in all mixes");
}
