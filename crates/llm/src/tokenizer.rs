//! Text to token ids and back, from `tokenizer.json` or from a GGUF file's metadata.

mod bytes;
mod check;
mod gguf;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::DecoderWrapper;

use crate::hub::{HubError, ModelFiles, TokenizerSource, read_json};

/// Why a tokenizer can't be loaded, or can't do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file beside the tokenizer, or the tokenizer itself, can't be read.
    #[error(transparent)]
    File(#[from] HubError),
    /// The file is damaged, or says something that can't be.
    #[error("the tokenizer in {} is damaged: {cause}; download it again", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: String,
    },
    /// The file is sound, but of a kind that is not supported.
    #[error(
        "the tokenizer in {} is of a kind that is not supported: {found}; {allowed}",
        .path.display()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What is supported, and what to do.
        allowed: &'static str,
    },
    /// The tokenizer broke on a text or on ids.
    #[error("the tokenizer can't {action}: {cause}; its file may be damaged")]
    Failed {
        /// What it was asked to do.
        action: &'static str,
        /// What it says.
        cause: String,
    },
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Whether tokens stand for bytes, so that each has its own; otherwise a token's text depends
    /// on its neighbours.
    is_byte_level: bool,
    special_ids: BTreeSet<u32>,
    added_ids: BTreeSet<u32>,
}

impl Tokenizer {
    /// The tokenizer of a model, if its source has one.
    pub fn open(files: &ModelFiles) -> Result<Option<Self>, TokenizerError> {
        match &files.tokenizer {
            TokenizerSource::None => Ok(None),
            TokenizerSource::Gguf(path) => Self::from_gguf(path).map(Some),
            TokenizerSource::Json(path) => Self::from_json(path).map(Some),
        }
    }

    /// Reads a `tokenizer.json`.
    pub fn from_json(path: &Path) -> Result<Self, TokenizerError> {
        let mut json: Value = read_json(path, "tokenizer")?;
        let malformed = |cause: String| TokenizerError::Malformed { path: path.to_owned(), cause };
        check::check_json(&json).map_err(malformed)?;
        // Both are for batches of training data: a prompt is never cut or filled up here.
        if let Some(fields) = json.as_object_mut() {
            fields.remove("truncation");
            fields.remove("padding");
        }
        let load = || serde_json::from_value(json).map_err(tokenizers::Error::from);
        let inner = guarded("read its file", load).map_err(|error| malformed(error.to_string()))?;
        Self::new(inner, path)
    }

    /// Reads the `tokenizer.ggml.*` metadata of a GGUF file: byte-level BPE with a pre-tokenizer
    /// that is known here.
    pub fn from_gguf(path: &Path) -> Result<Self, TokenizerError> {
        Self::new(gguf::read(path)?, path)
    }

    /// Wraps a tokenizer, after a try of what has been seen to panic on files that no check covers.
    fn new(inner: tokenizers::Tokenizer, path: &Path) -> Result<Self, TokenizerError> {
        let added: BTreeMap<u32, bool> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| (id, token.special))
            .collect();
        let tokenizer = Self {
            is_byte_level: matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))),
            special_ids: added
                .iter()
                .filter(|(_, is_special)| **is_special)
                .map(|(id, _)| *id)
                .collect(),
            added_ids: added.into_keys().collect(),
            inner,
        };
        let probe = tokenizer.encode(" A b\n1é 世界🙂").and_then(|ids| tokenizer.decode(&ids));
        probe.map_err(|error| TokenizerError::Malformed {
            path: path.to_owned(),
            cause: error.to_string(),
        })?;
        Ok(tokenizer)
    }

    /// The ids of a text, with what the tokenizer adds around it (a BOS token, for some models).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.ids(text, true)
    }

    /// The ids of a prompt that has everything around it already, as a chat template makes it.
    pub fn encode_chat(&self, prompt: &str) -> Result<Vec<u32>, TokenizerError> {
        self.ids(prompt, false)
    }

    fn ids(&self, text: &str, adds_around: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = guarded("encode this text", || self.inner.encode_fast(text, adds_around))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids. Special tokens, and ids that the tokenizer does not know, have none.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        guarded("decode these ids", || self.inner.decode(ids, true))
    }

    /// The ids that prompts can be made of, in ascending order: neither special nor added, each
    /// with a valid text of its own that has no control characters but tabs and line ends.
    pub fn ordinary_token_ids(&self) -> Vec<u32> {
        let ids: BTreeSet<u32> = self.inner.get_vocab(false).into_values().collect();
        ids.into_iter()
            .filter(|id| !self.added_ids.contains(id) && self.has_plain_text(*id))
            .collect()
    }

    fn has_plain_text(&self, id: u32) -> bool {
        let text = match self.bytes(id) {
            Some(bytes) => String::from_utf8(bytes).ok(),
            None if self.is_byte_token(id) => None,
            None => self.decode(&[id]).ok(),
        };
        let is_plain =
            |character: char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
        text.is_some_and(|text| {
            !text.is_empty() && !text.contains('\u{FFFD}') && text.chars().all(is_plain)
        })
    }

    /// The bytes of a token that stands for some whatever its neighbours; `None` in a tokenizer
    /// without such tokens.
    pub(crate) fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = || self.inner.id_to_token(id).map(|token| bytes::of_token(&token));
        self.is_byte_level.then(|| token().unwrap_or_default())
    }

    /// Whether decoding leaves this id out: a special token, or none at all.
    pub(crate) fn is_left_out(&self, id: u32) -> bool {
        self.special_ids.contains(&id) || self.inner.id_to_token(id).is_none()
    }

    /// Whether the token is one byte of a character that the vocabulary lacks: `<0xE4>`.
    pub(crate) fn is_byte_token(&self, id: u32) -> bool {
        let digits = |token: &str| token.strip_prefix("<0x")?.strip_suffix('>').map(str::len);
        self.inner.id_to_token(id).is_some_and(|token| digits(&token) == Some(2))
    }
}

/// Runs tokenizers' code, which panics on some files that it accepted, and turns a panic into an
/// error.
fn guarded<T>(
    action: &'static str,
    work: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T, TokenizerError> {
    let failed = |cause: String| TokenizerError::Failed { action, cause };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(panic) => Err(failed(words_of(panic.as_ref()))),
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
