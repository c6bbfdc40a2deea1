//! What a person or a program reads: a terminal table, JSON, and one self-contained HTML file.
//!
//! Everything is drawn from plain types of `metrics` and `trace`; nothing here prints.

mod blame;
mod calibration;
mod capacity;
mod capacity_page;
mod columns;
mod diff;
mod doubts;
mod explanation;
mod figures;
mod html;
mod inputs;
mod label;
mod notes;
mod perfetto;
mod profile;
mod report;
mod rows;
mod text;
mod units;
mod verdicts;
mod vllm;

pub use blame::blame_text;
pub use calibration::calibration_text;
pub use capacity::CapacityReport;
pub use columns::columns;
pub use diff::{Diff, Pair, Side};
pub use doubts::bare_doubts_text;
pub use explanation::explanation_text;
pub use html::RANDOM_WEIGHTS;
pub use inputs::differing_inputs;
pub use perfetto::write_perfetto;
pub use profile::ProfileReport;
pub use report::{Report, SCHEMA_VERSION, Style};
pub use vllm::vllm_result;
