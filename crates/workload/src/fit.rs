use metron_trace::{Request, RequestId};
use serde::{Deserialize, Serialize};

use crate::error::WorkloadError;
use crate::generate::Workload;

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

impl Workload {
    /// (prompt, output) lengths of all requests.
    pub fn lengths(&self) -> Vec<(u32, u32)> {
        let lengths = |request: &Request| (request.prompt_tokens, request.most_output_tokens());
        self.requests.iter().map(lengths).collect()
    }

    /// The longest request, prompt and output together.
    pub fn longest(&self) -> u32 {
        self.requests.iter().map(Request::total_tokens).max().unwrap_or(0)
    }

    /// Deals with requests of more than `limit` tokens, prompt and output together: the lesser of
    /// the context and the whole KV pool. Ids stay dense.
    pub fn fit(&mut self, limit: u32, too_long: TooLong) -> Result<(), WorkloadError> {
        let count = self.requests.iter().filter(|r| r.total_tokens() > limit).count();
        if count == 0 {
            return Ok(());
        }
        match too_long {
            TooLong::Drop => self.drop_longer(limit, count)?,
            // A prompt token and an output token are the least that a request can be cut to.
            TooLong::Truncate if limit >= 2 => self.truncate_longer(limit),
            TooLong::Error | TooLong::Truncate => return Err(self.too_long_error(count, limit)),
        }
        for (request, id) in self.requests.iter_mut().zip(0..) {
            request.id = RequestId(id);
        }
        Ok(())
    }

    fn drop_longer(&mut self, limit: u32, count: usize) -> Result<(), WorkloadError> {
        if count == self.requests.len() {
            let all = format!("all {count} requests are longer than {limit} tokens");
            return Err(WorkloadError::NoPrompts(all));
        }
        let mut fits = self.requests.iter().map(|request| request.total_tokens() <= limit);
        self.prompts.retain(|_| fits.next() == Some(true));
        self.requests.retain(|request| request.total_tokens() <= limit);
        self.dropped += count as u32;
        Ok(())
    }

    fn truncate_longer(&mut self, limit: u32) {
        for (request, prompt) in self.requests.iter_mut().zip(&mut self.prompts) {
            if request.total_tokens() > limit {
                truncate(request, prompt, limit);
                self.truncated += 1;
            }
        }
    }

    fn too_long_error(&self, count: usize, limit: u32) -> WorkloadError {
        let longest = self.requests.iter().max_by_key(|request| request.total_tokens());
        WorkloadError::TooLong {
            count,
            all: self.requests.len(),
            limit,
            longest: longest.map_or(0, |request| request.id.0),
            prompt_tokens: longest.map_or(0, |request| request.prompt_tokens),
            output_tokens: longest.map_or(0, Request::most_output_tokens),
        }
    }
}

/// Cuts a request to `limit` tokens: the prompt's beginning first, and then the output.
fn truncate(request: &mut Request, prompt: &mut Vec<u32>, limit: u32) {
    let output = request.most_output_tokens().min(limit - 1);
    let kept = request.prompt_tokens.min(limit - output);
    prompt.drain(..prompt.len().saturating_sub(kept as usize));
    request.prompt_tokens = kept;
    match &mut request.output_tokens {
        Some(length) => *length = output,
        None => request.max_tokens = output,
    }
}
