use metron_trace::Limits;

/// Names a block of the KV pool. The accounting here and the tensors in the executor share only
/// these ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Which blocks of the KV pool are free.
///
/// They are handed out last-in first-out: the one released last is the one most likely still in a
/// cache.
#[derive(Debug)]
pub(crate) struct BlockPool {
    free: Vec<BlockId>,
    num_blocks: u32,
}

impl BlockPool {
    pub(crate) fn new(limits: &Limits) -> Self {
        let num_blocks = limits.num_blocks;
        Self { free: (0..num_blocks).rev().map(BlockId).collect(), num_blocks }
    }

    pub(crate) fn num_free(&self) -> u32 {
        self.free.len() as u32
    }

    pub(crate) fn num_used(&self) -> u32 {
        self.num_blocks - self.num_free()
    }

    /// Appends `count` blocks to a block table, or changes nothing if fewer are free.
    #[must_use]
    pub(crate) fn allocate(&mut self, count: u32, table: &mut Vec<BlockId>) -> bool {
        let Some(rest) = self.free.len().checked_sub(count as usize) else { return false };
        table.extend(self.free.drain(rest..).rev());
        true
    }

    /// Gives back every block of a table.
    pub(crate) fn release(&mut self, table: &mut Vec<BlockId>) {
        self.free.extend(table.drain(..).rev());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(num_blocks: u32) -> BlockPool {
        BlockPool::new(&Limits { block_size: 16, num_blocks, max_num_seqs: 1, max_model_len: 16 })
    }

    #[test]
    fn an_allocation_that_does_not_fit_changes_nothing() {
        let (mut pool, mut table) = (pool(3), Vec::new());
        assert!(!pool.allocate(4, &mut table));
        assert_eq!((pool.num_free(), table.len()), (3, 0));
    }

    proptest! {
        /// Every block is either free or in exactly one table, whatever is taken and released.
        #[test]
        fn blocks_are_neither_lost_nor_handed_out_twice(
            operations in proptest::collection::vec((0_usize..4, 0_u32..6, any::<bool>()), 0..200),
        ) {
            let mut pool = pool(12);
            let mut tables: [Vec<BlockId>; 4] = Default::default();
            for (owner, count, release) in operations {
                if release {
                    pool.release(&mut tables[owner]);
                } else {
                    let fits = pool.num_free() >= count;
                    prop_assert_eq!(pool.allocate(count, &mut tables[owner]), fits);
                }
                let mut all: Vec<BlockId> = tables.iter().flatten().copied().collect();
                prop_assert_eq!(all.len() as u32, pool.num_used());
                all.extend(&pool.free);
                all.sort_unstable();
                prop_assert_eq!(all, (0..12).map(BlockId).collect::<Vec<_>>());
            }
        }
    }
}
