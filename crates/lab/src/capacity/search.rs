use std::collections::BTreeMap;

use metron_metrics::{Bracket, SearchEnd, passes_to_fail, passes_to_pass};

use super::grid::{Bisection, Place, grid_at, rate_at};

/// A bracket is narrow enough when its ends are so far apart, as a share of the lower one.
const NARROW: f64 = 0.1;

/// Replicates at the first look; each later look has twice as many.
const FIRST_LOOK: u32 = 10;

/// Runs once at a rate, and says whether the run passed. The same replicate draws the same requests
/// at every rate, with the gaps scaled.
pub trait Probe {
    /// Why a run did not come about.
    type Error;

    /// Whether the run of a replicate at `rate` requests a second passed.
    fn passes(&mut self, rate: f64, replicate: u32) -> Result<bool, Self::Error>;

    /// The runs of a replicate that are there already: at which rate, and whether it passed.
    fn saved(&mut self, _replicate: u32) -> Result<Vec<(f64, bool)>, Self::Error> {
        Ok(Vec::new())
    }

    /// Whether runs at a rate are known already: it goes before others that are about as good.
    fn is_saved(&self, _rate: f64) -> bool {
        false
    }
}

/// What is looked for, and how hard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchPlan {
    /// The capacity is the rate at which a run passes with this probability.
    pub probability: f64,
    /// The bracket holds it with this one.
    pub confidence: f64,
    /// The most replicates.
    pub replicates: u32,
    /// The rate to try first.
    pub start: f64,
    /// Least and greatest rate to try.
    pub range: [f64; 2],
}

/// A search for a capacity, look by look.
///
/// At a look the greatest rate is bisected at which so many replicates pass that the rate passes,
/// and the least at which so few do that it fails. As the same requests arrive at every rate, a
/// replicate that passed at a greater rate passes at this one, and is not run again; and a rate is
/// decided as soon as enough replicates are. Looks have 10, 20, 40, .. replicates, and share the
/// allowed error equally (Bonferroni): so the bracket holds the capacity with the confidence asked
/// however many looks it took. The search ends when the bracket is narrow enough, or no more
/// replicates are allowed.
#[derive(Debug, Clone)]
pub struct CapacitySearch {
    plan: SearchPlan,
    /// Of each replicate: what was tried, and whether it passed.
    tried: Vec<BTreeMap<i32, bool>>,
    /// Replicates at the last look.
    looked_at: u32,
    bracket: Bracket,
    estimate: Option<f64>,
    end: Option<SearchEnd>,
}

impl CapacitySearch {
    /// A search that has not begun.
    pub fn new(plan: SearchPlan) -> Self {
        let (bracket, estimate) = (Bracket::default(), None);
        Self { plan, tried: Vec::new(), looked_at: 0, bracket, estimate, end: None }
    }

    /// Whether another look is wanted.
    pub fn wants_another(&self) -> bool {
        self.end.is_none()
    }

    /// Why it ended; interrupted if it did not.
    pub fn end(&self) -> SearchEnd {
        self.end.unwrap_or(SearchEnd::Interrupted)
    }

    /// Replicates at the last look.
    pub fn replicates(&self) -> u32 {
        self.looked_at
    }

    /// The bracket of the last look.
    pub fn bracket(&self) -> Bracket {
        self.bracket
    }

    /// Where the capacity most likely is: the rate that the replicates' own share reaches.
    pub fn estimate(&self) -> Option<f64> {
        self.estimate
    }

    /// Least and greatest rate tried.
    pub fn range(&self) -> Option<[f64; 2]> {
        let tried = || self.tried.iter().flat_map(BTreeMap::keys);
        Some([rate_at(*tried().min()?), rate_at(*tried().max()?)])
    }

    /// Replicates with a run that passed at a greater rate than one that failed.
    pub fn not_monotone(&self) -> u32 {
        let jumps = |tried: &&BTreeMap<i32, bool>| {
            tried.values().zip(tried.values().skip(1)).any(|(lower, higher)| !lower && *higher)
        };
        self.tried.iter().filter(jumps).count() as u32
    }

    /// Takes the next look, with as many replicates more as it takes.
    pub fn look<P: Probe>(&mut self, probe: &mut P) -> Result<(), P::Error> {
        let looks = self.looks();
        let Some(&replicates) = looks.iter().find(|look| **look > self.looked_at) else {
            return Ok(());
        };
        for replicate in self.tried.len() as u32..replicates {
            let saved = probe.saved(replicate)?;
            self.tried.push(saved.into_iter().map(|(rate, ok)| (grid_at(rate), ok)).collect());
        }
        let SearchPlan { probability, confidence, .. } = self.plan;
        let error = (1.0 - confidence) / 2.0 / looks.len() as f64;
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        let own = (probability * f64::from(replicates) - 1e-9).ceil() as u32;
        let middle = self.reached_by(own, probe)?;
        self.estimate = middle
            .passed
            .zip(middle.failed)
            .map(|(passed, failed)| (rate_at(passed) * rate_at(failed)).sqrt());
        let lower = match passes_to_pass(replicates, probability, error) {
            Some(passes) => self.reached_by(passes, probe)?,
            None => Place::default(),
        };
        let upper = match passes_to_fail(replicates, probability, error) {
            Some(passes) => self.reached_by(passes + 1, probe)?,
            None => Place::default(),
        };
        self.bracket =
            Bracket { passed: lower.passed.map(rate_at), failed: upper.failed.map(rate_at) };
        self.looked_at = replicates;
        self.end = self.ended(middle);
        Ok(())
    }

