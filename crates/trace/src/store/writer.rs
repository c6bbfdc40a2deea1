use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::disk::{Open, Tables};
use super::rows::Rows;
use super::{CONDITIONS, StoreError};
use crate::{Conditions, Header, Origin, Request, RequestEnd, StepRecord, Timestamp, Token, Trace};

/// Rows are flushed when so many are waiting, ...
const FLUSH_ROWS: usize = 16_384;
/// ... and in a measured run, which may be killed, by the first append at which the oldest of them
/// has waited so long. In virtual time hours pass in a moment, and would leave a flush each second.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// So many flushes wait for the disk in a queue, of a megabyte each at most, ...
const QUEUE: usize = 16;
/// ... and behind a full queue rows gather until they take so much memory, in bytes.
const MOST_GATHERED: usize = 32 << 20;

/// Writes a trace while the run goes on.
///
/// Appending copies a row into a buffer; a thread of the writer's own does the rest, so a measured
/// run never waits for the disk. What could not be written is reported by the next append, and by
/// [`finish`](Self::finish); what was written before stands. A disk that takes nothing for so long
/// that some 50 MB wait ends the run too. In virtual time the loop waits instead: that is in no
/// number.
#[derive(Debug)]
pub struct TraceWriter {
    dir: PathBuf,
    rows: Rows,
    /// When the oldest of `rows` was appended.
    oldest_at: Option<Timestamp>,
    queue: SyncSender<Box<Rows>>,
    /// Bytes of the rows that are in the queue, or being written.
    queued: Arc<AtomicUsize>,
    waits_for_disk: bool,
    /// The writing thread, until it has failed.
    disk: Option<JoinHandle<Result<(), StoreError>>>,
    failed: Option<StoreError>,
}

impl TraceWriter {
    /// Creates the directory `dir` and the header in it. An old trace there is an error.
    pub fn create(dir: &Path, header: &Header) -> Result<Self, StoreError> {
        Self::create_on(dir, header, |path| Ok(Box::new(File::create_new(path)?)))
    }

    /// As [`create`](Self::create), with tables in what `open` makes for each of their paths.
    pub fn create_on(
        dir: &Path,
        header: &Header,
        open: impl Fn(&Path) -> io::Result<Box<dyn Write + Send>> + Send + 'static,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| StoreError::io(dir, &error))?;
        let path = dir.join("header.json");
        let file = File::create_new(&path).map_err(|error| StoreError::io(&path, &error))?;
        serde_json::to_writer_pretty(file, header)
            .map_err(|error| StoreError::io(&path, &error.into()))?;
        let (queue, rows) = sync_channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let open: Open = Box::new(open);
        let tables = Tables::create(dir, open)?;
        let disk = std::thread::Builder::new()
            .name("trace-writer".to_owned())
            .spawn({
                let queued = Arc::clone(&queued);
                move || tables.write_all(&rows, &queued)
            })
            .map_err(|error| StoreError::io(dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            rows: Rows::default(),
            oldest_at: None,
            queue,
            queued,
            waits_for_disk: header.origin != Origin::Measured,
            disk: Some(disk),
            failed: None,
        })
    }

    /// Writes a whole trace into the directory `dir`; an old trace there is an error.
    pub fn write(dir: &Path, trace: &Trace) -> Result<(), StoreError> {
        let mut writer = Self::create(dir, &trace.header)?;
        writer.waits_for_disk = true;
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
        self.rows.push_step(step, tokens);
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

    /// Memory of the rows that are not on disk yet, in bytes.
    pub fn bytes_waiting(&self) -> usize {
        self.rows.bytes() + self.queued.load(Ordering::Relaxed)
    }

    /// Writes what is left, and waits for the disk.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let Some(disk) = self.disk.take() else { return self.failed.map_or(Ok(()), Err) };
        self.queued.fetch_add(self.rows.bytes(), Ordering::Relaxed);
        // If the thread has failed, joining it says why.
        let _ = self.queue.send(Box::new(self.rows));
        drop(self.queue);
        join(disk)
    }

    fn flush_if_due(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let age = now.since(*self.oldest_at.get_or_insert(now));
        let is_old = !self.waits_for_disk && age >= FLUSH_AFTER;
        if self.rows.count() < FLUSH_ROWS && !is_old {
            return Ok(());
        }
        let rows = Box::new(std::mem::replace(&mut self.rows, Rows::since(now)));
        let bytes = rows.bytes();
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        match self.hand_over(rows) {
            Ok(()) => {
                self.oldest_at = None;
                Ok(())
            }
            Err(TrySendError::Full(rows)) => {
                self.queued.fetch_sub(bytes, Ordering::Relaxed);
                self.rows = *rows;
                self.check_gathered(bytes)
            }
            Err(TrySendError::Disconnected(_)) => Err(self.failure()),
        }
    }

    /// Gives rows to the writing thread.
    fn hand_over(&self, rows: Box<Rows>) -> Result<(), TrySendError<Box<Rows>>> {
        if self.waits_for_disk {
            let gone = |SendError(rows)| TrySendError::Disconnected(rows);
            return self.queue.send(rows).map_err(gone);
        }
        self.queue.try_send(rows)
    }

    fn check_gathered(&self, bytes: usize) -> Result<(), StoreError> {
        if bytes <= MOST_GATHERED {
            return Ok(());
        }
        let (dir, waiting_since) = (self.dir.clone(), self.rows.since);
        Err(StoreError::Behind { dir, waiting_since, megabytes: self.bytes_waiting() / 1_000_000 })
    }

    /// Why the writing thread has ended; the same each time.
    fn failure(&mut self) -> StoreError {
        if let Some(disk) = self.disk.take() {
            self.failed = join(disk).err();
        }
        self.failed.clone().unwrap_or(StoreError::Writer { how: "ended before the run" })
    }
}

fn join(disk: JoinHandle<Result<(), StoreError>>) -> Result<(), StoreError> {
    disk.join().unwrap_or(Err(StoreError::Writer { how: "panicked" }))
}
