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

    /// Appends the text that a token completes; with the last of its sequence, also what was held
    /// back as the beginning of a character.
    pub(crate) fn push(
        &mut self,
        token: &SampledToken,
        is_last: bool,
        text: &mut Vec<TextPiece>,
    ) -> Result<(), TokenizerError> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(()) };
        let request = token.request;
        if let Some(id) = token.id.filter(|_| !token.is_end_of_sequence) {
            let new = || Detokenizer::new(Arc::clone(tokenizer));
            let piece = self.streams.entry(request).or_insert_with(new).push(id)?;
            text.extend(piece.map(|text| TextPiece { request, text }));
        }
        if is_last && let Some(stream) = self.streams.remove(&request) {
            text.extend(stream.finish()?.map(|text| TextPiece { request, text }));
        }
        Ok(())
    }

    /// Forgets a sequence that ended without its last token.
    pub(crate) fn end(&mut self, request: RequestId) {
        self.streams.remove(&request);
    }

    pub(crate) fn clear(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{byte_level_json, load};

    #[test]
    fn half_a_character_comes_out_with_the_last_token() {
        let tokenizer = Arc::new(load(&byte_level_json()).unwrap());
        let mut streams = TextStreams::of(Some(tokenizer));
        let mut text = Vec::new();
        let request = RequestId(3);
        for (byte, is_last) in [(b'a', false), (0xE4, false), (0xB8, true)] {
            let token = SampledToken { request, id: Some(byte.into()), is_end_of_sequence: false };
            streams.push(&token, is_last, &mut text).unwrap();
        }
        let text: String = text.into_iter().map(|piece| piece.text).collect();
        assert_eq!(text, "a\u{FFFD}");
        assert!(streams.streams.is_empty());
    }
}
