pub(crate) mod calibrate;
pub(crate) mod capacity;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod experiment;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod profile;
pub(crate) mod score;

use metron_engine::{EngineError, RunEnd};
use metron_lab::{FailedRun, LabError};

use crate::exit::{Failure, Kind};

/// The kind of a failed experiment.
pub(crate) fn lab_failure(error: LabError) -> Failure {
    Failure { kind: kind_of(&error), error: error.into() }
}

fn kind_of(error: &LabError) -> Kind {
    match error {
        LabError::Interrupted => Kind::Interrupted,
        LabError::Store(_) => Kind::Environment,
        LabError::Engine(error) => kind_of_run(error),
        LabError::Workload { .. } => Kind::Input,
        LabError::NothingToJudge { .. }
        | LabError::SameFiles(_)
        | LabError::AnothersTrace { .. } => Kind::Usage,
        LabError::NothingMeasured | LabError::Executor(_) => Kind::Internal,
    }
}

/// The kind of a failed run.
fn kind_of_run(error: &EngineError) -> Kind {
    match error {
        EngineError::Observer(_) => Kind::Environment,
        EngineError::TooLong { .. } | EngineError::NeverFits { .. } => Kind::Usage,
        _ => Kind::Internal,
    }
}

/// How an experiment ended whose runs have been reported and saved, as far as they went.
pub(crate) fn ended(end: RunEnd, failure: Option<&FailedRun>) -> Result<(), Failure> {
    let (kind, what) = match (end, failure) {
        (_, Some(failed)) => (kind_of(&failed.cause), failed.to_string()),
        (RunEnd::Stopped, None) => (Kind::Interrupted, "interrupted".to_owned()),
        (RunEnd::Complete, None) => return Ok(()),
    };
    let error = anyhow::anyhow!("{what}; what was measured is reported and saved");
    Err(Failure { kind, error })
}
