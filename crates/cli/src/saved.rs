use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use metron_metrics::{
    DeadlineRule, FluidityRule, Judging, Objectives, RateTarget, RunOf, Scoring, check_distinct,
};
use metron_trace::{StoreError, Trace, TraceReader};

use crate::args::ScoringArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::ScoringSection;
use crate::output::io_failure;
use crate::print;

/// Runs that were saved, each once.
pub(crate) struct SavedRuns {
    dirs: Vec<PathBuf>,
    /// Their traces, at least one: those of a directory by label, seed and number.
    pub(crate) traces: Vec<Trace>,
    /// Whether a table of one was not closed.
    pub(crate) is_cut_off: bool,
}

impl SavedRuns {
    /// All runs at these paths.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let (mut found, mut is_cut_off) = (Vec::new(), false);
        for path in paths {
            let mut here = Vec::new();
            for dir in trace_dirs(path)? {
                let (trace, missing) = TraceReader::read(&dir).map_err(store_failure)?;
                is_cut_off |= !missing.is_empty();
                for missing in missing {
                    print::note(&format!("{}: {missing}", dir.display()));
                }
                here.push((dir, trace));
            }
            here.sort_by_cached_key(|(_, trace)| {
                (trace.header.policy.label.clone(), trace.header.seed, trace.header.replicate)
            });
            found.extend(here);
        }
        let (dirs, mut traces): (Vec<PathBuf>, Vec<Trace>) = found.into_iter().unzip();
        number_imported(&mut traces);
        let runs = Self { dirs, traces, is_cut_off };
        runs.check_distinct()?;
        Ok(runs)
    }

    /// As metrics take them.
    pub(crate) fn runs(&self) -> Vec<RunOf<'_>> {
        self.traces.iter().map(RunOf::of).collect()
    }

    fn check_distinct(&self) -> Result<(), Failure> {
        check_distinct(&self.runs())
            .map_err(|twice| {
                let [first, second] = twice.at().map(|at| self.dirs[at].display());
                anyhow::anyhow!("{first} and {second}: {twice}")
            })
            .or_fail(Kind::Input)
    }

    /// The policies in the order of the comparison that made the traces; others behind.
    pub(crate) fn policies(&self) -> Vec<String> {
        let listed = self.traces[0].header.experiment.get("policies");
        let listed = listed.and_then(|list| list.as_array()).into_iter().flatten();
        let labels = || self.traces.iter().map(|trace| trace.header.policy.label.as_str());
        let mut policies: Vec<String> = Vec::new();
        for label in listed.filter_map(|label| label.as_str()).chain(labels()) {
            if labels().any(|own| own == label) && !policies.iter().any(|known| known == label) {
                policies.push(label.to_owned());
            }
        }
        policies
    }

    /// How the first run was scored, with what is asked for in its place. Says so where that is not
    /// how the others were.
    pub(crate) fn scoring(&self, asked: &ScoringArgs) -> Result<Scoring, Failure> {
        let scoring = scoring(&self.traces[0], asked)?;
        let mut parts = BTreeSet::new();
        let mut others = Vec::new();
        for (dir, trace) in self.dirs.iter().zip(&self.traces).skip(1) {
            let differing = self::scoring(trace, asked)
                .map_or_else(|_| vec!["prefill".to_owned()], |own| differing(&scoring, &own));
            if !differing.is_empty() {
                parts.extend(differing);
                others.push(dir.display().to_string());
            }
        }
        if let Some((last, before)) = others.split_last() {
            let more = match before.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            let parts = parts.into_iter().collect::<Vec<_>>().join(", ");
            print::note(&format!(
                "{last}{more} had another scoring ({parts}) than {}, by which all are scored here \
                 where no option says otherwise",
                self.dirs[0].display()
            ));
        }
        Ok(scoring)
    }
}

/// Another tool's results have no numbers of their own: they are replicates in the order in which
/// they are named.
fn number_imported(traces: &mut [Trace]) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for header in traces.iter_mut().map(|trace| &mut trace.header) {
        if header.origin.is_imported() {
            let count = counts.entry(header.policy.label.clone()).or_default();
            header.replicate = *count;
            *count += 1;
        }
    }
}

/// The trace itself, or the traces of an output directory.
fn trace_dirs(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path.join("header.json").exists() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = path.read_dir().map_err(|error| {
        let failure = io_failure(path, &error);
        Failure { kind: Kind::Input, ..failure }
    })?;
    let mut dirs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("header.json").exists())
        .collect();
    dirs.sort();
    if dirs.is_empty() {
        let error = anyhow::anyhow!(
            "{} is no trace and has none: a trace is a directory with header.json",
            path.display()
        );
        return Err(Failure { kind: Kind::Input, error });
    }
    Ok(dirs)
}