    /// Takes looks until the search ends.
    pub fn run<P: Probe>(&mut self, probe: &mut P) -> Result<(), P::Error> {
        while self.wants_another() {
            self.look(probe)?;
        }
        Ok(())
    }

    /// Where rates go from being passed by at least `count` replicates to being passed by fewer.
    fn reached_by<P: Probe>(&mut self, count: u32, probe: &mut P) -> Result<Place, P::Error> {
        let range = self.plan.range.map(grid_at);
        let first = self.estimate.unwrap_or(self.plan.start);
        let mut bisection = Bisection::new(grid_at(first), range);
        while let Some(at) = bisection.next(|at| probe.is_saved(rate_at(at))) {
            let reached = self.is_reached(at, count, probe)?;
            bisection.learn(at, reached);
        }
        Ok(bisection.place)
    }

    /// Whether at least `count` replicates pass at a rate. Those of which it is known are counted
    /// first, and no more of the others are run than it takes.
    fn is_reached<P: Probe>(
        &mut self,
        at: i32,
        count: u32,
        probe: &mut P,
    ) -> Result<bool, P::Error> {
        let known: Vec<Option<bool>> = self.tried.iter().map(|own| known(own, at)).collect();
        let number = |answer| known.iter().filter(|own| **own == answer).count() as u32;
        let (mut passed, mut open) = (number(Some(true)), number(None));
        for replicate in (0..known.len()).filter(|replicate| known[*replicate].is_none()) {
            if passed >= count || passed + open < count {
                break;
            }
            let passes = probe.passes(rate_at(at), replicate as u32)?;
            self.tried[replicate].insert(at, passes);
            passed += u32::from(passes);
            open -= 1;
        }
        Ok(passed >= count)
    }

    /// Numbers of replicates at which the bracket is looked at.
    fn looks(&self) -> Vec<u32> {
        let most = self.plan.replicates;
        let doubling = std::iter::successors(Some(FIRST_LOOK), |look| look.checked_mul(2));
        doubling.take_while(|look| *look < most).chain([most]).collect()
    }

    fn ended(&self, middle: Place) -> Option<SearchEnd> {
        match (self.bracket, middle) {
            (Bracket { passed: None, failed: Some(_) }, Place { passed: None, .. }) => {
                Some(SearchEnd::NothingPasses)
            }
            (Bracket { passed: Some(_), failed: None }, Place { failed: None, .. }) => {
                Some(SearchEnd::EverythingPasses)
            }
            _ if self.bracket.width().is_some_and(|width| width <= NARROW) => {
                Some(SearchEnd::Narrow)
            }
            _ => (self.tried.len() as u32 >= self.plan.replicates)
                .then_some(SearchEnd::OutOfReplicates),
        }
    }
}

