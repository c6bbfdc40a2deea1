//! One transfer of one file, watched for silence.

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFError, HFRepository, RepoTypeModel};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::environment::Patience;
use super::progress::Progress;

/// A file that is in the cache now.
pub(super) struct Arrival {
    /// Its place in a snapshot of the cache.
    pub(super) path: PathBuf,
    /// The length that the hub announced, if this call asked the hub for the file's content.
    announced_bytes: Option<u64>,
}

/// Why a file did not arrive.
pub(super) enum Fault {
    /// The repository has no such file.
    NoSuchFile,
    /// No answer in the time given.
    NoAnswer(Duration),
    /// The transfer began, and then ended early or fell silent.
    BrokeOff(String),
    /// Anything else that hf-hub reports.
    Hub(HFError),
}

impl Arrival {
    /// Whether the file was not in the cache before.
    pub(super) fn is_new(&self) -> bool {
        self.announced_bytes.is_some()
    }

    /// Itself, unless its length is not the announced one: hf-hub stores any answer, an error's
    /// text included.
    pub(super) fn with_its_length(self) -> Result<Self, Fault> {
        let bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        match self.announced_bytes {
            // Zero stands for a length that the hub did not announce.
            Some(announced) if announced != 0 && announced != bytes => {
                self.discard();
                Err(Fault::BrokeOff(format!("{bytes} of {announced} bytes arrived")))
            }
            _ => Ok(self),
        }
    }

    /// The hash that the hub announced: for large files the cache names the content by its SHA-256.
    pub(super) fn announced_sha256(&self) -> Option<String> {
        let blob = self.path.canonicalize().ok().filter(|_| self.is_new())?;
        let name = blob.file_name()?.to_str()?;
        let is_sha256 = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sha256.then(|| name.to_ascii_lowercase())
    }

    /// Removes the file from the cache, content and name.
    pub(super) fn discard(&self) {
        // Best effort: the caller is about to report why the file is bad.
        if let Ok(blob) = self.path.canonicalize() {
            let _ = fs::remove_file(blob);
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Sends hf-hub's events, which come on any thread, to the one that waits for the file.
struct Relay(UnboundedSender<DownloadEvent>);

impl ProgressHandler for Relay {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Download(event) = event {
            // Nobody listens any more when the transfer was given up.
            let _ = self.0.send(event.clone());
        }
    }
}

/// What has been heard of a transfer.
struct Listener<'a> {
    file: &'a str,
    progress: &'a mut dyn Progress,
    announced_bytes: Option<u64>,
}

impl Listener<'_> {
    fn hear(&mut self, event: &DownloadEvent) {
        match event {
            DownloadEvent::Start { total_bytes, .. } => {
                self.announced_bytes = Some(*total_bytes);
                self.progress
                    .file_started(self.file, Some(*total_bytes).filter(|bytes| *bytes != 0));
            }
            DownloadEvent::Progress { files } => {
                for file in files {
                    self.progress.file_advanced(file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => {
                self.progress.file_advanced(*bytes_completed);
            }
            DownloadEvent::Complete => {}
        }
    }

    fn silence(&self, waited: Duration) -> Fault {
        match self.announced_bytes {
            None => Fault::NoAnswer(waited),
            Some(_) => Fault::BrokeOff(format!("no bytes for {} s", waited.as_secs_f64())),
        }
    }

    fn fault(&self, error: HFError) -> Fault {
        match error {
            HFError::EntryNotFound { .. } => Fault::NoSuchFile,
            HFError::Io(_) => Fault::Hub(error),
            error if self.announced_bytes.is_some() => Fault::BrokeOff(error.to_string()),
            error => Fault::Hub(error),
        }
    }
}

/// Downloads one file into the cache, unless it is there, and gives up when nothing is heard for
/// too long.
pub(super) async fn transfer(
    repository: &HFRepository<RepoTypeModel>,
    file: &str,
    revision: &str,
    patience: Patience,
    progress: &mut dyn Progress,
) -> Result<Arrival, Fault> {
    let (relay, mut events) = unbounded_channel();
    let mut listener = Listener { file, progress, announced_bytes: None };
    let download =
        repository.download_file().filename(file).revision(revision).progress(Relay(relay)).send();
    let mut download = pin!(download);
    let result = loop {
        let waited = if listener.announced_bytes.is_some() {
            patience.next_bytes
        } else {
            patience.first_answer
        };
        tokio::select! {
            biased;
            Some(event) = events.recv() => listener.hear(&event),
            result = &mut download => break result,
            () = tokio::time::sleep(waited) => return Err(listener.silence(waited)),
        }
    };
    while let Ok(event) = events.try_recv() {
        listener.hear(&event);
    }
    match result {
        Ok(path) => Ok(Arrival { path, announced_bytes: listener.announced_bytes }),
        Err(error) => Err(listener.fault(error)),
    }
}
