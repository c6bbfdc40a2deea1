use metron_engine::{
    Engine, Event, ObserverError, Planner, Refused, Scheduler, StepObserver, Submission, TextPiece,
    Wake,
};
use metron_trace::{Limits, Request, RequestId, Sampling, StepRecord, Token};

use super::*;
use crate::hub::{ConfigSource, ModelFiles, WeightFiles};
use crate::load::LoadOptions;
use crate::model::tests::{tiny, tiny_files};

const POOL: KvPool = KvPool { block_size: 16, num_blocks: 8 };

fn executor(model: LoadedModel, pool: KvPool) -> Result<CandleExecutor, LoadError> {
    CandleExecutor::new(Arc::new(model), pool, Some(2), TextStreams::default())
}

fn tiny_executor(pool: KvPool) -> Result<CandleExecutor, LoadError> {
    executor(tiny("tiny_llama", None), pool)
}

#[test]
fn waiting_with_nothing_in_flight_takes_until_the_instant_and_gives_nothing() {
    let mut executor = tiny_executor(POOL).unwrap();
    let until = executor.now() + Duration::from_millis(30);
    assert!(!executor.next_outcome(Some(until), &mut Outcome::default()).unwrap());
    assert!(executor.now() >= until);
    assert!(!executor.next_outcome(Some(Timestamp::ZERO), &mut Outcome::default()).unwrap());
}

/// Ctrl-C is seen while the next request is far away: the loop asks in between.
#[test]
fn a_long_wait_is_cut_into_short_ones() {
    let mut executor = tiny_executor(POOL).unwrap();
    let until = executor.now() + Duration::from_secs(3600);
    assert!(!executor.next_outcome(Some(until), &mut Outcome::default()).unwrap());
    assert!(executor.now() < until, "it has not slept for an hour");
}

#[test]
fn a_restart_sets_the_clock_back() {
    let mut executor = tiny_executor(POOL).unwrap();
    let until = executor.now() + Duration::from_millis(30);
    executor.next_outcome(Some(until), &mut Outcome::default()).unwrap();
    executor.restart();
    assert!(executor.now() < until);
}

#[test]
fn a_pool_that_does_not_fit_is_refused_with_what_fits() {
    let huge = KvPool { block_size: 1 << 20, num_blocks: 1 << 20 };
    match tiny_executor(huge).map(|_| ()).unwrap_err() {
        LoadError::KvPool { num_blocks, bytes, free, most_blocks } => {
            // Two layers of keys and values, two heads of 16 floats each.
            assert_eq!(bytes, (1 << 40) * 2 * 2 * 2 * 16 * 4);
            assert_eq!(most_blocks, free / (bytes / u64::from(num_blocks)));
        }
        other => panic!("{other}"),
    }
    let none = KvPool { block_size: 0, num_blocks: 8 };
    assert!(matches!(tiny_executor(none), Err(LoadError::EmptyKvPool)));
}

/// Without the check an allocation fails, which ends the process.
#[test]
fn a_model_that_is_larger_than_memory_is_refused_before_it_is_loaded() {
    let mut config = crate::load::read_config(&tiny_files("tiny_llama")).unwrap();
    (config.num_hidden_layers, config.intermediate_size) = (1000, 1 << 24);
    let config = ConfigSource::Card(toml::Table::try_from(config).unwrap());
    let files = ModelFiles { config, weights: WeightFiles::Dummy, ..tiny_files("tiny_llama") };
    match LoadedModel::load(&files, &LoadOptions::default()).unwrap_err() {
        // Feed-forward layers of 3 matrices of 32 by 2^24 in f32, and the rest of the model.
        LoadError::TooLarge { bytes, free, .. } => {
            assert!(bytes > 1000 * 3 * (32 << 24) * 4 && bytes > free);
        }
        other => panic!("{other}"),
    }
}

/// Runs the one request there is.
struct Only(Option<RequestId>);

impl Scheduler for Only {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(view) => self.0 = Some(view.id()),
            Event::Finished(_) | Event::Aborted(_) => self.0 = None,
            Event::Stepped(_) => {}
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        if let Some(id) = self.0 {
            // It is admitted once.
            let _ = plan.admit(id, 0, 0);
            plan.run(id, u32::MAX)?;
        }
        Ok(Wake::OnEvent)
    }
}

#[derive(Default)]
struct Seen {
    ids: Vec<u32>,
    steps: Vec<StepRecord>,
}

impl StepObserver for Seen {
    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        _text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.ids.extend(tokens.iter().filter_map(|token| token.id));
        self.steps.push(step.clone());
        Ok(())
    }
}

