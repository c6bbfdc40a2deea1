use std::sync::Arc;

use metron_trace::Operator;

use super::*;
use crate::executor::KvPool;
use crate::model::tests::tiny;
use crate::text::TextStreams;

fn executor() -> CandleExecutor {
    let pool = KvPool { block_size: 16, num_blocks: 12 };
    let model = Arc::new(tiny("tiny_llama", None));
    let mut executor = CandleExecutor::new(model, pool, Some(2), TextStreams::default()).unwrap();
    executor.fill_cache().unwrap();
    executor
}

fn shape(text: &str) -> BatchShape {
    text.parse().unwrap()
}

#[test]
fn a_profile_has_every_operator_that_its_shape_asks_for() {
    let mut executor = executor();
    let operators = |executor: &mut CandleExecutor, text| -> Vec<Operator> {
        let profile = executor.profile(shape(text), 3).unwrap();
        assert_eq!((profile.steps.len(), profile.traced_steps.len()), (3, 3));
        let traced = profile.traced_steps.iter().max().unwrap().as_secs_f64();
        let together: f64 = profile.operators.iter().map(|operator| operator.seconds).sum();
        assert!(together <= traced, "{together} s of {traced} s");
        profile.operators.iter().map(|operator| operator.operator).collect()
    };
    // On the CPU logits are read where they lie.
    let without = |left_out: &[Operator]| -> Vec<Operator> {
        let left_out = [left_out, &[Operator::TransferBack]].concat();
        Operator::ALL.into_iter().filter(|operator| !left_out.contains(operator)).collect()
    };
    assert_eq!(operators(&mut executor, "hybrid:2x20+5"), without(&[]));
    assert_eq!(operators(&mut executor, "decode:2x20"), without(&[Operator::AttentionPrefill]));
    assert_eq!(operators(&mut executor, "prefill:20"), without(&[Operator::AttentionDecode]));
}

#[test]
fn the_projections_take_two_operations_a_weight_and_token() {
    let executor = executor();
    let config = executor.model.config();
    let work = StepWork::new(
        config,
        &shape("hybrid:2x20+5"),
        crate::Dtype::F32,
        &candle_core::Device::Cpu,
    );
    let projections = [Operator::Qkv, Operator::Output, Operator::GateUp, Operator::Down];
    let (flops, bytes) = projections
        .map(|operator| work.of(operator))
        .into_iter()
        .fold((0.0, 0.0), |(flops, bytes), (more_flops, more_bytes)| {
            (flops + more_flops, bytes + more_bytes)
        });
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) =
        (config.num_attention_heads * config.head_width(), config.kv_heads() * config.head_width());
    let of_layer = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * wide;
    let weights = (config.num_hidden_layers * of_layer) as f64;
    assert!((flops - 2.0 * 7.0 * weights).abs() < 1e-6 * flops);
    assert!(bytes > 4.0 * weights);
}

#[test]
fn attention_reads_the_cache_once_and_sees_what_is_before_it() {
    let executor = executor();
    let config = executor.model.config();
    let of = |text| {
        let work =
            StepWork::new(config, &shape(text), crate::Dtype::F32, &candle_core::Device::Cpu);
        (work.of(Operator::AttentionPrefill).0, work.of(Operator::AttentionDecode).0)
    };
    // 3 tokens behind 4 positions see 5 + 6 + 7 of them, as three decodes at those places do.
    let decodes: f64 =
        ["decode:1x4", "decode:1x5", "decode:1x6"].map(|text| of(text).1).iter().sum();
    assert!((of("prefill:3@4").0 - decodes).abs() < 1e-9 * decodes);
}

#[test]
fn a_shape_beyond_the_model_or_its_cache_is_refused_by_name() {
    let mut executor = executor();
    let refused = |executor: &mut CandleExecutor, text| {
        executor.profile(shape(text), 1).unwrap_err().to_string()
    };
    let error = refused(&mut executor, "decode:20x20");
    assert!(error.starts_with("the shape decode:20x20 can't run: "), "{error}");
    let error = refused(&mut executor, "prefill:100000");
    assert!(error.contains("reaches position 99999"), "{error}");
}

#[test]
fn the_median_of_an_even_number_of_steps_lies_between_the_middle_two() {
    let of = |millis: &[u64]| median(millis.iter().copied().map(Duration::from_millis).collect());
    assert_eq!(of(&[9]), Duration::from_millis(9));
    assert_eq!(of(&[9, 1, 4]), Duration::from_millis(4));
    assert_eq!(of(&[9, 1, 4, 6]), Duration::from_millis(5));
}

#[test]
fn roofs_are_measured() {
    let roofs = measure_roofs(&executor()).unwrap();
    assert!(roofs.bytes_per_second() > 0.0 && roofs.flops_per_second > 0.0);
    // A product that is all bytes takes as long as its bytes.
    let second = roofs.least_seconds(0.0, roofs.bytes_per_second());
    assert!((second - 1.0).abs() < 1e-9);
}
