use metron_trace::{RequestId, Sampling, Work};

use crate::blocks::BlockId;
use crate::sequence::{Sequence, Sequences};

/// What the executor is asked to run: any mix of prefill chunks and decode tokens of different
/// sequences. Borrowed from the engine.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The step's index.
    pub step: u64,
    items: &'a [BatchItem],
    work: &'a [Work],
    sequences: &'a Sequences,
}

/// One sequence's share of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchItem {
    /// Whose.
    pub request: RequestId,
    /// Positions already in the KV cache; the first token to run stands at this position.
    pub context: u32,
    /// Positions to run.
    pub tokens: u32,
    /// Whether a token is to be sampled from the last position's logits.
    pub samples: bool,
    /// Place in the output of the token to be sampled, from 0.
    pub output_index: u32,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(
        step: u64,
        items: &'a [BatchItem],
        work: &'a [Work],
        sequences: &'a Sequences,
    ) -> Self {
        Self { step, items, work, sequences }
    }

    /// The items, in the policy's order.
    pub fn items(&self) -> &'a [BatchItem] {
        self.items
    }

    /// The same by kind of work, as a cost model and the trace see it.
    pub fn work(&self) -> &'a [Work] {
        self.work
    }

    /// Token ids to run, `item.tokens` of them; empty in virtual time, where no prompt has ids.
    pub fn token_ids(&self, item: &BatchItem) -> &'a [u32] {
        let ids = &self.sequence(item).token_ids;
        let start = item.context as usize;
        ids.get(start..start + item.tokens as usize).unwrap_or_default()
    }

    /// Block table: enough blocks for `context + tokens` positions.
    pub fn blocks(&self, item: &BatchItem) -> &'a [BlockId] {
        &self.sequence(item).blocks
    }

    /// How its token is to be chosen.
    pub fn sampling(&self, item: &BatchItem) -> &'a Sampling {
        &self.sequence(item).request.sampling
    }

    /// Whether the token sampled for it is the sequence's last.
    pub fn ends(&self, item: &BatchItem, is_end_of_sequence: bool) -> bool {
        self.sequence(item).ends_with(item.output_index + 1, is_end_of_sequence)
    }

    fn sequence(&self, item: &BatchItem) -> &'a Sequence {
        self.sequences.get(item.request).expect("an item's sequence lives until the batch is done")
    }
}
