use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, LogNormal};

use crate::arrivals::bad;
use crate::error::WorkloadError;
use crate::recorded::RecordedRequest;
use crate::spec::{Class, Lengths};

/// Draws (prompt, output) lengths of one class.
pub(crate) enum LengthSource<'a> {
    Fixed(u32, u32),
    Uniform([u32; 2], [u32; 2]),
    Lognormal {
        prompt: (LogNormal<f64>, [u32; 2]),
        output: (LogNormal<f64>, [u32; 2]),
    },
    /// Of a recorded trace, in an order of the replicate's own, so that each draws others and a
    /// file in an order of lengths is no other workload than one that is not.
    Shuffled {
        rows: Vec<RecordedRequest>,
        next: usize,
    },
    /// Of the requests whose arrivals are replayed.
    Replayed(&'a [RecordedRequest]),
}

impl LengthSource<'_> {
    /// Checks a class's numbers. `recorded` are the rows of the file it names.
    pub(crate) fn new(
        class: &Class,
        mut recorded: Vec<RecordedRequest>,
        rng: &mut impl Rng,
    ) -> Result<Self, WorkloadError> {
        let check = |field: &str, range| check_range(&class.name, field, range);
        match class.lengths {
            Lengths::Fixed { prompt_tokens, output_tokens } => {
                check("prompt_tokens", [prompt_tokens; 2])?;
                check("output_tokens", [output_tokens; 2])?;
                Ok(Self::Fixed(prompt_tokens, output_tokens))
            }
            Lengths::Uniform { prompt_tokens, output_tokens } => {
                check("prompt_tokens", prompt_tokens)?;
                check("output_tokens", output_tokens)?;
                Ok(Self::Uniform(prompt_tokens, output_tokens))
            }
            Lengths::Lognormal {
                prompt_median,
                prompt_sigma,
                prompt_range,
                output_median,
                output_sigma,
                output_range,
            } => {
                check("prompt_range", prompt_range)?;
                check("output_range", output_range)?;
                Ok(Self::Lognormal {
                    prompt: (lognormal("prompt", prompt_median, prompt_sigma)?, prompt_range),
                    output: (lognormal("output", output_median, output_sigma)?, output_range),
                })
            }
            Lengths::Recorded { .. } => {
                recorded.shuffle(rng);
                Ok(Self::Shuffled { rows: recorded, next: 0 })
            }
        }
    }

    /// The lengths of the run's request of this number; a recorded trace starts over when it is
    /// used up.
    pub(crate) fn draw(&mut self, request: usize, rng: &mut impl Rng) -> (u32, u32) {
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
            Self::Shuffled { rows, next } => {
                let row = rows[*next % rows.len()];
                *next += 1;
                (row.prompt_tokens, row.output_tokens)
            }
            Self::Replayed(rows) => (rows[request].prompt_tokens, rows[request].output_tokens),
        }
    }
}

fn check_range(class: &str, field: &str, [least, most]: [u32; 2]) -> Result<(), WorkloadError> {
    if least >= 1 && least <= most {
        return Ok(());
    }
    let field = if class.is_empty() { field.to_owned() } else { format!("{field} of {class}") };
    if least == most {
        return Err(bad(&field, least, "at least 1"));
    }
    let value = format!("{least} to {most}");
    Err(bad(&field, value, "at least 1, and the first not above the second"))
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
