use metron_trace::RequestId;

use crate::executor::ExecutorError;
use crate::observer::ObserverError;
use crate::planner::Refused;
use crate::scheduler::Wake;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A setting that must not be 0.
    #[error("{setting} is 0; it must be at least 1")]
    Zero {
        /// Its name.
        setting: &'static str,
    },
    /// Ids are places, so that none stands twice.
    #[error("{id} is number {place} of the submissions, from 0; the ids must count them")]
    WrongId {
        /// The request.
        id: RequestId,
        /// Its place.
        place: u32,
    },
    /// A request has a prompt, and gets an output.
    #[error("{id} has an empty prompt, or is to get no output; both take at least one token")]
    NothingAsked {
        /// The request.
        id: RequestId,
    },
    /// Its length is beyond its own cap.
    #[error(
        "{id} is to get {output_tokens} output tokens, more than its cap of {max_tokens} \
         (max_tokens); raise the cap"
    )]
    AboveCap {
        /// The request.
        id: RequestId,
        /// Its true output length.
        output_tokens: u32,
        /// Its cap.
        max_tokens: u32,
    },
    /// The ids are not the prompt's.
    #[error(
        "{id} has a prompt of {prompt_tokens} tokens, but comes with {ids} token ids; give it as \
         many, or none in virtual time"
    )]
    PromptLength {
        /// The request.
        id: RequestId,
        /// Token ids that came with it.
        ids: usize,
        /// The length of its prompt.
        prompt_tokens: u32,
    },
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
        "policy `{policy}` is stalled in step {step}: it planned nothing and {}, though \
         nothing is in flight (waiting: {waiting}, running: {running}, free KV blocks: \
         {free_blocks} of {num_blocks}){}",
        match wake {
            Wake::OnEvent => "set no time to wake",
            Wake::At(_) => "asked to be woken at a time that has passed",
        },
        refused.map(|r| format!("; last refusal: {r}")).unwrap_or_default()
    )]
    Stalled {
        /// The policy.
        policy: String,
        /// The step.
        step: u64,
        /// When it wanted to be asked again.
        wake: Wake,
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
    /// The policy goes round in a circle.
    #[error(
        "policy `{policy}` makes no progress in step {step}: since anybody last got a token it has \
         preempted {preemptions} times, with {in_progress} requests in progress; what it admits \
         must run until it has its token"
    )]
    NoProgress {
        /// The policy.
        policy: String,
        /// The step.
        step: u64,
        /// Preemptions since the last token.
        preemptions: u64,
        /// Requests in progress.
        in_progress: u32,
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
    /// The executor mixed up its tokens.
    #[error("step {step} sampled a token for {sampled} where {expected} is next in the batch")]
    WrongToken {
        /// The step.
        step: u64,
        /// Whose token came.
        sampled: RequestId,
        /// Whose had to come.
        expected: RequestId,
    },
    /// An observer failed.
    #[error("the run could not be recorded")]
    Observer(#[source] ObserverError),
}
