//! Results of other tools as traces, with what those tools know: no steps, the times of tokens as a
//! client saw them, and arrivals where they were kept.

mod aiperf;
mod build;
mod error;
mod etalon;
mod fields;
mod vllm;

use std::fmt;

pub use error::ImportError;

use crate::Trace;

/// A tool whose results can become a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Etalon, the original tool of the Metron paper: its `request_level_metrics.json`.
    Etalon,
    /// `vllm bench serve --save-result --save-detailed`: its JSON, with the lists per request.
    Vllm,
    /// NVIDIA's `AIPerf`: its `profile_export.jsonl`, a request a line.
    Aiperf,
}

/// A result of another tool, as a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The trace; its policy is labelled as the file says, or by the tool's name.
    pub trace: Trace,
    /// What a reader of its numbers has to know.
    pub notes: Vec<ImportNote>,
}

/// Something that a result does not say, or says otherwise than a trace would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportNote {
    /// Records of the warm-up, left out.
    WarmUp {
        /// How many.
        records: usize,
    },
    /// Requests for which the tool has another number of times than of output tokens: it took one a
    /// chunk, and chunks may hold several tokens or none. The times stand as they are.
    OtherTimes {
        /// How many.
        requests: usize,
        /// Of how many.
        all: usize,
    },
}

impl fmt::Display for ImportNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WarmUp { records } => {
                write!(f, "records of the warm-up left out: {records}")
            }
            Self::OtherTimes { requests, all } => write!(
                f,
                "{requests} of {all} requests have another number of times than of output tokens (a \
                 time is one chunk's, and a chunk may hold several tokens); the times are taken as \
                 they stand"
            ),
        }
    }
}

impl Tool {
    /// Its name, as users type it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etalon => "etalon",
            Self::Vllm => "vllm",
            Self::Aiperf => "aiperf",
        }
    }

    /// Makes a trace of the text of a result. Times are kept within 1 ns, rounded since each
    /// request's arrival, so that errors do not add up.
    pub fn import(self, text: &str) -> Result<Imported, ImportError> {
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Err(ImportError::Empty);
        }
        match self {
            Self::Etalon => etalon::import(text),
            Self::Vllm => vllm::import(text),
            Self::Aiperf => aiperf::import(text),
        }
    }
}
