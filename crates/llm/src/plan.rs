use std::ops::Range;

use metron_engine::BlockId;
use metron_trace::RequestId;

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
    /// Where each token's key and value go.
    pub(crate) places: Places,
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

/// Places in the KV cache, each a block and an offset in it; no two are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places(Vec<(u32, u32)>);

impl Places {
    /// One a token.
    pub(crate) fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }
}

/// One sequence's part of a batch, as the engine asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share<'a> {
    pub(crate) request: RequestId,
    /// The tokens to run, behind `context` positions.
    pub(crate) token_ids: &'a [u32],
    pub(crate) context: u32,
    pub(crate) blocks: &'a [BlockId],
    /// Whether the last one's logits are wanted.
    pub(crate) samples: bool,
}

/// What a model and its KV cache can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) vocab_size: usize,
    /// The longest sequence.
    pub(crate) positions: usize,
    pub(crate) block_size: usize,
    pub(crate) num_blocks: usize,
}

/// Why a batch can't be run on this model and cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A prompt that is only a length, as in virtual time.
    #[error("{request} has no token ids to run; a real model needs the prompt's ids")]
    NoTokens {
        /// Whose.
        request: RequestId,
    },
    /// A token that the model doesn't know.
    #[error("{request} has the token id {id}; the model knows ids below {vocab_size}")]
    UnknownToken {
        /// Whose.
        request: RequestId,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A sequence that is too long.
    #[error(
        "{request} reaches position {position}, and the model was loaded for {positions}; load it \
         with a greater max_model_len"
    )]
    TooLong {
        /// Whose.
        request: RequestId,
        /// Its last position.
        position: usize,
        /// Positions that fit.
        positions: usize,
    },
    /// A block table that is too short, or names a block that is not in the pool.
    #[error(
        "{request} needs {needed} blocks; its table has {found} and the pool {num_blocks}: the \
         engine's limits are not the executor's"
    )]
    Blocks {
        /// Whose.
        request: RequestId,
        /// Blocks that its positions take.
        needed: usize,
        /// Blocks in its table that are in the pool.
        found: usize,
        /// Blocks of the pool.
        num_blocks: usize,
    },
    /// Two tokens that would overwrite each other.
    #[error("two tokens of the batch have the same place in the KV cache, in block {block}")]
    SharedPlace {
        /// The block.
        block: u32,
    },
}

impl ForwardPlan {
    /// A plan of a batch's shares, in the buffers of an earlier one; empty if they are refused.
    pub(crate) fn refill<'a>(
        &mut self,
        shares: impl IntoIterator<Item = Share<'a>>,
        capacity: &Capacity,
    ) -> Result<(), BatchError> {
        self.clear();
        let pushed = shares.into_iter().try_for_each(|share| {
            share.check(capacity)?;
            self.push(&share, capacity.block_size);
            Ok(())
        });
        // Nothing of a plan that is refused may be run: threads write to its places.
        pushed.and_then(|()| self.check_places()).inspect_err(|_| self.clear())
    }

    fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.sequences.clear();
        self.block_ids.clear();
        self.places.0.clear();
        self.logit_rows.clear();
    }

    fn push(&mut self, share: &Share<'_>, block_size: usize) {
        let (first_token, first_block) = (self.token_ids.len(), self.block_ids.len());
        let positions = share.context..share.context + share.token_ids.len() as u32;
        self.token_ids.extend_from_slice(share.token_ids);
        self.block_ids.extend(share.blocks.iter().map(|block| block.0));
        self.places.0.extend(positions.clone().map(|position| {
            let (block, offset) = (position as usize / block_size, position as usize % block_size);
            (share.blocks[block].0, offset as u32)
        }));
        self.positions.extend(positions);
        self.sequences.push(SequenceSlice {
            first_token,
            tokens: share.token_ids.len(),
            context: share.context as usize,
            blocks: first_block..self.block_ids.len(),
        });
        if share.samples {
            self.logit_rows.push(self.token_ids.len() as u32 - 1);
        }
    }

    /// Threads write to the places at the same time: no two may be the same.
    fn check_places(&self) -> Result<(), BatchError> {
        let mut sorted = self.places.0.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(BatchError::SharedPlace { block: pair[0].0 }),
            None => Ok(()),
        }
    }
}

impl Share<'_> {
    fn check(&self, capacity: &Capacity) -> Result<(), BatchError> {
        let Capacity { vocab_size, positions, block_size, num_blocks } = *capacity;
        let request = self.request;
        if self.token_ids.is_empty() {
            return Err(BatchError::NoTokens { request });
        }
        if let Some(&id) = self.token_ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(BatchError::UnknownToken { request, id, vocab_size });
        }
        let end = self.context as usize + self.token_ids.len();
        if end > positions {
            return Err(BatchError::TooLong { request, position: end - 1, positions });
        }
        let needed = end.div_ceil(block_size);
        let found = self.blocks.iter().filter(|block| (block.0 as usize) < num_blocks).count();
        if found < self.blocks.len() || found < needed {
            return Err(BatchError::Blocks { request, needed, found, num_blocks });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity =
        Capacity { vocab_size: 10, positions: 20, block_size: 4, num_blocks: 6 };
    const BLOCKS: [BlockId; 2] = [BlockId(5), BlockId(2)];

    fn share(request: u32, token_ids: &[u32], context: u32) -> Share<'_> {
        Share { request: RequestId(request), token_ids, context, blocks: &BLOCKS, samples: true }
    }

    fn refusal(share: Share<'_>) -> BatchError {
        ForwardPlan::default().refill([share], &CAPACITY).unwrap_err()
    }

    #[test]
    fn tokens_of_several_sequences_stand_one_behind_the_other() {
        let mut plan = ForwardPlan::default();
        let other = Share { blocks: &[BlockId(0)], samples: false, ..share(1, &[9, 8], 1) };
        plan.refill([share(0, &[1, 2, 3], 3), other], &CAPACITY).unwrap();
        assert_eq!(plan.token_ids, [1, 2, 3, 9, 8]);
        assert_eq!(plan.positions, [3, 4, 5, 1, 2]);
        assert_eq!(plan.places.as_slice(), [(5, 3), (2, 0), (2, 1), (0, 1), (0, 2)]);
        assert_eq!(plan.logit_rows, [2]);
        assert_eq!(plan.sequences[1].first_token, 3);
        assert_eq!(plan.block_ids[plan.sequences[1].blocks.clone()], [0]);
    }

    #[test]
    fn what_the_model_or_the_cache_cannot_hold_is_refused_by_name() {
        let far = [BlockId(6), BlockId(2)];
        let refusals = [
            refusal(share(3, &[], 0)),
            refusal(share(3, &[1, 10], 0)),
            refusal(share(3, &[1, 2], 19)),
            refusal(share(3, &[1], 8)),
            refusal(Share { blocks: &far, ..share(3, &[1], 0) }),
        ];
        insta::assert_snapshot!(refusals.map(|refusal| refusal.to_string()).join("\n"));
    }

    #[test]
    fn two_tokens_never_share_a_place() {
        let twice = [share(0, &[1, 2], 4), share(1, &[3], 5)];
        let mut plan = ForwardPlan::default();
        let refused = plan.refill(twice, &CAPACITY);
        assert_eq!(refused, Err(BatchError::SharedPlace { block: 2 }));
        assert_eq!(plan, ForwardPlan::default());
        plan.refill([share(0, &[1, 2], 4), share(1, &[10], 0)], &CAPACITY).unwrap_err();
        assert_eq!(plan, ForwardPlan::default());
    }
}
