//! Etalon's `request_level_metrics.json`: an object of parallel lists, in seconds, without arrivals
//! (project-etalon/etalon, `etalon/metrics/request_level_metrics.py`, commit d5f18de).

use serde_json::Map;

use super::build::{Foreign, ForeignRequest};
use super::fields::Object;
use super::{ImportError, Imported, Tool};
use crate::EndStatus;

const HINT: &str = "Etalon writes it to request_level_metrics.json in its output directory";

pub(super) fn import(text: &str) -> Result<Imported, ImportError> {
    let result = Object::parse(text, "")?;
    let ttft = result.required("ttft", HINT)?.times(1.0)?;
    let of_requests = |name| {
        let field = result.required(name, HINT)?;
        let entries = field.entries()?;
        field.check_len(entries.len(), "ttft", ttft.len())?;
        Ok(entries)
    };
    let prompt_tokens = of_requests("num_prompt_tokens")?;
    let output_tokens = of_requests("num_output_tokens")?;
    let tbt = of_requests("tbt")?;
    let request = |at: usize| {
        let output_tokens = output_tokens[at].count()?;
        // Without a token Etalon writes a TTFT of 0, and keeps no reason.
        let (inter_token_s, status) = if output_tokens == 0 {
            (Vec::new(), EndStatus::Failed)
        } else {
            let later = tbt[at].times(1.0)?;
            (std::iter::once(ttft[at]).chain(later).collect(), EndStatus::Finished)
        };
        let prompt_tokens = prompt_tokens[at].count()?;
        Ok(ForeignRequest { sent_at: None, prompt_tokens, output_tokens, inter_token_s, status })
    };
    Foreign {
        tool: Tool::Etalon,
        label: None,
        model: None,
        says: Map::new(),
        requests: (0..ttft.len()).map(request).collect::<Result<_, ImportError>>()?,
    }
    .into_trace()
}
