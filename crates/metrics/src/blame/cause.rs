use serde::{Deserialize, Serialize};

/// What made a token late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It waited for its turn behind others.
    Queue,
    /// Another request's prompt was prefilled, in its step or in its stead.
    Prefill,
    /// Others decoded beside it.
    BatchGrowth,
    /// Positions lost to a preemption were computed again, its own or another's.
    Recomputation,
    /// It waited for KV blocks.
    Blocks,
    /// The policy's own time.
    Scheduler,
    /// The engine's and the executor's time around the model.
    Engine,
    /// The request's own work takes longer than its deadlines allow, with nothing beside it.
    Model,
    /// Steps took longer than their contents account for.
    Unexplained,
}

impl Cause {
    /// Every cause, in the order in which they are told and drawn.
    pub const ALL: [Self; 9] = [
        Self::Queue,
        Self::Prefill,
        Self::BatchGrowth,
        Self::Recomputation,
        Self::Blocks,
        Self::Scheduler,
        Self::Engine,
        Self::Model,
        Self::Unexplained,
    ];

    /// In a few words, as tables and legends have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "waiting in the queue",
            Self::Prefill => "prefill of others",
            Self::BatchGrowth => "larger batches",
            Self::Recomputation => "recomputation",
            Self::Blocks => "shortage of KV blocks",
            Self::Scheduler => "the scheduler",
            Self::Engine => "the engine",
            Self::Model => "the model alone",
            Self::Unexplained => "unexplained",
        }
    }
}

/// An amount for each cause, saturating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ByCause<T>([T; Cause::ALL.len()]);

impl<T: Copy> ByCause<T> {
    pub(crate) fn of(&self, cause: Cause) -> T {
        self.0[cause as usize]
    }

    /// The causes with their amounts, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cause, T)> {
        Cause::ALL.into_iter().zip(self.0)
    }
}

impl ByCause<u64> {
    pub(crate) fn add(&mut self, cause: Cause, amount: u64) {
        let own = &mut self.0[cause as usize];
        *own = own.saturating_add(amount);
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|(cause, amount)| self.add(cause, amount));
    }

    /// `total` divided in proportion to these amounts; where they are all zero, it is unexplained.
    pub(crate) fn divide(&self, total: u64) -> Self {
        let shares = apportion(total, self.0.map(u128::from));
        shares.map_or_else(|| Self::all_unexplained(total), Self)
    }

    fn all_unexplained(total: u64) -> Self {
        let mut shares = Self::default();
        shares.add(Cause::Unexplained, total);
        shares
    }
}

/// Deadlines in 2^-32ths: what one late token adds to each cause, before whole deadlines are made.
impl ByCause<u128> {
    /// Adds the deadlines that a token missed, in the proportion in which its lateness is divided.
    pub(crate) fn add_missed(&mut self, missed: u64, lateness: &ByCause<u64>, late_ns: u64) {
        for (cause, ns) in lateness.iter() {
            let share = (u128::from(ns) << 32) / u128::from(late_ns.max(1));
            let own = &mut self.0[cause as usize];
            *own = own.saturating_add(share * u128::from(missed));
        }
    }

    /// `total` whole deadlines divided in proportion.
    pub(crate) fn divide(&self, total: u64) -> ByCause<u64> {
        let shares = apportion(total, self.0);
        shares.map_or_else(|| ByCause::all_unexplained(total), ByCause)
    }
}

/// Divides `total` into whole parts in proportion to `weights`, by largest remainder (Hamilton's
/// method); of equal remainders the first is served first. The parts add up to `total`. `None` if
/// all weights are zero.
pub(crate) fn apportion<const N: usize>(total: u64, weights: [u128; N]) -> Option<[u64; N]> {
    let weights = in_sixty_bits(weights);
    let sum: u128 = weights.iter().sum();
    if sum == 0 {
        return None;
    }
    let quotas = weights.map(|weight| weight * u128::from(total));
    let mut parts = quotas.map(|quota| (quota / sum) as u64);
    let left = total - parts.iter().sum::<u64>();
    let mut order: [usize; N] = std::array::from_fn(|at| at);
    order.sort_by_key(|at| std::cmp::Reverse(quotas[*at] % sum));
    // Fewer are left than there are parts.
    order.iter().take(left as usize).for_each(|at| parts[*at] += 1);
    Some(parts)
}

/// Weights of the same proportions, small enough that a product with a `u64` does not overflow.
fn in_sixty_bits<const N: usize>(weights: [u128; N]) -> [u128; N] {
    let most = weights.iter().copied().max().unwrap_or(0);
    let surplus_bits = (u128::BITS - most.leading_zeros()).saturating_sub(60);
    weights.map(|weight| weight >> surplus_bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_left_over_goes_to_the_largest_remainders() {
        assert_eq!(apportion(10, [1, 1, 1]), Some([4, 3, 3]));
        assert_eq!(apportion(5, [60, 25, 15]), Some([3, 1, 1]));
        assert_eq!(apportion(1, [49, 51]), Some([0, 1]));
        assert_eq!(apportion(7, [0, 5, 0]), Some([0, 7, 0]));
        assert_eq!(apportion(7, [0, 0]), None);
    }

    #[test]
    fn what_has_no_cause_is_unexplained() {
        let shares = ByCause::<u64>::default().divide(5);
        assert_eq!(shares.of(Cause::Unexplained), 5);
    }

    #[test]
    fn a_token_that_misses_several_deadlines_divides_them_as_its_lateness() {
        let mut lateness = ByCause::default();
        lateness.add(Cause::Prefill, 30);
        lateness.add(Cause::Queue, 10);
        let mut deadlines = ByCause::<u128>::default();
        deadlines.add_missed(4, &lateness, 40);
        let divided = deadlines.divide(4);
        assert_eq!((divided.of(Cause::Prefill), divided.of(Cause::Queue)), (3, 1));
    }

    proptest! {
        #[test]
        fn the_parts_add_up_and_are_within_one_of_their_share(
            total: u64, weights in prop::array::uniform9(any::<u64>()),
        ) {
            let weights = weights.map(u128::from);
            let sum: u128 = weights.iter().sum();
            prop_assume!(sum > 0);
            let parts = apportion(total, weights).expect("some weight is not zero");
            prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(total));
            for (part, weight) in parts.into_iter().zip(weights) {
                let share = total as f64 * (weight as f64 / sum as f64);
                // Beside one part, what shares of 64 bits lose as floats and in 60-bit weights.
                prop_assert!((part as f64 - share).abs() <= 1.0 + total as f64 * 1e-14);
            }
        }
    }
}
