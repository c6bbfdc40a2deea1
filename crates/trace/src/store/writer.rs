use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};

use super::checksums::{Checksum, Checksums, SummedFile};
use super::tables::{OfStep, Table};
use super::{CONDITIONS, StoreError};
use crate::{
    Conditions, Header, OperatorSpan, Origin, Preemption, Request, RequestEnd, StepRecord,
    Timestamp, Token, Trace, Work,
};

/// Rows are flushed when so many are waiting, ...
const FLUSH_ROWS: usize = 16_384;
/// ... and in a measured run, which may be killed, by the first append at which the oldest of them
/// has waited so long. In virtual time hours pass in a moment, and would leave a flush each second.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Writes a trace while the run goes on.
///
/// Appending copies a row into a buffer; a thread of the writer's own does the rest, so the run
/// never waits for the disk. What could not be written is reported by the next append, or by
/// [`finish`](Self::finish); what was written before stands.
#[derive(Debug)]
pub struct TraceWriter {
    dir: PathBuf,
    rows: Rows,
    /// Rows that were handed to the writing thread and are not on disk yet.
    handed_over: Arc<AtomicUsize>,
    /// When the oldest of `rows` was appended.
    oldest_at: Option<Timestamp>,
    /// How long it may wait.
    flush_after: Option<Duration>,
    to_disk: Sender<Rows>,
    disk: JoinHandle<Result<(), StoreError>>,
}

/// Rows not yet handed to the writing thread.
#[derive(Debug, Default)]
struct Rows {
    requests: Vec<Request>,
    steps: Vec<StepRecord>,
    work: Vec<OfStep<Work>>,
    preemptions: Vec<OfStep<Preemption>>,
    operators: Vec<OfStep<OperatorSpan>>,
    tokens: Vec<Token>,
    ends: Vec<RequestEnd>,
}

impl Rows {
    fn count(&self) -> usize {
        self.requests.len()
            + self.steps.len()
            + self.work.len()
            + self.preemptions.len()
            + self.operators.len()
            + self.tokens.len()
            + self.ends.len()
    }
}

impl TraceWriter {
    /// Creates the directory `dir` and the header in it. An old trace there is an error.
    pub fn create(dir: &Path, header: &Header) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| StoreError::io(dir, &error))?;
        let path = dir.join("header.json");
        let file = File::create_new(&path).map_err(|error| StoreError::io(&path, &error))?;
        serde_json::to_writer_pretty(file, header)
            .map_err(|error| StoreError::io(&path, &error.into()))?;
        let (to_disk, rows) = channel();
        let handed_over = Arc::new(AtomicUsize::new(0));
        let tables = Tables::create(dir)?;
        let disk = std::thread::Builder::new()
            .name("trace-writer".to_owned())
            .spawn({
                let handed_over = Arc::clone(&handed_over);
                move || tables.write_all(&rows, &handed_over)
            })
            .map_err(|error| StoreError::io(dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            rows: Rows::default(),
            handed_over,
            oldest_at: None,
            flush_after: (header.origin == Origin::Measured).then_some(FLUSH_AFTER),
            to_disk,
            disk,
        })
    }

    /// Writes a whole trace into the directory `dir`; an old trace there is an error.
    pub fn write(dir: &Path, trace: &Trace) -> Result<(), StoreError> {
        let mut writer = Self::create(dir, &trace.header)?;
        for request in &trace.requests {
            writer.append_request(request)?;
        }
        for step in &trace.steps {
            writer.append_step(step, &[])?;
        }
        for token in &trace.tokens {
            writer.append_token(token)?;
        }
        for end in &trace.ends {
            writer.append_end(end)?;
        }
        writer.finish()
    }

    /// A request arrived.
    pub fn append_request(&mut self, request: &Request) -> Result<(), StoreError> {
        self.rows.requests.push(request.clone());
        self.flush_if_due(request.arrived_at)
    }

    /// A step is done, with its tokens.
    pub fn append_step(&mut self, step: &StepRecord, tokens: &[Token]) -> Result<(), StoreError> {
        let of_step = step.index;
        self.rows.work.extend(step.work.iter().map(|&row| OfStep { step: of_step, row }));
        self.rows
            .preemptions
            .extend(step.preemptions.iter().map(|&row| OfStep { step: of_step, row }));
        self.rows.operators.extend(step.operators.iter().map(|&row| OfStep { step: of_step, row }));
        self.rows.tokens.extend(tokens);
        // What has a table of its own is left behind.
        self.rows.steps.push(StepRecord {
            work: Vec::new(),
            preemptions: Vec::new(),
            operators: Vec::new(),
            ..*step
        });
        self.flush_if_due(step.ended_at)
    }

    fn append_token(&mut self, token: &Token) -> Result<(), StoreError> {
        self.rows.tokens.push(*token);
        self.flush_if_due(token.at)
    }

    /// A request ended.
    pub fn append_end(&mut self, end: &RequestEnd) -> Result<(), StoreError> {
        self.rows.ends.push(*end);
        self.flush_if_due(end.ended_at)
    }

    /// What the machine was like during the run.
    pub fn write_conditions(&self, conditions: &Conditions) -> Result<(), StoreError> {
        let path = self.dir.join(CONDITIONS);
        let file = File::create_new(&path).map_err(|error| StoreError::io(&path, &error))?;
        serde_json::to_writer_pretty(file, conditions)
            .map_err(|error| StoreError::io(&path, &error.into()))
    }

    /// Rows that are not on disk yet, and so in memory.
    pub fn rows_waiting(&self) -> usize {
        self.rows.count() + self.handed_over.load(Ordering::Relaxed)
    }

    /// Writes what is left, and waits for the disk.
    pub fn finish(mut self) -> Result<(), StoreError> {
        // If the thread has failed, joining it says why.
        let _ = self.hand_over();
        drop(self.to_disk);
        join(self.disk)
    }

    /// Gives the rows to the writing thread; false if that has failed.
    fn hand_over(&mut self) -> bool {
        let rows = std::mem::take(&mut self.rows);
        self.handed_over.fetch_add(rows.count(), Ordering::Relaxed);
        self.to_disk.send(rows).is_ok()
    }

    fn flush_if_due(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let rows = &self.rows;
        let waiting =
            rows.work.len() + rows.tokens.len() + rows.requests.len() + rows.operators.len();
        let age = now.since(*self.oldest_at.get_or_insert(now));
        if waiting < FLUSH_ROWS && self.flush_after.is_none_or(|limit| age < limit) {
            return Ok(());
        }
        self.oldest_at = None;
        if self.hand_over() {
            return Ok(());
        }
        let stopped = std::thread::spawn(|| Ok(()));
        join(std::mem::replace(&mut self.disk, stopped))
    }
}

