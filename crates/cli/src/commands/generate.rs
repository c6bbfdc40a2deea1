use metron_engine::{
    Engine, Event, ObserverError, Planner, Refused, RunEnd, Scheduler, StepObserver, Submission,
    TextPiece, Wake,
};
use metron_lab::Rig;
use metron_llm::ChatTemplate;
use metron_metrics::{Latencies, Timeline};
use metron_trace::{EndStatus, Request, RequestId, Sampling, StepRecord, Timestamp, Token};

use crate::args::GenerateArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::{EngineSection, Experiment, ModelSection};
use crate::model_rig::ModelOnDisk;
use crate::prepare::limits;
use crate::print;
use crate::progress::StopSignal;

/// `metron generate`: one request through the same loop, its text as it comes.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let sampling = sampling(args)?;
    let quiet = args.quiet || args.json;
    let mut section = ModelSection::default();
    section.overlay(&args.model);
    let mut engine = EngineSection::default();
    engine.overlay(&args.engine)?;
    let experiment = Experiment { model: section, engine, ..Experiment::default() };
    let model = ModelOnDisk::find(&experiment.model, quiet)?;
    if !quiet {
        print::note(&model.files.sentence());
    }
    let prompt = prompt_ids(&model, args)?;
    let needed = (prompt.len() as u32).saturating_add(args.max_tokens);
    let context = model.config.max_position_embeddings as u32;
    if needed > context || prompt.is_empty() || args.max_tokens == 0 {
        let error = anyhow::anyhow!(
            "a prompt of {} tokens and --max-tokens {} make {needed}; the prompt must not be \
             empty, --max-tokens at least 1, and both together at most the model's {context}",
            prompt.len(),
            args.max_tokens
        );
        return Err(Failure { kind: Kind::Usage, error });
    }
    let limits = limits(&experiment, needed, Some(context), |_| None);
    let loaded = model.load(limits.max_model_len, args.seed)?;
    let mut rig = model.rig(loaded, limits)?;
    let request = Request {
        id: RequestId(0),
        arrived_at: Timestamp::ZERO,
        prompt_tokens: prompt.len() as u32,
        output_tokens: args.ignore_eos.then_some(args.max_tokens),
        max_tokens: args.max_tokens,
        class: 0,
        priority: 0,
        deadlines: None,
        sampling,
    };
    let mut stream =
        Stream { stop: StopSignal::on_ctrl_c(), prints: !args.json, ..Stream::default() };
    let submission = Submission { request, prompt: prompt.clone() };
    let engine = Engine { policy: "generate", limits, max_concurrency: None, cost_model: None };
    let executor = rig.start().or_fail(Kind::Internal)?;
    let end = engine
        .run(executor, &mut Alone::default(), [submission], &mut stream)
        .or_fail(Kind::Internal)?;
    if args.json {
        print::result(&as_json(&model, &prompt, &stream)?);
    } else {
        print::result("");
    }
    match end {
        RunEnd::Complete => Ok(()),
        RunEnd::Stopped => {
            let error = anyhow::anyhow!("interrupted");
            Err(Failure { kind: Kind::Interrupted, error })
        }
    }
}

/// The ids of the prompt, as it stands or as a user's message.
fn prompt_ids(model: &ModelOnDisk, args: &GenerateArgs) -> Result<Vec<u32>, Failure> {
    let tokenizer = model
        .tokenizer
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("the model has no tokenizer here: no text without one"))
        .or_fail(Kind::Environment)?;
    if !args.chat {
        return tokenizer.encode(&args.prompt).or_fail(Kind::Usage);
    }
    let template = ChatTemplate::open(&model.files).or_fail(Kind::Input)?;
    let template = template.ok_or_else(|| {
        let id = &model.files.id;
        let error = anyhow::anyhow!("{id} has no chat template here; leave --chat out");
        Failure { kind: Kind::Usage, error }
    })?;
    let prompt = template.prompt(&args.prompt).or_fail(Kind::Input)?;
    tokenizer.encode_chat(&prompt).or_fail(Kind::Usage)
}

fn sampling(args: &GenerateArgs) -> Result<Sampling, Failure> {
    let usage = |error| Err(Failure { kind: Kind::Usage, error });
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        return usage(anyhow::anyhow!(
            "--temperature is {}; it must be 0 or more",
            args.temperature
        ));
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return usage(anyhow::anyhow!(
            "--top-p is {}; it must be above 0 and at most 1",
            args.top_p
        ));
    }
    if args.top_k == Some(0) {
        return usage(anyhow::anyhow!("--top-k is 0; it must be at least 1"));
    }
    Ok(Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
    })
}

/// Runs the only request there is.
#[derive(Default)]
struct Alone(Option<RequestId>);

impl Scheduler for Alone {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(request) => self.0 = Some(request.id()),
            Event::Finished(_) | Event::Aborted(_) => self.0 = None,
            Event::Stepped(_) => {}
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        if let Some(id) = self.0 {
            // Admitted already after its first step: the refusal changes nothing.
            let _ = plan.admit(id, 0, 0);
            plan.run(id, u32::MAX)?;
        }
        Ok(Wake::OnEvent)
    }
}

/// Prints text as it comes, and remembers the tokens.
#[derive(Default)]
struct Stream {
    stop: StopSignal,
    prints: bool,
    tokens: Vec<Token>,
    text: String,
    started_at: Option<Timestamp>,
}

impl StepObserver for Stream {
    fn stepped(
        &mut self,
        step: &StepRecord,
        tokens: &[Token],
        text: &[TextPiece],
    ) -> Result<(), ObserverError> {
        self.started_at.get_or_insert(step.started_at);
        self.tokens.extend(tokens);
        for piece in text {
            self.text.push_str(&piece.text);
            if self.prints {
                print::piece(&piece.text);
            }
        }
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.stop.is_set()
    }
}

fn as_json(model: &ModelOnDisk, prompt: &[u32], stream: &Stream) -> Result<String, Failure> {
    let timeline = Timeline {
        request: RequestId(0),
        class: 0,
        arrived_at: Timestamp::ZERO,
        first_scheduled_at: stream.started_at,
        tokens_at: stream.tokens.iter().map(|token| token.at).collect(),
        prompt_tokens: prompt.len() as u32,
        deadlines: None,
        status: Some(EndStatus::Finished),
        was_cut_off: false,
    };
    let latencies = Latencies::of(&timeline);
    let seconds = |value: Result<std::time::Duration, _>| value.ok().map(|span| span.as_secs_f64());
    let output_ids: Vec<u32> = stream.tokens.iter().filter_map(|token| token.id).collect();
    let json = serde_json::json!({
        "model": model.files.id,
        "source": model.files.source,
        "prompt_ids": prompt,
        "output_ids": output_ids,
        "text": stream.text,
        "metrics": {
            "ttft_s": seconds(latencies.ttft),
            "tpot_s": seconds(latencies.tpot),
            "end_to_end_s": seconds(latencies.end_to_end),
            "normalized_s": seconds(latencies.normalized),
            "inter_token_s": timeline.inter_token_ns().iter().map(|ns| *ns as f64 / 1e9).collect::<Vec<_>>(),
        },
    });
    serde_json::to_string_pretty(&json).or_fail(Kind::Internal)
}
