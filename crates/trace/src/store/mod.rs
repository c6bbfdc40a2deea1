//! The stored form of a trace: a directory with `header.json` and one Arrow IPC stream a table.
//!
//! | file | a row for each |
//! | --- | --- |
//! | `requests.arrows` | request that arrived |
//! | `work.arrows` | piece of work of each step |
//! | `preemptions.arrows` | preemption |
//! | `operators.arrows` | operator of each step and layer; only where operators were timed |
//! | `tokens.arrows` | output token |
//! | `steps.arrows` | step |
//! | `ends.arrows` | request that ended |
//!
//! Beside them `conditions.json` says what the machine was like during the run, where somebody
//! looked; a reader puts it into the header.
//!
//! The tables are written while the run goes on, in flushed record batches, by a thread of their
//! own. A killed run leaves every whole batch readable; of each flush, `steps` is written after
//! the tables that its rows need, so a step that can be read is whole. A run that comes to its end
//! leaves `checksums.json`, the length and CRC-32 of each table. Times are nanoseconds
//! since the start of the run. In Python, one table is
//! `pyarrow.ipc.open_stream("run.trace/steps.arrows").read_pandas()`.

mod checksums;
mod columns;
mod disk;
mod messages;
mod reader;
mod rows;
mod tables;
mod writer;

use std::path::PathBuf;

use crate::Timestamp;

pub use reader::{Missing, TraceReader};
pub use writer::TraceWriter;

/// Version of the stored format. A reader refuses any other.
pub const FORMAT_VERSION: u32 = 2;

/// What the machine was like during the run, where somebody looked.
const CONDITIONS: &str = "conditions.json";

/// Why a trace could not be written or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: String,
        /// Whether the disk is full.
        disk_full: bool,
    },
    /// A run's trace ends before the run does.
    #[error(
        "{cause}; the trace is whole up to {whole_until} of the run, and what came later is lost"
    )]
    Lost {
        /// What the file system refused.
        cause: Box<Self>,
        /// Everything before it was written.
        whole_until: Timestamp,
    },
    /// The disk took so little for so long that there is no more memory for what waits.
    #[error(
        "{}: the disk has not taken what waits since {waiting_since} of the run, {megabytes} MB; \
         write to a faster disk (-o)", dir.display()
    )]
    Behind {
        /// The trace's directory.
        dir: PathBuf,
        /// The first that waits.
        waiting_since: Timestamp,
        /// Memory that it takes.
        megabytes: usize,
    },
    /// The thread that writes the trace is gone.
    #[error("the thread that writes the trace {how}; what the tables hold already can be read")]
    Writer {
        /// How it went.
        how: &'static str,
    },
    /// A file is not what its name says.
    #[error("{}: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Written by another version.
    #[error(
        "{}: the trace has format version {found}, this Metron reads version {FORMAT_VERSION}; \
         read it with the Metron that wrote it", path.display()
    )]
    Version {
        /// The header.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

impl StoreError {
    /// What the system refused about a file.
    pub fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            cause: error.to_string(),
            disk_full: error.kind() == std::io::ErrorKind::StorageFull,
        }
    }

    fn arrow(path: impl Into<PathBuf>, error: arrow_schema::ArrowError) -> Self {
        let path = path.into();
        match error {
            arrow_schema::ArrowError::IoError(_, error) => Self::io(path, &error),
            other => Self::Malformed { path, cause: other.to_string() },
        }
    }
}
