use metron_engine::{
    Engine, Event, ObserverError, Planner, Refused, RunEnd, Scheduler, StepObserver, Submission,
    TextPiece, Wake,
};
use metron_lab::Rig;
use metron_llm::ChatTemplate;
use metron_metrics::{Latencies, Timeline};
use metron_trace::{EndStatus, Limits, Request, RequestId, Sampling, StepRecord, Timestamp, Token};

use super::kind_of_run;
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
    let needed = u32::try_from(prompt.len()).unwrap_or(u32::MAX).saturating_add(args.max_tokens);
    let limits = limits(&experiment, needed, Some(model.context()), |_| None)?;
    check_fits(prompt.len(), args.max_tokens, limits, model.context()).or_fail(Kind::Usage)?;
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
        .map_err(|error| Failure { kind: kind_of_run(&error), error: error.into() })?;
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

/// Refuses a request that can't be served, before the weights are loaded.
fn check_fits(
    prompt_tokens: usize,
    max_tokens: u32,
    limits: Limits,
    context: u32,
) -> anyhow::Result<()> {
    if prompt_tokens == 0 {
        anyhow::bail!("--prompt is empty: there is nothing to continue");
    }
    if max_tokens == 0 {
        anyhow::bail!("--max-tokens is 0; it must be at least 1");
    }
    let needed = prompt_tokens.saturating_add(max_tokens as usize);
    let fits = limits.longest_sequence();
    let (room, whose) = if context <= fits {
        (context, "the model's context has")
    } else {
        (fits, "--max-model-len, --kv-blocks and --block-size leave")
    };
    if needed > room as usize {
        anyhow::bail!(
            "the prompt's {prompt_tokens} tokens and --max-tokens {max_tokens} make {needed} \
             positions, and {whose} {room}"
        );
    }
    Ok(())
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
    // The first of them is the TTFT.
    let gaps = timeline.inter_token_ns().into_iter().skip(1);
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
            "inter_token_s": gaps.map(|ns| ns as f64 / 1e9).collect::<Vec<_>>(),
        },
    });
    serde_json::to_string_pretty(&json).or_fail(Kind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompt_tokens: usize, max_tokens: u32, max_model_len: u32, said: &str) {
        let limits = Limits { block_size: 16, num_blocks: 8, max_num_seqs: 32, max_model_len };
        let checked = check_fits(prompt_tokens, max_tokens, limits, 100);
        let told = checked.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(told.ends_with(said) && told.is_empty() == said.is_empty(), "{told}");
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        check(60, 40, 100, "");
        check(0, 40, 100, "--prompt is empty: there is nothing to continue");
        check(60, 0, 100, "--max-tokens is 0; it must be at least 1");
        check(60, 41, 128, "make 101 positions, and the model's context has 100");
        check(5, 6, 10, "--max-model-len, --kv-blocks and --block-size leave 10");
    }
}