/// The trace itself, or the only one of an output directory.
pub(crate) fn one_trace(path: &Path) -> Result<PathBuf, Failure> {
    let mut dirs = trace_dirs(path)?;
    if let [_] = dirs[..] {
        return Ok(dirs.remove(0));
    }
    let names: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let error =
        anyhow::anyhow!("{} has several traces; name one: {}", path.display(), names.join(", "));
    Err(Failure { kind: Kind::Usage, error })
}

pub(crate) fn store_failure(error: StoreError) -> Failure {
    Failure { kind: Kind::Input, error: error.into() }
}

/// How a run was judged, with the baseline asked for in its place.
pub(crate) fn judging(trace: &Trace, baseline: Option<&String>) -> Result<Judging, Failure> {
    let recorded = trace.header.experiment.get("judging").cloned();
    let judging: Judging = recorded
        .map_or_else(|| Ok(Judging::default()), serde_json::from_value)
        .map_err(|error| anyhow::anyhow!("the trace's own judging can't be read: {error}"))
        .or_fail(Kind::Input)?;
    Ok(Judging { baseline: baseline.cloned().or(judging.baseline), ..judging })
}

/// How a run was scored, with what is asked for in its place.
pub(crate) fn scoring(trace: &Trace, args: &ScoringArgs) -> Result<Scoring, Failure> {
    let mut scoring = recorded_scoring(trace)?;
    let mut asked = ScoringSection::default();
    asked.overlay(args)?;
    scoring.deadlines.first_token = asked.first_token.unwrap_or(scoring.deadlines.first_token);
    scoring.deadlines.next_token = asked.next_token.or(scoring.deadlines.next_token);
    scoring.stall_limit = asked.stall_limit.unwrap_or(scoring.stall_limit);
    scoring.rate_target.index = asked.fluid_index.unwrap_or(scoring.rate_target.index);
    scoring.rate_target.share = asked.fluid_share.unwrap_or(scoring.rate_target.share);
    scoring.goodput = asked.goodput.clone().or(scoring.goodput);
    if !asked.objectives.is_empty() {
        asked.check_classes(&trace.header.classes)?;
        scoring.objectives = asked.objectives.clone();
    }
    let rule = asked.fluidity_rule();
    if args.rule.is_some() {
        scoring.fluidity.counting = rule.counting;
    }
    if args.without_first_token.is_some() {
        scoring.fluidity.with_first_token = rule.with_first_token;
    }
    if args.max_slack.is_some() {
        scoring.fluidity.max_slack = rule.max_slack;
    }
    if scoring.needs_curve() && scoring.prefill.is_none() {
        let error = anyhow::anyhow!(
            "the trace has no calibration, so a predicted deadline can't be computed; give \
             --ttft-deadline as a duration"
        );
        return Err(Failure { kind: Kind::Usage, error });
    }
    Ok(scoring)
}

fn recorded_scoring(trace: &Trace) -> Result<Scoring, Failure> {
    let Some(recorded) = trace.header.experiment.get("scoring").cloned() else {
        return Ok(Scoring {
            deadlines: DeadlineRule::RECORDED,
            prefill: None,
            fluidity: FluidityRule::default(),
            rate_target: RateTarget::default(),
            stall_limit: Duration::MAX,
            goodput: None,
            class_deadlines: BTreeMap::new(),
            objectives: Objectives::default(),
        });
    };
    serde_json::from_value(recorded)
        .map_err(|error| anyhow::anyhow!("the trace's own scoring can't be read: {error}"))
        .or_fail(Kind::Input)
}

/// The parts in which two scorings differ; a curve that nothing needs is none.
fn differing(a: &Scoring, b: &Scoring) -> Vec<String> {
    let parts = |scoring: &Scoring| {
        let prefill = scoring.prefill.filter(|_| scoring.needs_curve());
        serde_json::to_value(Scoring { prefill, ..scoring.clone() }).unwrap_or_default()
    };
    let (a, b) = (parts(a), parts(b));
    let keys =
        [&a, &b].into_iter().filter_map(|parts| parts.as_object()).flat_map(|own| own.keys());
    keys.filter(|key| a.get(key.as_str()) != b.get(key.as_str())).cloned().collect()
}
