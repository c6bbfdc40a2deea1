//! What a person or a program reads: a terminal table, JSON, and one self-contained HTML file.
//!
//! Everything is drawn from plain types of `metrics` and `trace`; nothing here prints.

mod blame;
mod calibration;
mod columns;
mod explanation;
mod figures;
mod html;
mod notes;
mod report;
mod rows;
mod text;
mod units;

pub use blame::blame_text;
pub use calibration::calibration_text;
pub use columns::columns;
pub use explanation::explanation_text;
pub use report::{Report, Run, SCHEMA_VERSION, Style};
