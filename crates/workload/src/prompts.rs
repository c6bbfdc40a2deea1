use rand::{Rng, RngExt};

use crate::error::WorkloadError;

/// What prompts are made of: plain data, from the model's tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Ids of ordinary tokens: no special or control tokens. Empty in virtual time, where a prompt
    /// is only a length.
    pub ordinary: Vec<u32>,
    /// A text's tokens, if prompts are to be cut from one.
    pub text: Option<Vec<u32>>,
}

impl Vocabulary {
    /// Whether prompts have tokens; in virtual time they are only lengths.
    pub(crate) fn has_tokens(&self) -> bool {
        self.text.is_some() || !self.ordinary.is_empty()
    }

    /// A prompt of exactly `tokens` tokens: a piece of the text from a place drawn at random (the
    /// text starts over at its end), or tokens drawn one by one.
    pub(crate) fn prompt(&self, tokens: u32, rng: &mut impl Rng) -> Vec<u32> {
        match &self.text {
            Some(text) => {
                let from = rng.random_range(0..text.len());
                text.iter().cycle().skip(from).take(tokens as usize).copied().collect()
            }
            None if self.ordinary.is_empty() => Vec::new(),
            None => (0..tokens)
                .map(|_| self.ordinary[rng.random_range(0..self.ordinary.len())])
                .collect(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), WorkloadError> {
        if self.text.as_ref().is_some_and(Vec::is_empty) {
            return Err(WorkloadError::NoPrompts(
                "the prompt text has no tokens; give a text that is not empty".to_owned(),
            ));
        }
        Ok(())
    }
}