fn join(disk: JoinHandle<Result<(), StoreError>>) -> Result<(), StoreError> {
    disk.join().unwrap_or_else(|_| {
        Err(StoreError::Malformed {
            path: PathBuf::new(),
            cause: "the thread that writes the trace panicked".to_owned(),
        })
    })
}

/// The open files, in the hands of the writing thread.
struct Tables {
    dir: PathBuf,
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
    fn create(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            dir: dir.to_owned(),
            requests: TableFile::create::<Request>(dir)?,
            steps: TableFile::create::<StepRecord>(dir)?,
            work: TableFile::create::<OfStep<Work>>(dir)?,
            preemptions: TableFile::create::<OfStep<Preemption>>(dir)?,
            operators: None,
            tokens: TableFile::create::<Token>(dir)?,
            ends: TableFile::create::<RequestEnd>(dir)?,
        })
    }

    fn write_all(
        mut self,
        incoming: &Receiver<Rows>,
        waiting: &AtomicUsize,
    ) -> Result<(), StoreError> {
        while let Ok(rows) = incoming.recv() {
            self.requests.append(&rows.requests)?;
            self.work.append(&rows.work)?;
            self.preemptions.append(&rows.preemptions)?;
            self.append_operators(&rows.operators)?;
            self.tokens.append(&rows.tokens)?;
            // After the tables that its rows need, so that a step that can be read is whole.
            self.steps.append(&rows.steps)?;
            self.ends.append(&rows.ends)?;
            waiting.fetch_sub(rows.count(), Ordering::Relaxed);
        }
        let tables =
            [self.requests, self.work, self.preemptions, self.tokens, self.steps, self.ends];
        let closed = tables.into_iter().chain(self.operators).map(TableFile::close);
        Checksums(closed.collect::<Result<_, _>>()?).write(&self.dir)
    }

    fn append_operators(&mut self, rows: &[OfStep<OperatorSpan>]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let table = match self.operators.take() {
            Some(table) => table,
            None => TableFile::create::<OfStep<OperatorSpan>>(&self.dir)?,
        };
        self.operators.insert(table).append(rows)
    }
}

struct TableFile {
    path: PathBuf,
    stream: StreamWriter<BufWriter<SummedFile>>,
}

impl TableFile {
    fn create<T: Table>(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(T::FILE);
        let file = File::create_new(&path).map_err(|error| StoreError::io(&path, &error))?;
        let open = || {
            let options = IpcWriteOptions::default()
                .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
            let schema = T::to_batch(&[])?.schema();
            let file = BufWriter::new(SummedFile::new(file));
            let mut stream = StreamWriter::try_new_with_options(file, &schema, options)?;
            stream.flush()?;
            Ok(stream)
        };
        let stream = open().map_err(|error| StoreError::arrow(&path, error))?;
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
