use std::ops::Range;

/// A ragged batch as the model runs it: the tokens of all sequences, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForwardPlan {
    /// Ids of all tokens.
    pub(crate) token_ids: Vec<u32>,
    /// Each token's position in its sequence.
    pub(crate) positions: Vec<u32>,
    /// Whose tokens they are, in order.
    pub(crate) sequences: Vec<SequenceSlice>,
    /// The sequences' block tables, one behind the other.
    pub(crate) block_ids: Vec<u32>,
    /// Rows whose logits are wanted.
    pub(crate) logit_rows: Vec<u32>,
}

/// One sequence's part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SequenceSlice {
    /// Its first token's row.
    pub(crate) first_token: usize,
    /// Its tokens.
    pub(crate) tokens: usize,
    /// Positions in the cache before them.
    pub(crate) context: usize,
    /// Its block table, in [`ForwardPlan::block_ids`].
    pub(crate) blocks: Range<usize>,
}

impl ForwardPlan {
    /// Empties it for reuse.
    pub(crate) fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.sequences.clear();
        self.block_ids.clear();
        self.logit_rows.clear();
    }

    /// Appends a sequence's tokens, which stand behind `context` positions; `samples` asks for the
    /// last one's logits.
    pub(crate) fn push(
        &mut self,
        token_ids: &[u32],
        context: u32,
        blocks: impl IntoIterator<Item = u32>,
        samples: bool,
    ) {
        let first_token = self.token_ids.len();
        let first_block = self.block_ids.len();
        self.token_ids.extend_from_slice(token_ids);
        self.positions.extend(context..context + token_ids.len() as u32);
        self.block_ids.extend(blocks);
        self.sequences.push(SequenceSlice {
            first_token,
            tokens: token_ids.len(),
            context: context as usize,
            blocks: first_block..self.block_ids.len(),
        });
        if samples {
            self.logit_rows.push(self.token_ids.len() as u32 - 1);
        }
    }

    /// Where each token's key and value go: its block, and its place in the block.
    pub(crate) fn places(&self, block_size: usize) -> Vec<(u32, u32)> {
        self.sequences
            .iter()
            .flat_map(|sequence| {
                let blocks = &self.block_ids[sequence.blocks.clone()];
                let positions = sequence.context..sequence.context + sequence.tokens;
                positions.map(move |position| {
                    (blocks[position / block_size], (position % block_size) as u32)
                })
            })
            .collect()
    }
}
