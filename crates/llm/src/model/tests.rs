use std::path::{Path, PathBuf};

use metron_engine::BlockId;
use metron_trace::RequestId;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::hub::{ConfigSource, ModelFiles, TokenizerSource, WeightFiles};
use crate::load::{DeviceChoice, LoadOptions, LoadedModel};
use crate::plan::Share;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The files of a tiny model of scripts/make-reference.py.
pub(crate) fn tiny_files(name: &str) -> ModelFiles {
    let directory = data(name);
    let names = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut shards: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    shards.sort();
    ModelFiles {
        id: name.to_owned(),
        source: name.to_owned(),
        format: "safetensors".to_owned(),
        config: ConfigSource::HfConfig(directory.join("config.json")),
        weights: WeightFiles::Safetensors(shards),
        tokenizer: TokenizerSource::None,
        chat_template: None,
        sha256: None,
    }
}

pub(crate) fn tiny(name: &str, dtype: Option<Dtype>) -> LoadedModel {
    let options = LoadOptions { device: DeviceChoice::Cpu, dtype, ..LoadOptions::default() };
    LoadedModel::load(&tiny_files(name), &options).unwrap()
}

/// What transformers computed for it.
#[derive(Deserialize)]
struct Reference {
    ids: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
}

impl Reference {
    fn of(name: &str) -> Self {
        serde_json::from_slice(&std::fs::read(data(&format!("{name}.json"))).unwrap()).unwrap()
    }
}

/// One sequence that is run in chunks, on blocks scattered over the pool.
struct Chunked<'a> {
    model: &'a Model,
    cache: KvCache,
    capacity: Capacity,
    blocks: Vec<BlockId>,
    plan: ForwardPlan,
}

impl<'a> Chunked<'a> {
    fn new(model: &'a Model, num_blocks: usize, block_size: usize) -> Self {
        let cache = model.new_cache(num_blocks, block_size).unwrap();
        // Odd blocks backwards, then the even ones.
        let odd = (0..num_blocks as u32).rev().filter(|block| block % 2 == 1);
        let blocks = odd.chain((0..num_blocks as u32).step_by(2)).map(BlockId).collect();
        let capacity = model.capacity(num_blocks, block_size);
        Self { model, cache, capacity, blocks, plan: ForwardPlan::default() }
    }

    /// Logits of the chunk's last token.
    fn run(&mut self, token_ids: &[u32], context: u32) -> Vec<f32> {
        let share = Share {
            request: RequestId(0),
            token_ids,
            context,
            blocks: &self.blocks,
            samples: true,
        };
        self.plan.refill([share], &self.capacity).unwrap();
        let logits =
            self.model.forward(&self.plan, &mut self.cache, &mut OperatorClock::off()).unwrap();
        logits.unwrap().to_vec2().unwrap().remove(0)
    }
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let error = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error <= tolerance, "the greatest difference is {error}");
}

/// Runs the ids of a reference in chunks that end where it has logits, and compares these.
fn check(name: &str, dtype: Option<Dtype>, tolerance: f32) {
    let loaded = tiny(name, dtype);
    let reference = Reference::of(name);
    for block_size in [16, 5] {
        let mut sequence = Chunked::new(&loaded.model, 96_usize.div_ceil(block_size), block_size);
        let mut context = 0;
        for (&position, want) in reference.positions.iter().zip(&reference.logits) {
            let got = sequence.run(&reference.ids[context..=position], context as u32);
            assert_close(&got, want, tolerance);
            context = position + 1;
        }
    }
}

#[test]
fn llama_with_grouped_queries_and_stretched_rotary_embedding_computes_what_transformers_does() {
    check("tiny_llama", None, 1e-4);
}

#[test]
fn qwen2_with_biases_in_f16_shards_computes_what_transformers_does() {
    check("tiny_qwen2", None, 1e-4);
    check("tiny_qwen2", Some(Dtype::F32), 1e-4);
}

#[test]
fn mistral_computes_what_transformers_does() {
    check("tiny_mistral", Some(Dtype::F32), 1e-4);
}

#[test]
fn mistral_in_bf16_is_nearer_to_f32_than_transformers_in_bf16_is() {
    // Of logits up to 4.2. It rounds what leaves a product too (torch 2.13).
    const OF_TRANSFORMERS: f32 = 0.095;
    check("tiny_mistral", None, OF_TRANSFORMERS);
}

#[test]
fn eight_bit_weights_stay_near() {
    // Logits are up to 8; a step of 8 bits is a 254th of a block's range.
    check("tiny_llama", Some(Dtype::Q8_0), 0.35);
}

#[test]
fn the_default_holds_a_files_weights_exactly() {
    assert_eq!(tiny("tiny_llama", None).dtype, Dtype::F32);
    assert_eq!(tiny("tiny_qwen2", None).dtype, Dtype::F16);
    assert_eq!(tiny("tiny_mistral", None).dtype, Dtype::Bf16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Chunks change no bit: a sum's order does not depend on them.
    #[test]
    fn chunks_and_blocks_do_not_change_a_bit(
        lengths in proptest::collection::vec(1_usize..40, 1..8),
        block_size in 1_usize..40,
    ) {
        let loaded = tiny("tiny_llama", None);
        let ids = Reference::of("tiny_llama").ids;
        let whole = Chunked::new(&loaded.model, 6, 16).run(&ids, 0);
        let mut chunked = Chunked::new(&loaded.model, 96_usize.div_ceil(block_size), block_size);
        let mut context = 0;
        let mut last = Vec::new();
        for length in lengths.into_iter().chain([ids.len()]) {
            let end = ids.len().min(context + length);
            if end > context {
                last = chunked.run(&ids[context..end], context as u32);
            }
            context = end;
        }
        prop_assert_eq!(last, whole);
    }
}
