use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use arrow_array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};

use super::StoreError;
use super::checksums::{Checksum, Checksums, SummedFile};
use super::rows::Rows;
use super::tables::{OfStep, Table};
use crate::{OperatorSpan, Preemption, Request, RequestEnd, StepRecord, Token, Work};

/// Makes a new file.
pub(super) type Open = Box<dyn Fn(&Path) -> io::Result<Box<dyn Write + Send>> + Send>;

/// The open files, in the hands of the writing thread.
pub(super) struct Tables {
    dir: PathBuf,
    open: Open,
    requests: TableFile,
    steps: TableFile,
    work: TableFile,
    preemptions: TableFile,
    /// Created with its first row.
    operators: Option<TableFile>,
    tokens: TableFile,
    ends: TableFile,
}

impl Tables {
    /// Creates the tables in `dir`.
    pub(super) fn create(dir: &Path, open: Open) -> Result<Self, StoreError> {
        Ok(Self {
            dir: dir.to_owned(),
            requests: TableFile::create::<Request>(dir, &open)?,
            steps: TableFile::create::<StepRecord>(dir, &open)?,
            work: TableFile::create::<OfStep<Work>>(dir, &open)?,
            preemptions: TableFile::create::<OfStep<Preemption>>(dir, &open)?,
            operators: None,
            tokens: TableFile::create::<Token>(dir, &open)?,
            ends: TableFile::create::<RequestEnd>(dir, &open)?,
            open,
        })
    }

    /// Writes what comes until no more can come, and counts it off from the bytes that wait.
    pub(super) fn write_all(
        mut self,
        incoming: &Receiver<Box<Rows>>,
        waiting: &AtomicUsize,
    ) -> Result<(), StoreError> {
        while let Ok(rows) = incoming.recv() {
            self.append(&rows).map_err(|error| StoreError::Lost {
                cause: Box::new(error),
                whole_until: rows.since,
            })?;
            waiting.fetch_sub(rows.bytes(), Ordering::Relaxed);
        }
        let tables =
            [self.requests, self.work, self.preemptions, self.tokens, self.steps, self.ends];
        let closed = tables.into_iter().chain(self.operators).map(TableFile::close);
        Checksums(closed.collect::<Result<_, _>>()?).write(&self.dir)
    }

    fn append(&mut self, rows: &Rows) -> Result<(), StoreError> {
        self.requests.append(&rows.requests)?;
        self.work.append(&rows.work)?;
        self.preemptions.append(&rows.preemptions)?;
        self.append_operators(&rows.operators)?;
        self.tokens.append(&rows.tokens)?;
        // After the tables that its rows need, so that a step that can be read is whole.
        self.steps.append(&rows.steps)?;
        self.ends.append(&rows.ends)
    }

    fn append_operators(&mut self, rows: &[OfStep<OperatorSpan>]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let table = match self.operators.take() {
            Some(table) => table,
            None => TableFile::create::<OfStep<OperatorSpan>>(&self.dir, &self.open)?,
        };
        self.operators.insert(table).append(rows)
    }
}

struct TableFile {
    path: PathBuf,
    stream: StreamWriter<BufWriter<SummedFile>>,
}

impl TableFile {
    fn create<T: Table>(dir: &Path, open: &Open) -> Result<Self, StoreError> {
        let path = dir.join(T::FILE);
        let file = open(&path).map_err(|error| StoreError::io(&path, &error))?;
        let begin = || {
            let options = IpcWriteOptions::default()
                .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
            let schema = T::to_batch(&[])?.schema();
            let file = BufWriter::new(SummedFile::new(file));
            let mut stream = StreamWriter::try_new_with_options(file, &schema, options)?;
            stream.flush()?;
            Ok(stream)
        };
        let stream = begin().map_err(|error| StoreError::arrow(&path, error))?;
        Ok(Self { path, stream })
    }

    fn append<T: Table>(&mut self, rows: &[T]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        T::to_batch(rows)
            .and_then(|batch: RecordBatch| self.stream.write(&batch))
            .and_then(|()| self.stream.flush())
            .map_err(|error| StoreError::arrow(&self.path, error))
    }

    /// The file's name, and what was written into it.
    fn close(self) -> Result<(String, Checksum), StoreError> {
        let fail = |error| StoreError::arrow(&self.path, error);
        // Finishes the stream first.
        let buffered = self.stream.into_inner().map_err(fail)?;
        let file = buffered.into_inner().map_err(|error| fail(error.into_error().into()))?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, file.checksum()))
    }
}
