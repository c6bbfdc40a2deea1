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

use metron_engine::EngineError;
use metron_lab::LabError;

use crate::exit::{Failure, Kind};

/// The kind of a failed experiment.
pub(crate) fn lab_failure(error: LabError) -> Failure {
    let kind = match &error {
        LabError::Interrupted => Kind::Interrupted,
        LabError::Store(_) | LabError::Engine(EngineError::Observer(_)) => Kind::Environment,
        LabError::Engine(EngineError::TooLong { .. } | EngineError::NeverFits { .. }) => {
            Kind::Usage
        }
        LabError::Workload { .. } => Kind::Input,
        LabError::NothingToJudge { .. } => Kind::Usage,
        LabError::NothingMeasured | LabError::Engine(_) | LabError::Executor(_) => Kind::Internal,
    };
    Failure { kind, error: error.into() }
}
