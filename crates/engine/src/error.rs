use metron_trace::RequestId;

use crate::executor::ExecutorError;
use crate::observer::ObserverError;
use crate::planner::Refused;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Longer than a sequence may be.
    #[error(
        "{id} needs {tokens} positions, but a sequence may have at most {max_model_len} \
         (max_model_len); drop or shorten it, or raise the limit"
    )]
    TooLong {
        /// The request.
        id: RequestId,
        /// Prompt and output.
        tokens: u32,
        /// The limit.
        max_model_len: u32,
    },
    /// It could not finish even alone.
    #[error(
        "{id} needs {needed} KV blocks, but the whole pool has {num_blocks}; drop or shorten it, \
         or give the pool more blocks"
    )]
    NeverFits {
        /// The request.
        id: RequestId,
        /// Blocks for all its positions.
        needed: u32,
        /// Blocks of the pool.
        num_blocks: u32,
    },
    /// Arrivals are data, and have to be in order.
    #[error("{id} arrives before the request in front of it; arrivals must be sorted by time")]
    ArrivalsGoBack {
        /// The request.
        id: RequestId,
    },
    /// The policy let a refusal out.
    #[error("policy `{policy}` planned the impossible in step {step}: {refused}")]
    ImpossiblePlan {
        /// The policy.
        policy: String,
        /// The step.
        step: u64,
        /// What was refused, with the numbers.
        #[source]
        refused: Refused,
    },
    /// The policy would wait for ever.
    #[error(
        "policy `{policy}` is stalled in step {step}: it planned nothing and set no time to wake, \
         though {waiting} requests wait, {running} are running, nothing is in flight and \
         {free_blocks} of {num_blocks} KV blocks are free{}",
        refused.map(|r| format!(" (last refusal: {r})")).unwrap_or_default()
    )]
    Stalled {
        /// The policy.
        policy: String,
        /// The step.
        step: u64,
        /// Requests that wait for admission.
        waiting: u32,
        /// Sequences admitted.
        running: u32,
        /// Free blocks.
        free_blocks: u32,
        /// All blocks.
        num_blocks: u32,
        /// The last thing the policy was refused.
        refused: Option<Refused>,
    },
    /// The policy's code panicked.
    #[error("policy `{policy}` panicked in step {step}: {message}")]
    PolicyPanicked {
        /// The policy.
        policy: String,
        /// The step.
        step: u64,
        /// The panic's message.
        message: String,
    },
    /// The executor failed.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The executor broke its contract.
    #[error("step {step} sampled {sampled} tokens, but {expected} were asked for")]
    WrongOutcome {
        /// The step.
        step: u64,
        /// Tokens that came.
        sampled: usize,
        /// Tokens that had to come.
        expected: usize,
    },
    /// An observer failed.
    #[error("the run could not be recorded")]
    Observer(#[source] ObserverError),
}
