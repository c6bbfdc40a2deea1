//! What can go wrong between a model's name and its files, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a model's name did not become files.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name is neither a card's id, nor a path, nor of the form `org/name`.
    #[error(
        "unknown model `{name}`{}; a model is a card's id ({}), a hub id (org/name), a directory \
         with config.json, or a GGUF file",
        did_you_mean(.nearest),
        .cards.join(", ")
    )]
    UnknownModel {
        /// What the user typed.
        name: String,
        /// The cards with a similar id, nearest first.
        nearest: Vec<String>,
        /// Every card's id.
        cards: Vec<String>,
    },

    /// The name looks like a path, and nothing is there.
    #[error("there is no file or directory {}; check the path given to --model", .path.display())]
    NoSuchPath {
        /// The path.
        path: PathBuf,
    },

    /// A single file that is not GGUF.
    #[error("{} is not a GGUF file: {found}", .path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to do.
        found: String,
    },

    /// A model directory without `config.json`.
    #[error("{} has no config.json, which describes the model's shape{hint}", .directory.display())]
    NoConfig {
        /// The directory.
        directory: PathBuf,
        /// What the directory has that may be what the user means; empty where there is nothing.
        hint: String,
    },

    /// A model directory without safetensors weights.
    #[error(
        "{} has no weights that Metron reads (model.safetensors, or model.safetensors.index.json \
         with its shards){hint}",
        .directory.display()
    )]
    NoWeights {
        /// The directory.
        directory: PathBuf,
        /// What it has instead; empty where there is nothing.
        hint: String,
    },

    /// A JSON file beside the weights can't be read as what it should be.
    #[error("{} is not a valid {kind}: {reason}; download it again", .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// A shard's name in the index leads out of the model's directory.
    #[error(
        "{} names the shard `{shard}`, which lies outside the model's directory; this index can't \
         be trusted",
        .index.display()
    )]
    ShardOutside {
        /// The index.
        index: PathBuf,
        /// The name it gives.
        shard: String,
    },

    /// A shard that the index names is not there.
    #[error(
        "{} names the shard {shard}, which is not in the model's directory; the download may be \
         incomplete",
        .index.display()
    )]
    ShardMissing {
        /// The index.
        index: PathBuf,
        /// The missing shard.
        shard: String,
    },

    /// A downloaded file is not the one that was promised; it has been deleted.
    #[error(
        "{what} has the wrong SHA-256: expected {expected}, got {actual}; the file was not kept. \
         Try again; if it repeats, the source or something on the way changes it"
    )]
    WrongHash {
        /// The file and its source.
        what: String,
        /// The hash on the card or announced by the hub.
        expected: String,
        /// The hash of what arrived.
        actual: String,
    },

    /// No source has the model.
    #[error(
        "no source has the model {model}:{}\nTo run without any download: --load-format dummy \
         (random weights of the same shape)",
        listed(.failures)
    )]
    NoSource {
        /// The model.
        model: String,
        /// Each source that was tried, in order.
        failures: Vec<SourceFailure>,
    },

    /// A file system operation failed.
    #[error("can't {action} {}: {source}", .path.display())]
    Io {
        /// What was tried: `read`, `create`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl HubError {
    /// Wraps an I/O error with the action and path it belongs to.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Why one source did not give the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFailure {
    /// The source: `hub org/name`, `Python package name==version`.
    pub source: String,
    /// What happened.
    pub cause: String,
    /// What the user can do about it.
    pub advice: String,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.source, self.cause, self.advice)
    }
}

/// What a source answers instead of files.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The source does not have the model or can't be asked: the next one may.
    Unavailable(SourceFailure),
    /// Something that another source must not hide.
    Fatal(HubError),
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Self {
        Self::Fatal(error)
    }
}

fn did_you_mean(nearest: &[String]) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", nearest.join(" or "))
    }
}

fn listed(failures: &[SourceFailure]) -> String {
    failures.iter().flat_map(|failure| ["\n  ".to_owned(), failure.to_string()]).collect()
}
