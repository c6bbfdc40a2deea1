use std::collections::VecDeque;

use metron_trace::{Limits, Request, RequestId, Timestamp};

use crate::engine::Engine;
use crate::error::EngineError;

/// A request with the token ids of its prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The request. Its id is its place among the submissions, from 0.
    pub request: Request,
    /// `request.prompt_tokens` ids, or none in virtual time, where a prompt is only a length.
    pub prompt: Vec<u32>,
}

/// Requests that have not arrived yet.
pub(crate) struct Arrivals {
    pub(crate) queue: VecDeque<Submission>,
    /// When the closed loop last had a client become free.
    pub(crate) client_free_at: Timestamp,
}

impl Arrivals {
    /// Checks every request, and lowers its cap to what fits the context.
    pub(crate) fn new(
        submissions: impl IntoIterator<Item = Submission>,
        engine: &Engine<'_>,
    ) -> Result<Self, EngineError> {
        check_settings(engine)?;
        let mut queue: VecDeque<Submission> = submissions.into_iter().collect();
        let mut latest = Timestamp::ZERO;
        for (submission, place) in queue.iter_mut().zip(0..) {
            check_whole(submission, place)?;
            let request = &mut submission.request;
            lower_cap(request, &engine.limits);
            check_servable(request, &engine.limits)?;
            if request.arrived_at < latest {
                return Err(EngineError::ArrivalsGoBack { id: request.id });
            }
            latest = request.arrived_at;
        }
        Ok(Self { queue, client_free_at: Timestamp::ZERO })
    }

    /// When the next request arrives; `None` if none is left, or all clients of a closed loop
    /// are waiting for an answer.
    pub(crate) fn next_at(
        &self,
        in_progress: u32,
        max_concurrency: Option<u32>,
    ) -> Option<Timestamp> {
        if max_concurrency.is_some_and(|most| in_progress >= most) {
            return None;
        }
        let intended = self.queue.front()?.request.arrived_at;
        Some(intended.max(self.client_free_at))
    }
}

fn check_settings(engine: &Engine<'_>) -> Result<(), EngineError> {
    if engine.limits.block_size == 0 {
        return Err(EngineError::Zero { setting: "block_size" });
    }
    if engine.max_concurrency == Some(0) {
        return Err(EngineError::Zero { setting: "max_concurrency" });
    }
    Ok(())
}

/// Whether a submission is what it says it is.
fn check_whole(submission: &Submission, place: u32) -> Result<(), EngineError> {
    let Submission { request, prompt } = submission;
    let &Request { id, prompt_tokens, output_tokens, max_tokens, .. } = request;
    if id != RequestId(place) {
        return Err(EngineError::WrongId { id, place });
    }
    if prompt_tokens == 0 || max_tokens == 0 || output_tokens == Some(0) {
        return Err(EngineError::NothingAsked { id });
    }
    if let Some(output_tokens) = output_tokens.filter(|length| *length > max_tokens) {
        return Err(EngineError::AboveCap { id, output_tokens, max_tokens });
    }
    if !prompt.is_empty() && prompt.len() != prompt_tokens as usize {
        return Err(EngineError::PromptLength { id, ids: prompt.len(), prompt_tokens });
    }
    Ok(())
}

/// Lowers a cap to what fits the context and the pool, or to one token where the prompt does not.
fn lower_cap(request: &mut Request, limits: &Limits) {
    // The last token is sent, never computed: it takes no place in the pool.
    let pool = limits.num_blocks.saturating_mul(limits.block_size).saturating_add(1);
    let fits = limits.max_model_len.min(pool).saturating_sub(request.prompt_tokens).max(1);
    request.max_tokens = request.max_tokens.min(fits);
}

fn check_servable(request: &Request, limits: &Limits) -> Result<(), EngineError> {
    let (id, tokens) = (request.id, request.total_tokens());
    if tokens > limits.max_model_len {
        return Err(EngineError::TooLong { id, tokens, max_model_len: limits.max_model_len });
    }
    // The last token is sent, never computed.
    let needed = limits.blocks_for(tokens.saturating_sub(1));
    if needed > limits.num_blocks {
        return Err(EngineError::NeverFits { id, needed, num_blocks: limits.num_blocks });
    }
    Ok(())
}
