//! How many independent values the values of some runs are worth: requests that queue together are
//! late together.

use crate::percentile::order_statistic;
use crate::proportion::{Unit, discounted, effective_number};

/// With so many runs they are the units; fewer are divided into batches.
const ENOUGH_RUNS: usize = 10;
/// Runs that are taken as one unit, where they are units.
const RUNS_OF_A_UNIT: [usize; 2] = [1, 2];
/// Batches of all runs together, where they are divided: 20 is what is usual of batch means (Law and
/// Kelton); longer ones show what stays together for longer than a short one.
const BATCHES: [usize; 3] = [20, 10, 5];

/// Levels of the margin at which dependence is looked for: there are values beyond them in any
/// sample, and where requests queue, those beyond lower levels stay together for longer.
const LEVELS: [f64; 3] = [0.5, 0.75, 0.9];
/// Besides them, the share that an objective asks, if so many values are beyond it.
const WORST: f64 = 20.0;
/// Fewer values than this on the scarcer side of a level do not show whether they come together.
const LEAST_BEYOND: usize = 5;
/// Fewer values than this have no such level.
pub(crate) const LEAST_TO_VARY: usize = 2 * LEAST_BEYOND;

/// A value of an objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Value {
    /// What is bounded; the larger the worse.
    pub(crate) value: f64,
    /// How far it is from bad, on a scale on which values differ also where all are good; the
    /// larger the worse.
    pub(crate) margin: f64,
}

/// The values of some runs, each in order of arrival; no run is empty.
pub(crate) struct Runs<'a>(pub(crate) Vec<&'a [Value]>);

/// How values are put together into units that are taken as independent.
#[derive(Clone, Copy)]
enum Cut {
    /// So many runs in each.
    Runs(usize),
    /// Every run divided, such that there are so many units of all, or somewhat fewer.
    Batches(usize),
}

impl Runs<'_> {
    /// How many independent values these are worth, for an objective that asks a share of them to be
    /// at most `allowed`: the least of what is seen at several levels and with several sizes of unit.
    /// Each by itself is more in some samples than it should be, and those are the calm ones that
    /// would pass. `None` of values that hardly differ.
    pub(crate) fn effective(&self, allowed: f64, share: f64) -> Option<f64> {
        let mut margins: Vec<f64> = self.values().map(|value| value.margin).collect();
        margins.sort_unstable_by(f64::total_cmp);
        let own = share.min(1.0 - WORST / margins.len() as f64).max(0.5);
        let by_margin = LEVELS.into_iter().chain([own]).filter_map(|level| {
            let level = order_statistic(&margins, level)?;
            self.worth(|value| value.margin > level)
        });
        by_margin.chain(self.worth(|value| value.value > allowed)).min_by(f64::total_cmp)
    }

    /// What the values are worth by those that have a property; `None` where nearly all have it, or
    /// hardly any.
    fn worth(&self, having: impl Fn(&Value) -> bool) -> Option<f64> {
        let [n, number] = [self.values().count(), self.values().filter(|own| having(own)).count()];
        if number.min(n - number) < LEAST_BEYOND {
            return None;
        }
        let of_cut = |cut: Cut| {
            let units = self.units(cut, &having);
            Some(discounted(effective_number(&units)?, n, units.len()))
        };
        if self.0.len() >= ENOUGH_RUNS {
            RUNS_OF_A_UNIT.map(Cut::Runs).into_iter().filter_map(of_cut).min_by(f64::total_cmp)
        } else {
            BATCHES.map(Cut::Batches).into_iter().filter_map(of_cut).min_by(f64::total_cmp)
        }
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().copied().flatten()
    }

    fn units(&self, cut: Cut, having: impl Fn(&Value) -> bool) -> Vec<Unit> {
        let unit = |values: &[Value]| Unit {
            having: values.iter().filter(|value| having(value)).count(),
            all: values.len(),
        };
        match cut {
            Cut::Runs(together) => {
                let of_runs = |runs: &[&[Value]]| {
                    runs.iter().map(|run| unit(run)).fold(Unit::default(), Unit::and)
                };
                self.0.chunks(together).map(of_runs).collect()
            }
            Cut::Batches(batches) => {
                let batches = batches.div_ceil(self.0.len().max(1));
                let length = |run: &[Value]| run.len().div_ceil(batches);
                self.0.iter().flat_map(|run| run.chunks(length(run))).map(unit).collect()
            }
        }
    }
}
