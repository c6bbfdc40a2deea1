//! Token by token to text, never with half a character.

use std::sync::Arc;

use crate::tokenizer::{Tokenizer, TokenizerError};

/// The text of one sequence as its tokens come.
///
/// The pieces put together are exactly what [`Tokenizer::decode`] makes of all ids at once.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    held: Held,
}

/// What is not text yet.
#[derive(Debug)]
enum Held {
    /// Byte-level tokens: the first bytes of a character, three at most.
    Bytes(Vec<u8>),
    /// Tokens whose text depends on their neighbours: those of the last piece, which are the
    /// context of the next, and from `begin` on those that have not become text.
    Tokens { ids: Vec<u32>, begin: usize },
}

impl Detokenizer {
    /// At the beginning of a text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let held = match tokenizer.bytes(0) {
            Some(_) => Held::Bytes(Vec::new()),
            None => Held::Tokens { ids: Vec::new(), begin: 0 },
        };
        Self { tokenizer, held }
    }

    /// Takes the next token; returns the text that it completes, if any.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, TokenizerError> {
        if self.tokenizer.is_left_out(id) {
            return Ok(None);
        }
        let text = match &mut self.held {
            Held::Bytes(held) => {
                held.extend(self.tokenizer.bytes(id).unwrap_or_default());
                complete_text(held)
            }
            Held::Tokens { ids, begin } => {
                ids.push(id);
                // One wrong byte spoils a whole run of byte tokens, so that a run has no text
                // before its end.
                if self.tokenizer.is_byte_token(id) {
                    return Ok(None);
                }
                let text = text_from(&self.tokenizer, ids, *begin)?;
                if !text.is_empty() {
                    ids.drain(..*begin);
                    *begin = ids.len();
                }
                text
            }
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Ends the text; returns what was held back, with U+FFFD for what never became a character.
    pub fn finish(self) -> Result<Option<String>, TokenizerError> {
        let text = match &self.held {
            Held::Bytes(held) => String::from_utf8_lossy(held).into_owned(),
            Held::Tokens { ids, begin } => text_from(&self.tokenizer, ids, *begin)?,
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

/// The text that `ids[begin..]` add to that of the ids before them.
fn text_from(tokenizer: &Tokenizer, ids: &[u32], begin: usize) -> Result<String, TokenizerError> {
    let context = tokenizer.decode(&ids[..begin])?;
    let text = tokenizer.decode(ids)?;
    Ok(text.strip_prefix(&context).unwrap_or_default().to_owned())
}

/// Takes the text out of `bytes` as `String::from_utf8_lossy` would read it, and leaves the
/// beginning of a character.
fn complete_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let is_last = taken + chunk.invalid().len() == bytes.len();
        if is_last && is_beginning(chunk.invalid()) {
            break;
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        taken += chunk.invalid().len();
    }
    bytes.drain(..taken);
    text
}

/// Whether the bytes begin a character that further bytes can complete.
fn is_beginning(bytes: &[u8]) -> bool {
    let reading = std::str::from_utf8(bytes);
    matches!(reading, Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests;
