use std::collections::BTreeMap;
use std::path::PathBuf;

use metron_trace::{Request, RequestId, Sampling};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::arrivals::{arrivals, bad};
use crate::error::WorkloadError;
use crate::lengths::LengthSource;
use crate::prompts::Vocabulary;
use crate::recorded::{RecordedRequest, read_recorded};
use crate::spec::{Arrivals, Class, Lengths, WorkloadSpec};
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

/// What to do with requests longer than a sequence may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// Refuse the workload.
    #[default]
    Error,
    /// Leave them out.
    Drop,
    /// Cut the prompt's beginning, and then the output, until they fit.
    Truncate,
}

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
    let count = files.count(spec)?;
    let mut rng = stream(seed, replicate, Stream::Arrivals);
    let times = arrivals(&spec.arrivals, count, files.of_arrivals(spec), &mut rng)?;
    let mut sources = spec
        .classes
        .iter()
        .map(|class| LengthSource::new(&class.lengths, files.of(&class.lengths)))
        .collect::<Result<Vec<_>, _>>()?;
    let total_weight: f64 = spec.classes.iter().map(|class| class.weight).sum();
    let mut classes = stream(seed, replicate, Stream::Classes);
    let mut lengths = stream(seed, replicate, Stream::Lengths);
    let mut text = stream(seed, replicate, Stream::Text);
    let mut sampling = stream(seed, replicate, Stream::Sampling);
    let mut workload =
        Workload { requests: Vec::new(), prompts: Vec::new(), dropped: 0, truncated: 0 };
    for (arrived_at, id) in times.into_iter().zip(0..) {
        let class = draw_class(spec, classes.random_range(0.0..total_weight));
        let (prompt_tokens, output_tokens) = sources[class].draw(&mut lengths);
        workload.prompts.push(vocabulary.prompt(prompt_tokens, &mut text));
        workload.requests.push(Request {
            id: RequestId(id),
            arrived_at,
            prompt_tokens,
            output_tokens: (!spec.stop_at_eos).then_some(output_tokens),
            max_tokens: output_tokens,
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
    if spec.max_concurrency == Some(0) {
        return Err(bad("max_concurrency", 0, "at least 1"));
    }
    if !(spec.temperature.is_finite() && spec.temperature >= 0.0) {
        return Err(bad("temperature", spec.temperature, "a number, 0 or more"));
    }
    let weights_are_fine = spec.classes.iter().all(|c| c.weight.is_finite() && c.weight > 0.0);
    if spec.classes.is_empty() || !weights_are_fine {
        let weights: Vec<f64> = spec.classes.iter().map(|class| class.weight).collect();
        return Err(bad("weight", format!("{weights:?}"), "above 0, of at least one class"));
    }
    Ok(())
}

/// The recorded traces that a spec names, each read once.
struct Files(BTreeMap<PathBuf, Vec<RecordedRequest>>);

impl Files {
    fn read(spec: &WorkloadSpec) -> Result<Self, WorkloadError> {
        let of_arrivals = match &spec.arrivals {
            Arrivals::Recorded { path, .. } => Some(path),
            _ => None,
        };
        let of_lengths = spec.classes.iter().filter_map(|class| match &class.lengths {
            Lengths::Recorded { path } => Some(path),
            _ => None,
        });
        let mut files = BTreeMap::new();
        for path in of_arrivals.into_iter().chain(of_lengths) {
            if !files.contains_key(path) {
                files.insert(path.clone(), read_recorded(path)?);
            }
        }
        Ok(Self(files))
    }

    fn of(&self, lengths: &Lengths) -> Vec<RecordedRequest> {
        match lengths {
            Lengths::Recorded { path } => self.0[path].clone(),
            _ => Vec::new(),
        }
    }

    fn of_arrivals(&self, spec: &WorkloadSpec) -> &[RecordedRequest] {
        match &spec.arrivals {
            Arrivals::Recorded { path, .. } => &self.0[path],
            _ => &[],
        }
    }

    /// Requests of the run: recorded arrivals can't be more than were recorded.
    fn count(&self, spec: &WorkloadSpec) -> Result<u32, WorkloadError> {
        let Arrivals::Recorded { path, .. } = &spec.arrivals else { return Ok(spec.num_prompts) };
        let rows = self.0[path].len();
        if rows >= spec.num_prompts as usize {
            return Ok(spec.num_prompts);
        }
        Err(WorkloadError::File {
            path: path.clone(),
            cause: format!(
                "it has {rows} requests, fewer than the {} asked for; use --num-prompts {rows}",
                spec.num_prompts
            ),
        })
    }
}

impl Workload {
    /// (prompt, output) lengths of all requests.
    pub fn lengths(&self) -> Vec<(u32, u32)> {
        self.requests.iter().map(|request| (request.prompt_tokens, request.max_tokens)).collect()
    }

    /// The longest request, prompt and output together.
    pub fn longest(&self) -> u32 {
        self.requests
            .iter()
            .map(|r| r.prompt_tokens.saturating_add(r.max_tokens))
            .max()
            .unwrap_or(0)
    }

    /// Deals with requests of more than `limit` tokens. Ids stay dense.
    pub fn fit(&mut self, limit: u32, too_long: TooLong) -> Result<(), WorkloadError> {
        let is_too_long = |r: &Request| r.prompt_tokens.saturating_add(r.max_tokens) > limit;
        let count = self.requests.iter().filter(|request| is_too_long(request)).count();
        if count == 0 {
            return Ok(());
        }
        match too_long {
            TooLong::Error => return Err(self.too_long_error(count, limit)),
            TooLong::Drop => {
                let keep: Vec<bool> = self.requests.iter().map(|r| !is_too_long(r)).collect();
                let mut kept = keep.iter();
                self.prompts.retain(|_| kept.next().copied().unwrap_or(true));
                self.requests.retain(|request| !is_too_long(request));
                self.dropped += count as u32;
                if self.requests.is_empty() {
                    let all = format!("all {count} requests are longer than {limit} tokens");
                    return Err(WorkloadError::NoPrompts(all));
                }
            }
            TooLong::Truncate => {
                let pairs = self.requests.iter_mut().zip(&mut self.prompts);
                for (request, prompt) in pairs.filter(|(request, _)| is_too_long(request)) {
                    truncate(request, prompt, limit);
                }
                self.truncated += count as u32;
            }
        }
        for (request, id) in self.requests.iter_mut().zip(0..) {
            request.id = RequestId(id);
        }
        Ok(())
    }

    fn too_long_error(&self, count: usize, limit: u32) -> WorkloadError {
        let total = |r: &&Request| r.prompt_tokens.saturating_add(r.max_tokens);
        let longest = self.requests.iter().max_by_key(total);
        WorkloadError::TooLong {
            count,
            all: self.requests.len(),
            limit,
            longest: longest.map_or(0, |request| request.id.0),
            prompt_tokens: longest.map_or(0, |request| request.prompt_tokens),
            output_tokens: longest.map_or(0, |request| request.max_tokens),
        }
    }
}

/// Cuts a request to `limit` tokens: the output to at most all but one, then the prompt's beginning.
fn truncate(request: &mut Request, prompt: &mut Vec<u32>, limit: u32) {
    let output = request.max_tokens.min(limit.saturating_sub(1)).max(1);
    let kept = limit.saturating_sub(output).max(1).min(request.prompt_tokens);
    prompt.drain(..prompt.len().saturating_sub(kept as usize));
    request.prompt_tokens = kept;
    request.max_tokens = output;
    request.output_tokens = request.output_tokens.map(|_| output);
}
