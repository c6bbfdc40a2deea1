//! What a person or a program reads: a terminal table, JSON, and one self-contained HTML file.
//!
//! Everything is drawn from plain types of `metrics` and `trace`; nothing here prints.

mod calibration;
mod capacity;
mod columns;
mod figures;
mod html;
mod notes;
mod report;
mod rows;
mod text;
mod units;

pub use calibration::calibration_text;
pub use capacity::CapacityReport;
pub use columns::columns;
pub use report::{Report, Run, SCHEMA_VERSION, Style};
