use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is asked for, and when.
///
/// In a file:
///
/// ```
/// # let text = r#"
/// num_prompts = 200
///
/// [arrivals] # or "constant", "all_at_once", or "recorded" with a path and a speed
/// kind = "gamma"
/// request_rate = 2.5
/// burstiness = 1.0 # Poisson; may be left out
///
/// [[classes]] # each request's class is drawn by weight
/// name = "chat"
/// weight = 0.85
/// lengths = { kind = "uniform", prompt_tokens = [16, 256], output_tokens = [8, 64] }
///
/// [[classes]] # long prompts among short ones
/// name = "document"
/// weight = 0.15
/// lengths = { kind = "fixed", prompt_tokens = 1024, output_tokens = 32 }
/// # "#;
/// # let spec: metron_workload::WorkloadSpec = toml::from_str(text)?;
/// # assert_eq!((spec.num_prompts, spec.classes.len()), (200, 2));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// Requests of a run.
    pub num_prompts: u32,
    /// When they come.
    pub arrivals: Arrivals,
    /// Closed loop: the most requests in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// What they are: each request's class is drawn by weight.
    pub classes: Vec<Class>,
    /// What prompts are made of.
    #[serde(default)]
    pub prompts: Prompts,
    /// Sampling temperature; 0 is greedy.
    #[serde(default)]
    pub temperature: f32,
    /// End a request at an end-of-sequence token: the drawn length is then the cap that its client
    /// sends, which a policy sees. Otherwise it ends at its drawn length, its client sends no cap,
    /// and a policy can't know the length.
    #[serde(default)]
    pub stop_at_eos: bool,
}

impl WorkloadSpec {
    /// Whether these are the lengths of the requests whose arrivals are replayed.
    pub(crate) fn replays(&self, lengths: &Lengths) -> bool {
        match (&self.arrivals, lengths) {
            (Arrivals::Recorded { path, .. }, Lengths::Recorded { path: of_lengths }) => {
                path == of_lengths
            }
            _ => false,
        }
    }
}

/// When requests come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// Gaps of a gamma distribution with the mean `1 / request_rate`.
    Gamma {
        /// Requests a second.
        request_rate: f64,
        /// The shape, as vLLM's `--burstiness`: 1 is Poisson, below is burstier, above steadier.
        #[serde(default = "one")]
        burstiness: f64,
    },
    /// Equal gaps.
    Constant {
        /// Requests a second.
        request_rate: f64,
    },
    /// All at the start.
    AllAtOnce,
    /// The times of a recorded trace, of which each replicate replays a stretch of its own as long as
    /// there are any. A class that names the same file takes each request's lengths with its arrival.
    Recorded {
        /// The file.
        path: PathBuf,
        /// Times are divided by this: 2 is twice the rate.
        #[serde(default = "one")]
        speed: f64,
    },
}

fn one() -> f64 {
    1.0
}

/// A kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// How often it is drawn, beside the other classes' weights.
    #[serde(default = "one")]
    pub weight: f64,
    /// Larger is more urgent, to a policy that asks: none of Metron's own does.
    #[serde(default)]
    pub priority: i32,
    /// How long its prompts and outputs are.
    pub lengths: Lengths,
}

/// How long prompts and outputs are, in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Lengths {
    /// Always the same.
    Fixed {
        /// Of the prompt.
        prompt_tokens: u32,
        /// Of the output.
        output_tokens: u32,
    },
    /// Uniform between two ends, both included.
    Uniform {
        /// Of the prompt.
        prompt_tokens: [u32; 2],
        /// Of the output.
        output_tokens: [u32; 2],
    },
    /// Lognormal, cut to a range.
    Lognormal {
        /// Median of the prompt.
        prompt_median: f64,
        /// Standard deviation of its logarithm.
        prompt_sigma: f64,
        /// Shortest and longest prompt.
        prompt_range: [u32; 2],
        /// Median of the output.
        output_median: f64,
        /// Standard deviation of its logarithm.
        output_sigma: f64,
        /// Shortest and longest output.
        output_range: [u32; 2],
    },
    /// Those of a recorded trace: in an order that is drawn, or, where the arrivals are of the same
    /// file, with their arrivals.
    Recorded {
        /// The file.
        path: PathBuf,
    },
}

/// What prompts are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Prompts {
    /// Tokens drawn from the tokenizer's ordinary ones.
    #[default]
    Random,
    /// Pieces of a text, each from a place drawn at random.
    Text {
        /// The file.
        path: PathBuf,
    },
}
