//! Experiments: calibrate, run, compare, capacity. Generic over policies and executors.

mod calibrate;
mod capacity;
mod compare;
mod derive;
mod error;
mod overhead;
mod record;
mod rig;
mod run;

pub use calibrate::{Calibrated, CalibrationPlan, calibrate};
pub use capacity::{
    CapacitySearch, CapacitySetting, Found, Probe, SearchPlan, capacities, greatest_rate, saved_dir,
};
pub use compare::{Comparing, Repeating, Replicates, compare};
pub use derive::{Load, decode_deadline, first_token_slack, stall_limit};
pub use error::{FailedRun, LabError};
pub use overhead::{Overhead, OverheadPlan, overhead};
pub use record::DiskRecorder;
pub use rig::Rig;
pub use run::{
    Contestant, MeasuredRun, Requests, SameFiles, Setting, Watch, check_labels, file_name, measure,
};
