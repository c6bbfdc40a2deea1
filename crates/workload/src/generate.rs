use metron_trace::{Request, RequestId, Sampling};
use rand::RngExt;

use crate::arrivals::{arrivals, bad};
use crate::error::WorkloadError;
use crate::files::Files;
use crate::lengths::LengthSource;
use crate::prompts::Vocabulary;
use crate::spec::{Class, Lengths, WorkloadSpec};
use crate::streams::{Stream, stream};

/// The requests of one run, in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The requests.
    pub requests: Vec<Request>,
    /// Each one's prompt as token ids; empty in virtual time.
    pub prompts: Vec<Vec<u32>>,
    /// Requests left out because they were too long.
    pub dropped: u32,
    /// Requests cut because they were too long.
    pub truncated: u32,
}

/// The most requests of a run: their records alone are more than a gigabyte.
const MOST_REQUESTS: u32 = 10_000_000;
/// The most prompt tokens of a run, all requests together: a gigabyte of token ids.
const MOST_PROMPT_TOKENS: usize = 1 << 28;

/// Makes the requests of a replicate. The same seed and replicate always make the same.
pub fn generate(
    spec: &WorkloadSpec,
    vocabulary: &Vocabulary,
    seed: u64,
    replicate: u32,
) -> Result<Workload, WorkloadError> {
    check(spec)?;
    vocabulary.check()?;
    let files = Files::read(spec)?;
    let replayed = files.replayed(spec, replicate)?;
    let mut rng = stream(seed, replicate, Stream::Arrivals);
    let times = arrivals(&spec.arrivals, spec.num_prompts, replayed, &mut rng)?;
    let mut lengths = stream(seed, replicate, Stream::Lengths);
    let mut sources = spec
        .classes
        .iter()
        .map(|class| {
            if spec.replays(&class.lengths) {
                return Ok(LengthSource::Replayed(replayed));
            }
            LengthSource::new(class, files.of(&class.lengths), &mut lengths)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let total_weight: f64 = spec.classes.iter().map(|class| class.weight).sum();
    let mut classes = stream(seed, replicate, Stream::Classes);
    let mut text = stream(seed, replicate, Stream::Text);
    let mut sampling = stream(seed, replicate, Stream::Sampling);
    let mut workload =
        Workload { requests: Vec::new(), prompts: Vec::new(), dropped: 0, truncated: 0 };
    let mut prompt_tokens_left = MOST_PROMPT_TOKENS;
    for (arrived_at, id) in times.into_iter().zip(0..) {
        let class = draw_class(spec, classes.random_range(0.0..total_weight));
        let (prompt_tokens, output_tokens) = sources[class].draw(id as usize, &mut lengths);
        if vocabulary.has_tokens() {
            prompt_tokens_left = prompt_tokens_left
                .checked_sub(prompt_tokens as usize)
                .ok_or_else(|| too_many_prompt_tokens(spec.num_prompts))?;
        }
        workload.prompts.push(vocabulary.prompt(prompt_tokens, &mut text));
        workload.requests.push(Request {
            id: RequestId(id),
            arrived_at,
            prompt_tokens,
            output_tokens: (!spec.stop_at_eos).then_some(output_tokens),
            max_tokens: if spec.stop_at_eos { output_tokens } else { Request::NO_CAP },
            class: class as u32,
            priority: spec.classes[class].priority,
            deadlines: None,
            sampling: Sampling {
                temperature: spec.temperature,
                top_k: None,
                top_p: 1.0,
                seed: sampling.random(),
            },
        });
    }
    Ok(workload)
}

/// The most tokens that any request of this workload can have, prompt and output together: what
/// its lengths allow, not what a seed drew.
pub fn longest_possible(spec: &WorkloadSpec) -> Result<u32, WorkloadError> {
    check(spec)?;
    let files = Files::read(spec)?;
    let longest = |class: &Class| {
        let recorded = files.of(&class.lengths);
        let rows = recorded.iter().map(|row| row.prompt_tokens.saturating_add(row.output_tokens));
        match class.lengths {
            Lengths::Fixed { prompt_tokens, output_tokens } => {
                prompt_tokens.saturating_add(output_tokens)
            }
            Lengths::Uniform { prompt_tokens: prompt, output_tokens: output }
            | Lengths::Lognormal { prompt_range: prompt, output_range: output, .. } => {
                prompt[1].saturating_add(output[1])
            }
            Lengths::Recorded { .. } => rows.max().unwrap_or(0),
        }
    };
    Ok(spec.classes.iter().map(longest).max().unwrap_or(0))
}

fn draw_class(spec: &WorkloadSpec, mut at: f64) -> usize {
    for (class, Class { weight, .. }) in spec.classes.iter().enumerate() {
        at -= weight;
        if at < 0.0 {
            return class;
        }
    }
    spec.classes.len() - 1
}

fn check(spec: &WorkloadSpec) -> Result<(), WorkloadError> {
    if spec.num_prompts == 0 {
        return Err(bad("num_prompts", 0, "at least 1"));
    }
    if spec.num_prompts > MOST_REQUESTS {
        return Err(bad("num_prompts", spec.num_prompts, &format!("at most {MOST_REQUESTS}")));
    }
    if spec.max_concurrency == Some(0) {
        return Err(bad("max_concurrency", 0, "at least 1"));
    }
    if !(spec.temperature.is_finite() && spec.temperature >= 0.0) {
        return Err(bad("temperature", spec.temperature, "a number, 0 or more"));
    }
    let weights: Vec<f64> = spec.classes.iter().map(|class| class.weight).collect();
    let are_weights = weights.iter().all(|weight| *weight > 0.0);
    if weights.is_empty() || !are_weights || !weights.iter().sum::<f64>().is_finite() {
        return Err(bad("weight", format!("{weights:?}"), "above 0, of at least one class"));
    }
    Ok(())
}

fn too_many_prompt_tokens(requests: u32) -> WorkloadError {
    let value = format!("more than {MOST_PROMPT_TOKENS} in all {requests} requests together");
    bad("prompt_tokens", value, "fewer: shorten the prompts, or run fewer requests")
}
