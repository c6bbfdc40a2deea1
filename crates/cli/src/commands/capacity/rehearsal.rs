use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metron_engine::RunEnd;
use metron_lab::saved_dir;
use metron_metrics::{Capacity, Probed, SearchEnd};
use metron_trace::Limits;

use super::Search;
use crate::exit::{Failure, Kind, OrFail};
use crate::progress::{Progress, StopSignal, roughly};
use crate::virtual_rig::{SharedCost, VirtualRig};

/// A search on a machine, made in virtual time before: where it should begin, and what it will
/// take. A run there costs milliseconds, and one here a minute.
pub(super) struct Rehearsal {
    /// Where each policy's capacity is by the cost model.
    pub(super) expected: Vec<(String, f64)>,
    /// Runs of a search that begins there, without those that there are.
    pub(super) runs: u32,
    /// Runs that there are.
    saved: u32,
    /// How long those to be made are together.
    pub(super) length: Duration,
    capacities: Vec<Capacity>,
}

impl Rehearsal {
    /// Searches twice: from the bound to where the capacities are, and from there. `output` may
    /// have runs of an earlier search.
    pub(super) fn of(
        search: &Search<'_>,
        limits: Limits,
        stop: StopSignal,
        output: &Path,
    ) -> Result<Self, Failure> {
        let dirs = [tempfile::tempdir(), tempfile::tempdir()];
        let [first_dir, second_dir] = dirs.map(|dir| dir.or_fail(Kind::Environment));
        let cost = SharedCost(Arc::new(search.cost.clone()));
        let mut rig = VirtualRig::new(limits, cost);
        let mut silent = Progress::new(stop, true);
        let first = search.run(&mut rig, first_dir?.path(), &[], &mut silent)?;
        let expected: Vec<(String, f64)> = first
            .capacities
            .iter()
            .filter_map(|own| Some((own.policy.clone(), expected(own)?)))
            .collect();
        let again = search.run(&mut rig, second_dir?.path(), &expected, &mut silent)?;
        if again.end == RunEnd::Stopped {
            return Err(Failure::interrupted());
        }
        let is_saved = |policy: &str, probe: &&Probed| {
            saved_dir(output, policy, probe.rate, probe.replicate).is_some()
        };
        let of_policy = |own: &Capacity| {
            own.probes.iter().filter(|probe| is_saved(&own.policy, probe)).count() as u32
        };
        let (all, saved) = (again.runs, again.capacities.iter().map(of_policy).sum());
        Ok(Self {
            expected,
            runs: all - saved,
            saved,
            length: again.length * (all - saved) / all.max(1),
            capacities: again.capacities,
        })
    }

    /// What the search will take, and what it will find.
    pub(super) fn sentence(&self) -> String {
        let widths = || self.capacities.iter().filter_map(|own| own.bracket.width());
        let widest = widths().fold(0.0, f64::max) * 100.0;
        let brackets = if widths().count() == 0 {
            String::new()
        } else {
            format!(
                "; brackets up to {widest:.0} % wide, about half as wide with four times the \
                 --replicates"
            )
        };
        let saved = match self.saved {
            0 => String::new(),
            saved => format!(", beside {saved} saved ones"),
        };
        let hopeless = self.all_that(SearchEnd::NothingPasses, "nothing passes under");
        let boundless = self.all_that(SearchEnd::EverythingPasses, "everything passes under");
        format!(
            "about {} runs, {}{saved} (by a rehearsal in virtual time{brackets}{hopeless}\
             {boundless})",
            self.runs,
            roughly(self.length)
        )
    }

    fn all_that(&self, end: SearchEnd, what: &str) -> String {
        let own = self.capacities.iter().filter(|own| own.end == end);
        let policies: Vec<&str> = own.map(|own| own.policy.as_str()).collect();
        if policies.is_empty() {
            String::new()
        } else {
            format!("; {what} {}", policies.join(", "))
        }
    }
}

/// Where to begin: at the capacity, or at the end of the range beyond which it is.
fn expected(own: &Capacity) -> Option<f64> {
    match own.end {
        SearchEnd::NothingPasses => own.range.map(|[least, _]| least),
        SearchEnd::EverythingPasses => own.range.map(|[_, greatest]| greatest),
        _ => own.estimate,
    }
}
