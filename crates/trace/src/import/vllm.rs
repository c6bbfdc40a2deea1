//! The JSON of `vllm bench serve --save-result --save-detailed`: one object, its lists a request
//! each, in seconds (vllm-project/vllm, `vllm/benchmarks/serve.py`).

use std::time::Duration;

use super::build::{Foreign, ForeignRequest};
use super::fields::{Field, Object};
use super::{ImportError, Imported, Tool};
use crate::{EndStatus, Timestamp};

/// What it says of its load; the rest of its single values are results.
const INPUTS: [&str; 11] = [
    "date",
    "backend",
    "tokenizer_id",
    "num_prompts",
    "request_rate",
    "burstiness",
    "max_concurrency",
    "ramp_up_strategy",
    "ramp_up_start_rps",
    "ramp_up_end_rps",
    // Not vLLM's: whose clock it was, where Metron wrote the result.
    "origin",
];

const HINT: &str = "vLLM writes the lists of a request each with --save-detailed";

pub(super) fn import(text: &str) -> Result<Imported, ImportError> {
    let result = Object::parse(text, "")?;
    let name = |field: &str| {
        let text = result.optional(field).map(|field| field.text().map(ToOwned::to_owned));
        text.transpose()
    };
    Foreign {
        tool: Tool::Vllm,
        label: name("label")?,
        model: name("model_id")?,
        says: result.values(&INPUTS),
        requests: requests(&result)?,
    }
    .into_trace()
}

fn requests(result: &Object) -> Result<Vec<ForeignRequest>, ImportError> {
    let ttfts = result.required("ttfts", HINT)?.times(1.0)?;
    let as_long = |field: Field<'_>, len| field.check_len(len, "ttfts", ttfts.len());
    let counts = |name| {
        let field = result.required(name, HINT)?;
        let counts = field.counts()?;
        as_long(field, counts.len())?;
        Ok(counts)
    };
    let (input_lens, output_lens) = (counts("input_lens")?, counts("output_lens")?);
    let itls_field = result.required("itls", HINT)?;
    let itls = itls_field.entries()?;
    as_long(itls_field, itls.len())?;
    // Versions before 2025-08 kept no start times, and some writers keep no errors.
    let start_times = result.optional("start_times").map(|field| {
        let times = field.times(1.0)?;
        as_long(field, times.len())?;
        Ok(times)
    });
    let start_times = start_times.transpose()?;
    let errors = result.optional("errors").map(|field| {
        let errors = field.entries()?;
        as_long(field, errors.len())?;
        errors.iter().map(|error| Ok(!error.text()?.is_empty())).collect::<Result<Vec<_>, _>>()
    });
    let errors: Option<Vec<bool>> = errors.transpose()?;
    let request = |at: usize| {
        let output_tokens = output_lens[at];
        let has_failed = errors.as_ref().map_or(output_tokens == 0, |errors| errors[at]);
        let later = itls[at].times(1.0)?;
        // A failed request without a token has a TTFT of 0; so has one that was not streamed.
        let has_times = ttfts[at] > 0.0 || !later.is_empty();
        if !has_times && !has_failed && output_tokens > 0 {
            return Err(ImportError::NoTimes { request: format!("request {at}"), output_tokens });
        }
        let times = has_times.then(|| std::iter::once(ttfts[at]).chain(later));
        Ok(ForeignRequest {
            sent_at: start_times.as_ref().map(|times| instant(times[at])),
            prompt_tokens: input_lens[at],
            output_tokens,
            inter_token_s: times.into_iter().flatten().collect(),
            status: if has_failed { EndStatus::Failed } else { EndStatus::Finished },
        })
    };
    (0..ttfts.len()).map(request).collect()
}

fn instant(seconds: f64) -> Timestamp {
    Timestamp::ZERO + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
