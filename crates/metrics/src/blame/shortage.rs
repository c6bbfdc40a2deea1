use std::ops::Range;

use super::account::StepFacts;

/// Steps that are looked at together.
const GROUP: usize = 128;

/// For how long requests that waited for their first step lacked KV blocks alone, over any steps.
/// Nanoseconds.
pub(crate) struct Shortage {
    /// Time of the steps before each (and before the end) in which even the request that had waited
    /// longest lacked blocks: so did all.
    of_all: Vec<u64>,
    /// Of each step the time that no step before it has, and the blocks with which a request would
    /// have lacked none, where that depends on the request: all from there on lacked them.
    steps: Vec<(u64, Option<u32>)>,
    /// The least of these blocks in each group of steps.
    least: Vec<Option<u32>>,
}

impl Shortage {
    pub(crate) fn of(facts: &[StepFacts]) -> Self {
        let (mut of_all, mut sum, mut before) = (vec![0], 0_u64, 0_u64);
        let mut steps = Vec::with_capacity(facts.len());
        for step in facts {
            let ns = step.ended_at.saturating_sub(step.planned_at.max(before));
            before = before.max(step.ended_at);
            let room = &step.room;
            if room.lacks_blocks(0) {
                sum = sum.saturating_add(ns);
            }
            let depends = room.has_slot && !room.lacks_blocks(0);
            steps.push((ns, depends.then_some(room.blocks_free)));
            of_all.push(sum);
        }
        let least = steps.chunks(GROUP).map(|group| group.iter().filter_map(|step| step.1).min());
        Self { of_all, least: least.collect(), steps }
    }

    /// The time of these steps in which a request that needs `own` blocks lacked blocks.
    pub(crate) fn ns(&self, steps: Range<usize>, own: u32) -> u64 {
        let of_all = self.of_all[steps.end] - self.of_all[steps.start];
        let lacks = |free: Option<u32>| free.is_some_and(|free| free < own);
        let mut sum = of_all;
        let mut at = steps.start;
        while at < steps.end {
            let group = at / GROUP;
            let end = ((group + 1) * GROUP).min(steps.end);
            if lacks(self.least[group]) {
                let lacking = self.steps[at..end].iter().filter(|step| lacks(step.1));
                sum = lacking.map(|step| step.0).fold(sum, u64::saturating_add);
            }
            at = end;
        }
        sum
    }
}
