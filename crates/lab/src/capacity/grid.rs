//! The rates that are tried, and the way among them.

/// Rates stand so far apart: on a grid that is the same for every search, so that policies,
/// replicates and later searches under other objectives try the same rates.
const STEP: f64 = 1.02;

/// The rate at a place of the grid, with five digits: one that people can read and repeat.
pub(super) fn rate_at(at: i32) -> f64 {
    let exact = STEP.powi(at);
    let decimals = 4.0 - exact.log10().floor();
    // A division by a whole power of ten keeps the digits short.
    let scale = 10_f64.powf(decimals.abs()).round();
    if decimals > 0.0 { (exact * scale).round() / scale } else { (exact / scale).round() * scale }
}

/// The place of the grid next to a rate.
pub(super) fn grid_at(rate: f64) -> i32 {
    (rate.ln() / STEP.ln()).round() as i32
}

/// Between which places of the grid something goes from being so to not being so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// The greatest at which it is so; `None` if it is not at the bottom of the range.
    pub(super) passed: Option<i32>,
    /// The least at which it is not; `None` if it is at the top.
    pub(super) failed: Option<i32>,
}

/// The way to such a place: steps that double until it is passed, then halves.
#[derive(Debug)]
pub(super) struct Bisection {
    pub(super) place: Place,
    first: i32,
    range: [i32; 2],
    stride: i32,
}

impl Bisection {
    /// One that begins at `first`, or at the end of the range that is nearest to it.
    pub(super) fn new(first: i32, range: [i32; 2]) -> Self {
        let [bottom, top] = range;
        let first = first.max(bottom).min(top);
        Self { place: Place::default(), first, range, stride: 1 }
    }

    /// Where to look next; `None` when the place is found, or is beyond an end of the range.
    pub(super) fn next(&mut self, is_saved: impl Fn(i32) -> bool) -> Option<i32> {
        let [bottom, top] = self.range;
        let stride = self.stride;
        match (self.place.passed, self.place.failed) {
            (None, None) => Some(self.first),
            (Some(passed), None) => {
                self.stride = stride.saturating_mul(2);
                (passed < top).then(|| passed.saturating_add(stride).min(top))
            }
            (None, Some(failed)) => {
                self.stride = stride.saturating_mul(2);
                (failed > bottom).then(|| failed.saturating_sub(stride).max(bottom))
            }
            (Some(passed), Some(failed)) if failed - passed > 1 => {
                let middle = passed + (failed - passed) / 2;
                // What is saved and not far from the middle costs nothing.
                let quarter = (failed - passed) / 4;
                let near = (middle - quarter..=middle + quarter)
                    .filter(|at| (passed + 1..failed).contains(at) && is_saved(*at));
                Some(near.min_by_key(|at| (at - middle).abs()).unwrap_or(middle))
            }
            (Some(_), Some(_)) => None,
        }
    }

    /// Takes in whether it is so at a place.
    pub(super) fn learn(&mut self, at: i32, is_so: bool) {
        if is_so {
            self.place.passed = Some(at);
        } else {
            self.place.failed = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_short_and_the_same_everywhere() {
        for at in -400..400 {
            assert_eq!(grid_at(rate_at(at)), at);
        }
        assert_eq!(format!("{} {}", rate_at(35), rate_at(-200)), "1.9999 0.019053");
    }

    proptest! {
        #[test]
        fn a_bisection_ends_between_two_neighbours(first in -500..500, threshold in -300..300) {
            let mut bisection = Bisection::new(first, [-400, 400]);
            let mut steps = 0;
            while let Some(at) = bisection.next(|at| at % 7 == 0) {
                bisection.learn(at, at < threshold);
                steps += 1;
            }
            let found = Place { passed: Some(threshold - 1), failed: Some(threshold) };
            prop_assert_eq!(bisection.place, found);
            prop_assert!(steps < 32);
        }
    }
}
