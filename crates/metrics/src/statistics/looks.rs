/// The chance, of all verdicts of a comparison together, to call any two equal policies different.
pub const LEVEL: f64 = 0.05;

/// How often the least count doubles up to the limit.
const DOUBLINGS: u32 = 3;

/// When a comparison that grows until it is decided may look at its verdicts.
///
/// Looking again and again at 5 % finds differences that are not there, so the looks are few, fixed
/// beforehand, and share the level: each of k looks is held to `LEVEL / k`. By the union bound this
/// holds however the looks depend on each other; Pocock's or O'Brien and Fleming's bounds are a
/// little less strict and need normal values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looks(Vec<u32>);

impl Looks {
    /// Up to a limit of replicates: after an eighth, a quarter, a half and all of it, from two on.
    pub fn up_to(limit: u32) -> Self {
        let counts = (0..=DOUBLINGS).rev().map(|halvings| limit.div_ceil(1 << halvings).max(2));
        let mut counts: Vec<u32> = counts.map(|count| count.min(limit)).collect();
        counts.dedup();
        Self(counts)
    }

    /// The counts of replicates at which to look, in order; the last is the limit.
    pub fn counts(&self) -> &[u32] {
        &self.0
    }

    /// The level that the verdicts of each look are held to.
    pub fn level(&self) -> f64 {
        LEVEL / self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_double_up_to_the_limit_and_share_the_level() {
        let counts = |limit| Looks::up_to(limit).counts().to_vec();
        assert_eq!(counts(40), [5, 10, 20, 40]);
        assert_eq!(counts(10), [2, 3, 5, 10]);
        assert_eq!(counts(3), [2, 3]);
        assert_eq!(counts(1), [1]);
        assert!((Looks::up_to(40).level() - 0.0125).abs() < 1e-12);
    }
}
