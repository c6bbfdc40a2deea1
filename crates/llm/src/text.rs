use std::collections::BTreeMap;
use std::sync::Arc;

use metron_engine::{SampledToken, TextPiece};
use metron_trace::RequestId;

use crate::detokenizer::Detokenizer;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Turns each sequence's tokens into text as they come; turns nothing without a tokenizer.
#[derive(Debug, Default)]
pub struct TextStreams {
    tokenizer: Option<Arc<Tokenizer>>,
    streams: BTreeMap<RequestId, Detokenizer>,
}

impl TextStreams {
    /// Streams of this tokenizer's text.
    pub fn of(tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { tokenizer, streams: BTreeMap::new() }
    }

    /// Whether anything is turned.
    pub(crate) fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// Appends the text that the tokens completed.
    pub(crate) fn push(
        &mut self,
        tokens: &[SampledToken],
        text: &mut Vec<TextPiece>,
    ) -> Result<(), TokenizerError> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(()) };
        for token in tokens {
            let Some(id) = token.id.filter(|_| !token.is_end_of_sequence) else { continue };
            let stream = self
                .streams
                .entry(token.request)
                .or_insert_with(|| Detokenizer::new(Arc::clone(tokenizer)));
            if let Some(piece) = stream.push(id)? {
                text.push(TextPiece { request: token.request, text: piece });
            }
        }
        Ok(())
    }

    pub(crate) fn end(&mut self, request: RequestId) {
        self.streams.remove(&request);
    }

    pub(crate) fn clear(&mut self) {
        self.streams.clear();
    }
}