/// What a request of at most 8 tokens generates.
fn generate(executor: &mut CandleExecutor, prompt: Vec<u32>) -> Result<Seen, String> {
    let request = Request {
        id: RequestId(0),
        arrived_at: Timestamp::ZERO,
        prompt_tokens: 3,
        output_tokens: None,
        max_tokens: 8,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling: Sampling::GREEDY,
    };
    let KvPool { block_size, num_blocks } = POOL;
    let limits = Limits { block_size, num_blocks, max_num_seqs: 1, max_model_len: 64 };
    let engine = Engine { policy: "only", limits, max_concurrency: None, cost_model: None };
    let mut seen = Seen::default();
    let submissions = [Submission { request, prompt }];
    let end = engine.run(executor, &mut Only(None), submissions, &mut seen);
    end.map(|_| seen).map_err(|error| error.to_string())
}

/// Where the files that `change` makes of the tiny model's name the fourth token of a text as its
/// end, the text ends there.
fn check_ends(change: impl FnOnce(&mut ModelFiles, u32)) {
    let whole = generate(&mut tiny_executor(POOL).unwrap(), vec![7, 8, 9]).unwrap();
    assert_eq!(whole.ids.len(), 8);
    let mut files = tiny_files("tiny_llama");
    change(&mut files, whole.ids[3]);
    let model = LoadedModel::load(&files, &LoadOptions::default()).unwrap();
    let ended = generate(&mut executor(model, POOL).unwrap(), vec![7, 8, 9]).unwrap();
    let first = whole.ids.iter().position(|id| *id == whole.ids[3]).unwrap();
    assert_eq!(ended.ids, whole.ids[..=first]);
}

#[test]
fn an_end_of_sequence_token_ends_the_sequence() {
    check_ends(|files, end| {
        let config = crate::load::read_config(files).unwrap();
        let mut table = toml::Table::try_from(config).unwrap();
        table.insert("eos_token_id".to_owned(), vec![127, end].into());
        files.config = ConfigSource::Card(table);
    });
}

/// As the files of many instruction-tuned models do: the end of a turn is only in the second one.
#[test]
fn an_end_that_only_the_generation_config_names_ends_the_sequence() {
    let directory = tempfile::tempdir().unwrap();
    check_ends(|files, end| {
        let ConfigSource::HfConfig(config) = &files.config else { panic!("it has a config.json") };
        let copy = directory.path().join("config.json");
        std::fs::copy(config, &copy).unwrap();
        let generation = format!(r#"{{"eos_token_id": [127, {end}]}}"#);
        std::fs::write(copy.with_file_name("generation_config.json"), generation).unwrap();
        files.config = ConfigSource::HfConfig(copy);
    });
}

#[test]
fn sequences_beyond_the_models_context_are_refused() {
    let load = |len| {
        let options = LoadOptions { max_model_len: Some(len), ..LoadOptions::default() };
        LoadedModel::load(&tiny_files("tiny_llama"), &options)
    };
    let context = tiny("tiny_llama", None).config().max_position_embeddings as u32;
    assert!(load(context).is_ok());
    let error = load(context + 1).unwrap_err().to_string();
    assert!(error.contains(&format!("context is {context}")), "{error}");
}

#[test]
fn phases_lie_within_their_step() {
    let seen = generate(&mut tiny_executor(POOL).unwrap(), vec![7, 8, 9]).unwrap();
    for step in seen.steps {
        let phases = step.phases;
        assert_eq!((phases.transfer, phases.detokenise), (None, None));
        let parts = [phases.prepare, phases.forward, phases.transfer_back, phases.sample];
        let together: Duration = parts.into_iter().map(Option::unwrap).sum();
        assert!(together <= step.ended_at.since(step.started_at));
    }
}

/// Every layer's operators, in order and within the step's forward pass; and the same tokens.
#[test]
fn timed_operators_lie_within_their_step_and_change_nothing() {
    let plain = generate(&mut tiny_executor(POOL).unwrap(), vec![7, 8, 9]).unwrap();
    let mut executor = tiny_executor(POOL).unwrap();
    executor.time_operators(true);
    let timed = generate(&mut executor, vec![7, 8, 9]).unwrap();
    assert_eq!(plain.ids, timed.ids);
    assert!(plain.steps.iter().all(|step| step.operators.is_empty()));
    for step in &timed.steps {
        let mut at = step.started_at;
        for span in &step.operators {
            assert!(span.started_at >= at, "{span:?} begins before {at}");
            at = span.started_at + span.took;
        }
        assert!(at <= step.ended_at);
        let downs = step.operators.iter().filter(|span| span.operator == Operator::Down);
        assert_eq!(downs.map(|span| span.layer).collect::<Vec<_>>(), [Some(0), Some(1)]);
    }
}

#[test]
fn a_token_that_the_model_does_not_know_ends_the_run_with_an_error() {
    let error = generate(&mut tiny_executor(POOL).unwrap(), vec![7, 128, 9]).err().unwrap();
    assert!(error.contains("token id 128; the model knows ids below 128"), "{error}");
}

#[test]
fn the_header_says_what_computes() {
    let info = tiny_executor(POOL).unwrap().info();
    assert_eq!(
        (info.device.as_str(), info.dtype.as_deref(), info.threads),
        ("cpu", Some("f32"), Some(2))
    );
}
