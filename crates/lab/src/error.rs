use std::path::PathBuf;

use metron_engine::{EngineError, ExecutorError};
use metron_metrics::Objective;
use metron_trace::StoreError;

use crate::run::SameFiles;

/// Why an experiment could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A run failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The executor could not start.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The trace could not be written or read back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The calibration ended before anything was measured.
    #[error("the calibration measured no prefill; give it lengths that fit the context")]
    NothingMeasured,
    /// Two policies would destroy each other's traces.
    #[error(transparent)]
    SameFiles(#[from] SameFiles),
    /// Where a run's trace belongs there is one of other options under the same label.
    #[error(
        "{} has a whole run of `{label}` with other options: it is not replaced; give the policy \
         another label, or use another directory", place.display()
    )]
    AnothersTrace {
        /// The trace's directory.
        place: PathBuf,
        /// The label of whose run it is.
        label: String,
    },
    /// The user stopped the calibration.
    #[error("interrupted during the calibration; nothing was measured")]
    Interrupted,
    /// No request of a run has what an objective bounds.
    #[error(
        "`{objective}` applies to no request of a run: none of its class came, or none has more \
         than one token; use more requests (--num-prompts), or drop it"
    )]
    NothingToJudge {
        /// The objective.
        objective: Objective,
    },
    /// The requests of a replicate can't be made.
    #[error("the requests of replicate {} can't be made: {cause}", replicate + 1)]
    Workload {
        /// Which, from 0.
        replicate: u32,
        /// Why.
        cause: String,
    },
}

/// One run of several that failed; what the others have told stands.
#[derive(Debug, thiserror::Error)]
#[error(
    "{policy}, replicate {}{}: {cause}",
    replicate + 1,
    rate.map(|rate| format!(", at {rate} requests/s")).unwrap_or_default()
)]
pub struct FailedRun {
    /// Whose run it was.
    pub policy: String,
    /// Which repetition, from 0.
    pub replicate: u32,
    /// The rate of a search.
    pub rate: Option<f64>,
    /// Why it failed.
    #[source]
    pub cause: LabError,
}
