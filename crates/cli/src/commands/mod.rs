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
use metron_lab::{FailedRun, LabError};

use crate::exit::{Failure, Kind};

/// The kind of a failed experiment.
pub(crate) fn lab_failure(error: LabError) -> Failure {
    Failure { kind: kind_of(&error), error: error.into() }
}

fn kind_of(error: &LabError) -> Kind {
    match error {
        LabError::Interrupted => Kind::Interrupted,
        LabError::Store(_) | LabError::Engine(EngineError::Observer(_)) => Kind::Environment,
        LabError::Engine(EngineError::TooLong { .. } | EngineError::NeverFits { .. }) => {
            Kind::Usage
        }
        LabError::Workload { .. } => Kind::Input,
        LabError::NothingToJudge { .. } => Kind::Usage,
        LabError::NothingMeasured | LabError::Engine(_) | LabError::Executor(_) => Kind::Internal,
    }
}

/// The failure of an experiment of which other runs stand.
pub(crate) fn failed_run(failed: &FailedRun) -> Failure {
    let kind = kind_of(&failed.cause);
    let said = format!("{failed}; what was measured before it is reported and saved");
    Failure { kind, error: anyhow::anyhow!(said) }
}
