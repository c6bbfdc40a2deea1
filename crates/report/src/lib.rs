//! What a person or a program reads: a terminal table, JSON, and one self-contained HTML file.
//!
//! Everything is drawn from plain types of `metrics` and `trace`; nothing here prints.

mod calibration;
mod columns;
mod figures;
mod html;
mod notes;
mod report;
mod rows;
mod text;
mod units;
mod verdicts;

pub use calibration::calibration_text;
pub use columns::columns;
pub use report::{Report, Run, SCHEMA_VERSION, Style};
