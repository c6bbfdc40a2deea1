use std::ops::Range;

use super::waiting::Room;

/// Steps that are looked at together.
const GROUP: usize = 128;

/// For how long requests that waited for their first step lacked KV blocks alone, over any steps.
/// Nanoseconds.
pub(crate) struct Shortage {
    /// Time of the steps before each (and before the end) in which even the request that had waited
    /// longest lacked blocks: so did all.
    of_all: Vec<u64>,
    /// Of each step the time that no step before it has, and its free blocks, where it depends on
    /// the request whether they were enough.
    steps: Vec<(u64, Option<u32>)>,
    /// The fewest of these blocks in each group of steps.
    fewest: Vec<Option<u32>>,
}

impl Shortage {
    /// Of steps in order, from the plan to the end, with the room that each left.
    pub(crate) fn of(rooms: impl Iterator<Item = (Range<u64>, Room)>) -> Self {
        let (mut of_all, mut sum, mut before) = (vec![0], 0_u64, 0_u64);
        let mut steps = Vec::new();
        for (step, room) in rooms {
            let ns = step.end.saturating_sub(step.start.max(before));
            before = before.max(step.end);
            if room.lacks_blocks(0) {
                sum = sum.saturating_add(ns);
            }
            let depends = room.has_slot && !room.lacks_blocks(0);
            steps.push((ns, depends.then_some(room.blocks_free)));
            of_all.push(sum);
        }
        let fewest = steps.chunks(GROUP).map(|group| group.iter().filter_map(|step| step.1).min());
        Self { of_all, fewest: fewest.collect(), steps }
    }

    /// The time of these steps in which a request that needs `own` blocks lacked blocks.
    pub(crate) fn ns(&self, steps: Range<usize>, own: u32) -> u64 {
        let lacks = |free: Option<u32>| free.is_some_and(|free| free < own);
        let mut sum = self.of_all[steps.end] - self.of_all[steps.start];
        let mut at = steps.start;
        while at < steps.end {
            let group = at / GROUP;
            let end = ((group + 1) * GROUP).min(steps.end);
            if lacks(self.fewest[group]) {
                let lacking = self.steps[at..end].iter().filter(|step| lacks(step.1));
                sum = lacking.map(|step| step.0).fold(sum, u64::saturating_add);
            }
            at = end;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Steps of 1 to 1,000 ns one after the other.
        #[test]
        fn it_is_what_going_through_the_steps_adds_up_to(
            steps in proptest::collection::vec((1_u64..1000, any::<bool>(), 0_u32..60, 0_u32..20), 1..600),
            (from, to) in (0_usize..600, 0_usize..600),
            own in 0_u32..60,
        ) {
            let mut now = 0;
            let rooms: Vec<(Range<u64>, Room)> = steps
                .into_iter()
                .map(|(ns, has_slot, blocks_free, blocks_wanted)| {
                    let step = now..now + ns;
                    now = step.end;
                    (step, Room { has_slot, blocks_free, blocks_wanted })
                })
                .collect();
            let to = to.min(rooms.len());
            let range = from.min(to)..to;
            let lacking = rooms[range.clone()].iter().filter(|(_, room)| room.lacks_blocks(own));
            let expected: u64 = lacking.map(|(step, _)| step.end - step.start).sum();
            prop_assert_eq!(Shortage::of(rooms.into_iter()).ns(range, own), expected);
        }
    }
}
