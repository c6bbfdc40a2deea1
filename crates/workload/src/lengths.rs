use rand::{Rng, RngExt};
use rand_distr::{Distribution, LogNormal};

use crate::arrivals::bad;
use crate::error::WorkloadError;
use crate::recorded::RecordedRequest;
use crate::spec::Lengths;

/// Draws (prompt, output) lengths of one class.
pub(crate) enum LengthSource {
    Fixed(u32, u32),
    Uniform([u32; 2], [u32; 2]),
    Lognormal { prompt: (LogNormal<f64>, [u32; 2]), output: (LogNormal<f64>, [u32; 2]) },
    Recorded { rows: Vec<RecordedRequest>, next: usize },
}

impl LengthSource {
    /// Checks a class's numbers. `recorded` are the rows of the file it names.
    pub(crate) fn new(
        lengths: &Lengths,
        recorded: Vec<RecordedRequest>,
    ) -> Result<Self, WorkloadError> {
        match *lengths {
            Lengths::Fixed { prompt_tokens, output_tokens } => {
                check_range("prompt_tokens", [prompt_tokens; 2])?;
                check_range("output_tokens", [output_tokens; 2])?;
                Ok(Self::Fixed(prompt_tokens, output_tokens))
            }
            Lengths::Uniform { prompt_tokens, output_tokens } => {
                check_range("prompt_tokens", prompt_tokens)?;
                check_range("output_tokens", output_tokens)?;
                Ok(Self::Uniform(prompt_tokens, output_tokens))
            }
            Lengths::Lognormal {
                prompt_median,
                prompt_sigma,
                prompt_range,
                output_median,
                output_sigma,
                output_range,
            } => Ok(Self::Lognormal {
                prompt: (lognormal("prompt", prompt_median, prompt_sigma)?, prompt_range),
                output: (lognormal("output", output_median, output_sigma)?, output_range),
            })
            .and_then(|source| {
                check_range("prompt_range", prompt_range)?;
                check_range("output_range", output_range)?;
                Ok(source)
            }),
            Lengths::Recorded { .. } => Ok(Self::Recorded { rows: recorded, next: 0 }),
        }
    }

    /// The next request's lengths; a recorded trace starts over when it is used up.
    pub(crate) fn draw(&mut self, rng: &mut impl Rng) -> (u32, u32) {
        match self {
            Self::Fixed(prompt, output) => (*prompt, *output),
            Self::Uniform(prompt, output) => {
                (rng.random_range(prompt[0]..=prompt[1]), rng.random_range(output[0]..=output[1]))
            }
            Self::Lognormal { prompt, output } => {
                let mut within = |(draws, range): &(LogNormal<f64>, [u32; 2])| {
                    draws.sample(rng).round().clamp(f64::from(range[0]), f64::from(range[1]))
                };
                #[expect(clippy::cast_sign_loss, reason = "clamped to a range of lengths")]
                (within(prompt) as u32, within(output) as u32)
            }
            Self::Recorded { rows, next } => {
                let row = rows[*next % rows.len()];
                *next += 1;
                (row.prompt_tokens, row.output_tokens)
            }
        }
    }
}

fn check_range(field: &str, [least, most]: [u32; 2]) -> Result<(), WorkloadError> {
    if least >= 1 && least <= most {
        return Ok(());
    }
    let value = if least == most { least.to_string() } else { format!("{least} to {most}") };
    Err(bad(field, value, "at least 1, and the first not above the second"))
}

fn lognormal(what: &str, median: f64, sigma: f64) -> Result<LogNormal<f64>, WorkloadError> {
    if !(median.is_finite() && median >= 1.0) {
        return Err(bad(&format!("{what}_median"), median, "a number of tokens, at least 1"));
    }
    if !(sigma.is_finite() && sigma >= 0.0) {
        return Err(bad(&format!("{what}_sigma"), sigma, "a number, 0 or more"));
    }
    LogNormal::new(median.ln(), sigma)
        .map_err(|error| bad(&format!("{what}_sigma"), sigma, &error.to_string()))
}
