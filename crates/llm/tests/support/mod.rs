//! Models, and requests through the engine's own loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metron_engine::{
    Engine, Event, ObserverError, Planner, Refused, Scheduler, StepObserver, Submission, TextPiece,
    Wake,
};
use metron_llm::hub::{
    ConfigSource, HubEnvironment, ModelFiles, ModelName, ResolveOptions, Silent, TokenizerSource,
    WeightFiles, resolve,
};
use metron_llm::{CandleExecutor, Dtype, KvPool, LoadOptions, LoadedModel, TextStreams};
use metron_trace::{
    Limits, PreemptionCause, Request, RequestId, Sampling, StepRecord, Timestamp, Token,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A file of the tests' data.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A tiny model with the files in its directory.
pub(crate) fn tiny(name: &str, dtype: Option<Dtype>) -> LoadedModel {
    let model: ModelName =
        data(name).to_str().expect("a path in UTF-8").parse().expect("a directory");
    load(&files_of(&model).expect("it is on disk"), dtype)
}

/// SmolLM2 with its real weights. Without any source of them a test says so and passes, unless
/// `METRON_REQUIRE_WEIGHTS=1`.
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
pub(crate) fn smollm2() -> Option<ModelFiles> {
    let model: ModelName = "smollm2-135m-instruct".parse().expect("a card");
    match files_of(&model) {
        Ok(files) => Some(files),
        Err(error) => {
            let required = std::env::var_os("METRON_REQUIRE_WEIGHTS").is_some_and(|v| v == "1");
            assert!(!required, "weights are required: {error}");
            println!("not tested, for want of weights: {error}");
            None
        }
    }
}

fn files_of(model: &ModelName) -> Result<ModelFiles, metron_llm::hub::HubError> {
    let options = ResolveOptions {
        load_format: metron_llm::hub::LoadFormat::Auto,
        environment: HubEnvironment::from_env(),
    };
    resolve(model, &options, &mut Silent)
}

pub(crate) fn load(files: &ModelFiles, dtype: Option<Dtype>) -> LoadedModel {
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    LoadedModel::load(files, &options).expect("the model is whole")
}

/// Seeded random weights in a shape that is wide enough for its kernels to have many tiles, and not
/// in whole ones.
pub(crate) fn seeded(seed: u64, dtype: Dtype) -> LoadedModel {
    let shape = r#"
        architectures = ["LlamaForCausalLM"]
        hidden_size = 584
        intermediate_size = 300
        num_hidden_layers = 2
        num_attention_heads = 6
        num_key_value_heads = 2
        head_dim = 40
        vocab_size = 500
        max_position_embeddings = 512
        rms_norm_eps = 1e-5
        tie_word_embeddings = true
    "#;
    let files = ModelFiles {
        id: "seeded".to_owned(),
        source: "the test".to_owned(),
        format: "dummy".to_owned(),
        config: ConfigSource::Card(shape.parse().expect("a table")),
        weights: WeightFiles::Dummy,
        tokenizer: TokenizerSource::None,
        chat_template: None,
        sha256: None,
    };
    let options = LoadOptions { seed, dtype: Some(dtype), ..LoadOptions::default() };
    LoadedModel::load(&files, &options).expect("the shape is fine")
}

/// How requests are run: the same requests must give the same tokens under any of these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) block_size: u32,
    pub(crate) num_blocks: u32,
    pub(crate) threads: usize,
    /// Chunks, batches and preemptions are drawn from this.
    pub(crate) seed: u64,
}

/// Runs requests (prompt, output tokens), and returns each one's token ids.
pub(crate) fn run(
    model: &Arc<LoadedModel>,
    requests: &[(Vec<u32>, u32)],
    setting: Setting,
) -> Vec<Vec<u32>> {
    let Setting { block_size, num_blocks, threads, seed } = setting;
    let longest = requests.iter().map(|(prompt, output)| prompt.len() as u32 + output).max();
    let limits = Limits {
        block_size,
        num_blocks,
        max_num_seqs: 64,
        max_model_len: longest.expect("there are requests"),
    };
    let submissions = requests.iter().zip(0..).map(|((prompt, output), id)| Submission {
        request: Request {
            id: RequestId(id),
            arrived_at: Timestamp::ZERO,
            prompt_tokens: prompt.len() as u32,
            output_tokens: Some(*output),
            max_tokens: *output,
            class: 0,
            priority: 0,
            deadlines: None,
            sampling: Sampling::GREEDY,
        },
        prompt: prompt.clone(),
    });
    let pool = KvPool { block_size, num_blocks };
    let mut executor =
        CandleExecutor::new(Arc::clone(model), pool, Some(threads), TextStreams::default())
            .expect("the pool fits");
    let engine = Engine { policy: "random", limits, max_concurrency: None, cost_model: None };
    let mut policy = Random { rng: StdRng::seed_from_u64(seed), requests: Vec::new() };
    let mut outputs = Outputs(vec![Vec::new(); requests.len()]);
    engine
        .run(&mut executor, &mut policy, submissions, &mut outputs)
        .expect("the run comes to its end");
    outputs.0
}

/// Runs anything that is allowed: chunks of any size, any mix, and a preemption now and then.
struct Random {
    rng: StdRng,
    requests: Vec<RequestId>,
}

impl Scheduler for Random {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(request) => self.requests.push(request.id()),
            Event::Finished(id) | Event::Aborted(id) => self.requests.retain(|r| *r != id),
            Event::Stepped(_) => {}
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        for &id in &self.requests {
            if self.rng.random_bool(0.02) {
                let _ = plan.preempt(id, PreemptionCause::Policy);
            }
            let length = plan.limits().max_model_len;
            let _ = plan.admit(id, length, 0);
            if self.rng.random_bool(0.8) {
                let chunk =
                    if self.rng.random_bool(0.3) { u32::MAX } else { self.rng.random_range(1..40) };
                let _ = plan.run(id, chunk);
            }
        }
        if plan.num_seqs() == 0 {
            // Somebody has to: the oldest that holds blocks.
            for &id in &self.requests {
                if plan.run(id, 1).is_ok() {
                    break;
                }
            }
        }
        Ok(Wake::OnEvent)
    }
}

struct Outputs(Vec<Vec<u32>>);

impl StepObserver for Outputs {
    fn stepped(
        &mut self,
        _: &StepRecord,
        tokens: &[Token],
        _: &[TextPiece],
    ) -> Result<(), ObserverError> {
        for token in tokens {
            self.0[token.request.index()].extend(token.id);
        }
        Ok(())
    }
}