/// What is known of a replicate at a place of the grid: it fails from the least rate that failed,
/// and passes up to the greatest that passed below that.
fn known(tried: &BTreeMap<i32, bool>, at: i32) -> Option<bool> {
    let failed = tried.iter().find(|(_, passed)| !**passed).map_or(i32::MAX, |(at, _)| *at);
    if at >= failed {
        return Some(false);
    }
    tried.range(at..failed).next().map(|_| true)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use proptest::prelude::*;

    /// Replicates that pass up to a rate of their own, with every run that was made.
    struct Thresholds {
        at: Vec<f64>,
        runs: Vec<(u32, f64)>,
        saved: Vec<(u32, f64)>,
    }

    impl Thresholds {
        fn answer(&self, rate: f64, replicate: u32) -> bool {
            rate <= self.at[replicate as usize % self.at.len()]
        }
    }

    impl Probe for Thresholds {
        type Error = Infallible;

        fn passes(&mut self, rate: f64, replicate: u32) -> Result<bool, Infallible> {
            assert!(!self.runs.contains(&(replicate, rate)), "nothing is run twice");
            self.runs.push((replicate, rate));
            Ok(self.answer(rate, replicate))
        }

        fn saved(&mut self, replicate: u32) -> Result<Vec<(f64, bool)>, Infallible> {
            let own = self.saved.iter().filter(|run| run.0 == replicate);
            Ok(own.map(|run| (run.1, self.answer(run.1, replicate))).collect())
        }

        fn is_saved(&self, rate: f64) -> bool {
            self.saved.iter().any(|run| run.1.total_cmp(&rate).is_eq())
        }
    }

    const PLAN: SearchPlan = SearchPlan {
        probability: 0.5,
        confidence: 0.95,
        replicates: 40,
        start: 10.0,
        range: [0.01, 100.0],
    };

    fn found(at: Vec<f64>, plan: SearchPlan) -> (CapacitySearch, Thresholds) {
        found_beside(at, plan, Vec::new())
    }

    fn found_beside(
        at: Vec<f64>,
        plan: SearchPlan,
        saved: Vec<(u32, f64)>,
    ) -> (CapacitySearch, Thresholds) {
        let mut probe = Thresholds { at, runs: Vec::new(), saved };
        let mut search = CapacitySearch::new(plan);
        search.run(&mut probe).unwrap_or_else(|never| match never {});
        (search, probe)
    }

    #[test]
    fn replicates_that_agree_end_at_the_first_look() {
        let (search, probe) = found(vec![2.0], PLAN);
        assert_eq!((search.end(), search.replicates()), (SearchEnd::Narrow, 10));
        let bracket = search.bracket();
        assert!(bracket.passed.is_some_and(|rate| rate <= 2.0 && rate > 1.95), "{bracket:?}");
        assert!(bracket.failed.is_some_and(|rate| rate > 2.0 && rate < 2.05), "{bracket:?}");
        assert!(probe.runs.len() < 120, "{}", probe.runs.len());
    }

    #[test]
    fn replicates_that_do_not_agree_are_followed_by_more() {
        let spread = vec![1.0, 3.0, 1.5, 2.5, 2.0, 1.2, 2.8];
        let (search, _) = found(spread, PLAN);
        assert_eq!((search.end(), search.replicates()), (SearchEnd::OutOfReplicates, 40));
        let bracket = search.bracket();
        assert!(bracket.passed < Some(2.0) && bracket.failed > Some(2.0), "{bracket:?}");
    }

    #[test]
    fn rates_of_which_none_or_all_pass_say_so_with_the_range() {
        let (search, _) = found(vec![0.001], PLAN);
        assert_eq!(search.end(), SearchEnd::NothingPasses);
        assert_eq!(search.bracket().passed, None);
        assert!(search.range().is_some_and(|[least, _]| least < 0.011));
        let (search, _) = found(vec![1e9], PLAN);
        assert_eq!(search.end(), SearchEnd::EverythingPasses);
        assert_eq!((search.bracket().failed, search.estimate()), (None, None));
        assert!(search.range().is_some_and(|[_, greatest]| greatest > 99.0));
    }

    #[test]
    fn five_replicates_decide_nothing() {
        let (search, _) = found(vec![2.0], SearchPlan { replicates: 5, ..PLAN });
        assert_eq!(search.end(), SearchEnd::OutOfReplicates);
        assert_eq!(search.bracket(), Bracket::default());
        assert!(search.estimate().is_some_and(|rate| (rate - 2.0).abs() < 0.05));
    }

    #[test]
    fn what_is_saved_of_another_question_spares_runs() {
        let other = vec![1.7, 1.8, 1.65];
        let (_, first) = found(vec![2.0, 2.1, 1.9], PLAN);
        let runs = |saved| found_beside(other.clone(), PLAN, saved).1.runs.len();
        assert!(runs(first.runs) < runs(Vec::new()));
    }

    #[test]
    fn what_is_saved_is_not_run_again() {
        let (first, probe) = found(vec![2.0, 2.1, 1.9], PLAN);
        let (again, second) = found_beside(vec![2.0, 2.1, 1.9], PLAN, probe.runs);
        assert_eq!((again.bracket(), second.runs), (first.bracket(), Vec::new()));
    }

    #[test]
    fn a_run_that_passes_above_one_that_failed_counts_for_nothing() {
        let tried = BTreeMap::from([(1, true), (3, false), (5, true)]);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|at| known(&tried, at)),
            [Some(true), Some(true), None, Some(false), Some(false), Some(false),]
        );
    }

    proptest! {
        #[test]
        fn the_bracket_holds_what_half_of_the_replicates_reach(
            at in proptest::collection::vec(0.02..90.0_f64, 6..30), start in 0.001..1000.0_f64,
        ) {
            let plan = SearchPlan { replicates: at.len() as u32, start, ..PLAN };
            let (search, _) = found(at.clone(), plan);
            let used = &at[..search.replicates() as usize];
            let mut sorted = used.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            let bracket = search.bracket();
            prop_assert!(bracket.passed.is_none_or(|rate| rate <= sorted[sorted.len() / 2]));
            prop_assert!(bracket.failed.is_none_or(|rate| rate > sorted[(sorted.len() - 1) / 2]));
            prop_assert_eq!(search.not_monotone(), 0);
        }
    }
}
