//! Right answers: the same tokens as another implementation, whatever the batch they ran in.

mod support;

use std::sync::Arc;

use metron_llm::Dtype;
use proptest::prelude::*;
use serde::Deserialize;
use support::{Setting, data, load, run, seeded, smollm2};

/// Where the two greatest logits differ by more than this, the greedy token is certain.
const MARGIN: f64 = 0.01;

/// The same in bf16, which keeps 8 bits of what enters a product.
const MARGIN_IN_BF16: f64 = 0.1;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<ReferencePrompt>,
}

/// A prompt with what Hugging Face transformers generated in f32 (scripts/make-reference.py).
#[derive(Deserialize)]
struct ReferencePrompt {
    text: String,
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
    margins: Vec<f64>,
    second_ids: Vec<u32>,
}

impl ReferencePrompt {
    /// Compares up to the first token that differs, which is allowed at a margin of `certain` and
    /// below; returns the number of tokens before it.
    fn check(&self, got: &[u32], certain: f64) -> usize {
        assert_eq!(got.len(), self.output_ids.len(), "of {:?}", self.text);
        for (at, &id) in got.iter().enumerate() {
            if id == self.output_ids[at] {
                continue;
            }
            let margin = self.margins[at];
            assert!(margin <= certain, "token {at} of {:?} at a margin of {margin}", self.text);
            assert_eq!(id, self.second_ids[at], "token {at} of {:?}: the second best", self.text);
            return at;
        }
        got.len()
    }
}

fn reference() -> Vec<ReferencePrompt> {
    let text = std::fs::read_to_string(data("smollm2_reference.json")).expect("it is committed");
    serde_json::from_str::<Reference>(&text).expect("it is JSON").prompts
}

/// The tokens that could be compared with the reference's; `None` for want of weights.
fn compared(dtype: Option<Dtype>, certain: f64) -> Option<usize> {
    let model = Arc::new(load(&smollm2()?, dtype));
    let prompts = reference();
    let requests: Vec<(Vec<u32>, u32)> =
        prompts.iter().map(|p| (p.prompt_ids.clone(), p.output_ids.len() as u32)).collect();
    let setting = Setting { block_size: 16, num_blocks: 200, threads: 2, seed: 1 };
    let outputs = run(&model, &requests, setting);
    Some(prompts.iter().zip(&outputs).map(|(prompt, got)| prompt.check(got, certain)).sum())
}

#[test]
fn smollm2_generates_what_transformers_generates() {
    let Some(tokens) = compared(None, MARGIN) else { return };
    assert!(tokens >= 500, "only {tokens} tokens could be compared");
}

/// Another token than in f32 is only ever picked where f32 itself was in doubt.
#[test]
fn smollm2_in_bf16_departs_from_f32_only_where_two_tokens_are_near() {
    let Some(tokens) = compared(Some(Dtype::Bf16), MARGIN_IN_BF16) else { return };
    assert!(tokens >= 500, "only {tokens} tokens could be compared");
}

#[test]
fn smollm2s_tokenizer_gives_the_references_ids() {
    let Some(files) = smollm2() else { return };
    let tokenizer =
        metron_llm::Tokenizer::open(&files).expect("it is whole").expect("there is one");
    for prompt in reference() {
        assert_eq!(tokenizer.encode(&prompt.text).expect("it is text"), prompt.prompt_ids);
    }
}

/// In 8 bits the answer may differ, but not from the start.
#[test]
fn smollm2_in_8_bits_begins_as_in_32() {
    let Some(files) = smollm2() else { return };
    let model = Arc::new(load(&files, Some(Dtype::Q8_0)));
    let prompt = &reference()[0];
    let requests = [(prompt.prompt_ids.clone(), 4)];
    let setting = Setting { block_size: 16, num_blocks: 16, threads: 2, seed: 1 };
    assert_eq!(run(&model, &requests, setting)[0], prompt.output_ids[..4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the policy, the batch, the chunks, the block size, preemptions and threads.
    #[test]
    fn a_requests_tokens_do_not_depend_on_how_it_was_run(
        lengths in proptest::collection::vec((1_usize..120, 1_u32..12), 1..7),
        block_size in prop::sample::select(vec![1_u32, 4, 16, 32, 48]),
        threads in 1_usize..4,
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::Bf16, Dtype::Q8_0]),
        seed in any::<u64>(),
    ) {
        let model = Arc::new(seeded(7, dtype));
        let requests: Vec<(Vec<u32>, u32)> = lengths
            .iter()
            .enumerate()
            .map(|(i, (prompt, output))| {
                let ids = (0..*prompt).map(|at| ((at * 37 + i * 101 + 5) % 500) as u32);
                (ids.collect(), *output)
            })
            .collect();
        // Room for three of the longest: the others wait, or lose their blocks.
        let longest = requests.iter().map(|(p, n)| p.len() as u32 + n).max().unwrap_or(1);
        let num_blocks = 3 * longest.div_ceil(block_size);
        let setting = Setting { block_size, num_blocks, threads, seed };
        let mixed = run(&model, &requests, setting);
        let alone = Setting { block_size: 16, num_blocks: 64, threads: 1, seed: 0 };
        for (request, mixed) in requests.iter().zip(&mixed) {
            let alone = run(&model, std::slice::from_ref(request), alone);
            prop_assert_eq!(&alone[0], mixed);
        }
    }
}
