use std::fmt;
use std::path::{Path, PathBuf};

use super::checksums::Checksums;
use super::messages::{Messages, Next};
use super::tables::{OfStep, Table};
use super::{CONDITIONS, FORMAT_VERSION, StoreError};
use crate::{
    Conditions, Header, OperatorSpan, Preemption, Request, RequestEnd, StepRecord, Token, Trace,
    Work,
};

/// Reads stored traces.
#[derive(Debug)]
pub struct TraceReader {
    dir: PathBuf,
    checksums: Checksums,
    missing: Vec<Missing>,
}

/// Something that a trace should hold and does not, because its run was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The file ends before the table was closed; all whole batches before that were read.
    Tail {
        /// The file.
        path: PathBuf,
        /// Rows that could be read.
        rows_read: usize,
    },
    /// Rows of steps whose own record was not written any more; they were left out.
    StepRecords {
        /// Tokens left out.
        tokens: usize,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tail { path, rows_read } => write!(
                f,
                "{}: the table was not closed (the run was killed, or is still going on); \
                 {rows_read} rows are whole and were read",
                path.display()
            ),
            Self::StepRecords { tokens } => write!(
                f,
                "{tokens} tokens belong to steps whose record was not written any more; they were \
                 left out"
            ),
        }
    }
}

impl TraceReader {
    /// Reads the trace in the directory `dir`, with what it should hold and does not.
    pub fn read(dir: &Path) -> Result<(Trace, Vec<Missing>), StoreError> {
        let checksums = Checksums::read(dir)?;
        let mut reader = Self { dir: dir.to_owned(), checksums, missing: Vec::new() };
        let mut header = reader.header()?;
        header.machine.conditions = reader.conditions()?;
        let mut trace = Trace {
            header,
            requests: reader.table::<Request>()?,
            steps: reader.table::<StepRecord>()?,
            tokens: reader.table::<Token>()?,
            ends: reader.table::<RequestEnd>()?,
        };
        let work = reader.table::<OfStep<Work>>()?;
        let preemptions = reader.table::<OfStep<Preemption>>()?;
        let operators = reader.optional_table::<OfStep<OperatorSpan>>()?;
        join(&mut trace.steps, operators, |step, row| step.operators.push(row));
        join(&mut trace.steps, work, |step, row| step.work.push(row));
        join(&mut trace.steps, preemptions, |step, row| step.preemptions.push(row));
        reader.leave_out_stray_tokens(&mut trace);
        Ok((trace, reader.missing))
    }

    fn header(&self) -> Result<Header, StoreError> {
        let path = self.dir.join("header.json");
        let text = std::fs::read_to_string(&path).map_err(|error| StoreError::io(&path, &error))?;
        let malformed = |error: serde_json::Error| StoreError::Malformed {
            path: path.clone(),
            cause: format!("not a trace's header: {error}"),
        };
        // The version comes first: another version's header need not have our fields.
        let json: serde_json::Value = serde_json::from_str(&text).map_err(malformed)?;
        let version = json.get("format_version").and_then(serde_json::Value::as_u64);
        match version {
            Some(found) if found != u64::from(FORMAT_VERSION) => {
                Err(StoreError::Version { path: path.clone(), found })
            }
            _ => serde_json::from_value(json).map_err(malformed),
        }
    }

    fn conditions(&self) -> Result<Option<Conditions>, StoreError> {
        let path = self.dir.join(CONDITIONS);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|error| StoreError::io(&path, &error))?;
        serde_json::from_str(&text).map(Some).map_err(|error| StoreError::Malformed {
            path,
            cause: format!("not the conditions of a run: {error}"),
        })
    }

    /// A table that only some traces have.
    fn optional_table<T: Table>(&mut self) -> Result<Vec<T>, StoreError> {
        if self.dir.join(T::FILE).exists() { self.table() } else { Ok(Vec::new()) }
    }

    fn table<T: Table>(&mut self) -> Result<Vec<T>, StoreError> {
        let path = self.dir.join(T::FILE);
        self.checksums.check(&self.dir, T::FILE)?;
        let mut messages = Messages::open(&path).map_err(|error| StoreError::io(&path, &error))?;
        let mut rows = Vec::new();
        loop {
            let next = messages.next().map_err(|error| StoreError::arrow(&path, error))?;
            match next {
                Next::Batch(batch) => rows.extend(
                    T::from_batch(&batch).map_err(|error| StoreError::arrow(&path, error))?,
                ),
                Next::Closed => return Ok(rows),
                // Here the run was killed; half a batch may stand before the end.
                Next::CutOff => {
                    self.missing.push(Missing::Tail { path, rows_read: rows.len() });
                    return Ok(rows);
                }
            }
        }
    }

    fn leave_out_stray_tokens(&mut self, trace: &mut Trace) {
        let before = trace.tokens.len();
        let steps = trace.steps.len() as u64;
        trace.tokens.retain(|token| token.step.is_none_or(|step| step < steps));
        let tokens = before - trace.tokens.len();
        if tokens > 0 {
            self.missing.push(Missing::StepRecords { tokens });
        }
    }
}

/// Gives each row to its step; both are in order of steps, and steps are numbered from 0.
fn join<T>(
    steps: &mut [StepRecord],
    rows: Vec<OfStep<T>>,
    mut give: impl FnMut(&mut StepRecord, T),
) {
    for OfStep { step, row } in rows {
        if let Some(record) = steps.get_mut(step as usize) {
            give(record, row);
        }
    }
}
