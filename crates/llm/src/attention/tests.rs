use metron_engine::BlockId;
use metron_trace::RequestId;
use proptest::prelude::*;

use super::*;
use crate::kv_cache::KvShape;
use crate::plan::{Capacity, Share};

const HEADS: usize = 6;

/// Numbers that look random.
fn values(len: usize, salt: usize) -> Vec<f32> {
    (0..len).map(|i| ((i + salt) * 7919 % 1013) as f32 / 250.0 - 2.0).collect()
}

/// A layer whose every place is filled, and a plan of one sequence on scattered blocks.
fn case(context: u32, tokens: usize, shape: KvShape) -> (KvLayer, ForwardPlan) {
    let mut layer = KvLayer::new(shape);
    layer.keys = values(shape.layer_len(), 1);
    layer.values = values(shape.layer_len(), 2);
    let blocks: Vec<BlockId> = (0..shape.num_blocks as u32).rev().map(BlockId).collect();
    let capacity = Capacity {
        vocab_size: 1,
        positions: shape.num_blocks * shape.block_size,
        block_size: shape.block_size,
        num_blocks: shape.num_blocks,
    };
    let (request, token_ids) = (RequestId(0), vec![0; tokens]);
    let share = Share { request, token_ids: &token_ids, context, blocks: &blocks, samples: true };
    let mut plan = ForwardPlan::default();
    plan.refill([share], &capacity).unwrap();
    (layer, plan)
}

/// The plain formula, in f64.
fn plain(plan: &ForwardPlan, queries: &[f32], layer: &KvLayer, row: usize) -> Vec<f64> {
    let KvShape { block_size, kv_heads, head_dim, .. } = layer.shape;
    let (token, head) = (row / HEADS, row % HEADS);
    let query = &queries[row * head_dim..][..head_dim];
    let at = |position: usize| {
        let block = plan.block_ids[position / block_size] as usize;
        (layer.shape.head_at(block, head / (HEADS / kv_heads)), position % block_size)
    };
    let positions = plan.positions[token] as usize + 1;
    let score = |position: usize| {
        let (start, offset) = at(position);
        let key = (0..head_dim).map(|dim| layer.keys[start + dim * block_size + offset]);
        let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(k)).sum();
        (dot / (head_dim as f64).sqrt()).exp()
    };
    let weights: Vec<f64> = (0..positions).map(score).collect();
    let total: f64 = weights.iter().sum();
    let value = |position: usize, dim: usize| {
        let (start, offset) = at(position);
        f64::from(layer.values[start + offset * head_dim + dim])
    };
    (0..head_dim)
        .map(|dim| weights.iter().enumerate().map(|(p, w)| w * value(p, dim)).sum::<f64>())
        .map(|sum| sum / total)
        .collect()
}

/// Runs all tasks on lanes of one kind.
///
/// # Safety
/// The machine has the lanes' instructions.
unsafe fn attend_with<L: Lanes>(plan: &ForwardPlan, queries: &[f32], layer: &KvLayer) -> Vec<f32> {
    let mut output = vec![f32::NAN; queries.len()];
    let out = Output(output.as_mut_ptr());
    for task in Attention::new(plan, queries, layer, HEADS).tasks_of(&plan.sequences[0], &out) {
        // SAFETY: as the caller's.
        task.run(|task, span, rows| unsafe { attend_on::<L>(task, span, rows) });
    }
    output
}

/// On each kind of lanes that this machine has.
fn on_every_kind_of_lanes(plan: &ForwardPlan, queries: &[f32], layer: &KvLayer) -> Vec<Vec<f32>> {
    // SAFETY: portable, and the machine is asked for the others.
    unsafe {
        let mut outputs = vec![attend_with::<[f32; WIDTH]>(plan, queries, layer)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if crate::simd::has_avx2() {
                outputs.push(attend_with::<crate::simd::Avx2>(plan, queries, layer));
            }
            if has!("avx512f") {
                outputs.push(attend_with::<crate::simd::Avx512>(plan, queries, layer));
            }
        }
        outputs
    }
}

fn shape(positions: usize, block_size: usize, head_dim: usize) -> KvShape {
    KvShape { num_blocks: positions.div_ceil(block_size), block_size, kv_heads: 2, head_dim }
}

/// In two passes, as where operators are timed.
fn attend(plan: &ForwardPlan, queries: &[f32], layer: &KvLayer) -> Vec<f32> {
    let mut attention = Attention::new(plan, queries, layer, HEADS);
    attention.run(&[SequenceKind::Decode]);
    attention.run(&[SequenceKind::Prefill]);
    attention.into_output()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn attention_is_the_plain_formula_on_every_kind_of_lanes(
        context in prop_oneof![0_u32..70, 2 * SPAN as u32 - 30..2 * SPAN as u32 + 10],
        tokens in 1_usize..25,
        block_size in prop::sample::select(vec![1_usize, 5, 16, 20, 32]),
        head_dim in prop::sample::select(vec![8_usize, 20, 64, 80]),
    ) {
        let shape = shape(context as usize + tokens, block_size, head_dim);
        let (layer, plan) = case(context, tokens, shape);
        let queries = values(tokens * HEADS * head_dim, 3);
        let mut outputs = on_every_kind_of_lanes(&plan, &queries, &layer);
        outputs.push(attend(&plan, &queries, &layer));
        for row in 0..tokens * HEADS {
            let want = plain(&plan, &queries, &layer, row);
            for output in &outputs {
                let got = &output[row * head_dim..][..head_dim];
                for (got, want) in got.iter().zip(&want) {
                    prop_assert!((f64::from(*got) - want).abs() < 2e-5, "{got} for {want}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_token_has_the_same_bits_in_a_chunk_and_alone_on_any_number_of_threads(
        context in prop_oneof![0_u32..200, SPAN as u32 - 30..SPAN as u32 + 10, 1_000_u32..1_100],
        tokens in 1_usize..40,
        block_size in prop::sample::select(vec![5_usize, 16, 32]),
        threads in 1_usize..5,
    ) {
        let head_dim = 16;
        let shape = shape(context as usize + tokens, block_size, head_dim);
        let (layer, plan) = case(context, tokens, shape);
        let queries = values(tokens * HEADS * head_dim, 3);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let chunk = pool.install(|| attend(&plan, &queries, &layer));
        let of_tokens = queries.chunks_exact(HEADS * head_dim).zip(chunk.chunks_exact(HEADS * head_dim));
        for (token, (queries, chunk)) in of_tokens.enumerate() {
            let (layer, plan) = case(context + token as u32, 1, shape);
            let alone = attend(&plan, queries, &layer);
            let bits = |output: &[f32]| output.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&alone), bits(chunk), "token {}", token);
        }
    }
}

/// Else a broken model would answer with an average of what it saw, and nobody would know.
#[test]
fn a_score_that_is_no_number_breaks_its_rows_output_and_no_other() {
    let numbers = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    // Within a span, and over several.
    for (broken, context) in numbers.into_iter().flat_map(|x| [(x, 70), (x, 2 * SPAN as u32)]) {
        let shape = shape(context as usize + 3, 16, 16);
        let (layer, plan) = case(context, 3, shape);
        let mut queries = values(3 * HEADS * shape.head_dim, 3);
        // The second token's first head.
        let row = HEADS;
        queries[row * shape.head_dim] = broken;
        for output in on_every_kind_of_lanes(&plan, &queries, &layer) {
            for (at, head) in output.chunks_exact(shape.head_dim).enumerate() {
                assert_eq!(head.iter().all(|x| x.is_nan()), at == row, "head {at}, {broken}");
            }
        }
    }
}
