use std::path::{Path, PathBuf};

use metron_metrics::{Comparison, DeadlineRule, Judging, Objectives, RunOf, Scoring};
use metron_report::{Report, Run, Style};
use metron_trace::{Header, StoreError, Trace, TraceReader};

use crate::args::{ScoreArgs, ScoringArgs};
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::ScoringSection;
use crate::facts;
use crate::output::io_failure;
use crate::prepare::check_baseline;
use crate::print;
use crate::save_result::SavedResults;

/// Where results in vLLM's form go that nobody named a directory for.
const SAVED_RESULTS: &str = "vllm";

/// `metron score`: all metrics again from saved traces, under other deadlines if asked.
pub(crate) fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let traces = read_traces(&args.traces)?;
    let scoring = scoring(&traces[0], &args.scoring)?;
    note_missing_deadlines(&traces, &scoring);
    let saved = SavedResults::open(&args.save_result, SAVED_RESULTS.as_ref())?;
    let policies = policies(&traces);
    let replicate = |at: usize| {
        let own = |trace: &&Trace| trace.header.policy.label == traces[at].header.policy.label;
        traces[..at].iter().filter(own).count() as u32
    };
    let runs: Vec<Run<'_>> = traces
        .iter()
        .enumerate()
        .map(|(at, trace)| Run {
            policy: &trace.header.policy.label,
            replicate: replicate(at),
            trace,
        })
        .collect();
    let of_runs: Vec<RunOf<'_>> = runs
        .iter()
        .map(|run| RunOf { policy: run.policy, replicate: run.replicate, trace: run.trace })
        .collect();
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    check_baseline(args.baseline.as_deref(), &policies)?;
    let judging = judging(&traces[0], args.baseline.as_ref())?;
    let headers: Vec<&Header> = traces.iter().map(|trace| &trace.header).collect();
    let facts = facts::saved_facts(&headers, &scoring);
    if !args.json && !args.quiet {
        print::note(&facts::as_text(&facts));
    }
    let comparison = Comparison::judged(&policies, &of_runs, &scoring, &judging);
    let report = Report {
        title: format!("Metron: {}", policies.join(", ")),
        facts,
        comparison: &comparison,
        runs: &runs,
        scoring: &scoring,
        is_partial: false,
    };
    if args.json {
        print::result(&report.to_json().or_fail(Kind::Internal)?);
    } else {
        print::result(&report.to_text(Style { colour: print::wants_colour() }));
    }
    saved.map_or(Ok(()), |saved| saved.write(&runs, &scoring))
}

/// Says why nothing is fluid where no deadlines are known.
fn note_missing_deadlines(traces: &[Trace], scoring: &Scoring) {
    let rule = &scoring.deadlines;
    let has_own = |trace: &Trace| trace.requests.iter().any(|r| r.deadlines.is_some());
    if rule.needs_recorded() && !traces.iter().any(has_own) {
        print::note(
            "no deadlines are known, so there is no fluidity-index: give --ttft-deadline and \
             --tbt-deadline",
        );
    }
}

/// All traces at these paths, at least one.
pub(super) fn read_traces(paths: &[PathBuf]) -> Result<Vec<Trace>, Failure> {
    let mut traces = Vec::new();
    for path in paths {
        for dir in trace_dirs(path)? {
            let (trace, missing) = TraceReader::read(&dir).map_err(store_failure)?;
            for missing in missing {
                print::note(&format!("{}: {missing}", dir.display()));
            }
            traces.push(trace);
        }
    }
    Ok(traces)
}

/// The trace itself, or the traces of an output directory in the order in which they ran.
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
    dirs.sort_by_key(|dir| in_the_order_of_replicates(dir));
    if dirs.is_empty() {
        let error = anyhow::anyhow!(
            "{} is no trace and has none: a trace is a directory with header.json",
            path.display()
        );
        return Err(Failure { kind: Kind::Input, error });
    }
    Ok(dirs)
}

/// `sarathi-2.trace` stands before `sarathi-10.trace`.
fn in_the_order_of_replicates(dir: &Path) -> (String, u64) {
    let name = dir.file_stem().unwrap_or_default().to_string_lossy();
    let numbered = name.rsplit_once('-').and_then(|(label, nth)| Some((label, nth.parse().ok()?)));
    numbered.map_or_else(|| (name.to_string(), 0), |(label, nth)| (label.to_owned(), nth))
}

pub(crate) fn store_failure(error: StoreError) -> Failure {
    Failure { kind: Kind::Input, error: error.into() }
}

/// The policies in the order of the comparison that made the traces; others behind.
pub(super) fn policies(traces: &[Trace]) -> Vec<String> {
    let listed = traces[0].header.experiment.get("policies").and_then(|list| list.as_array());
    let listed = listed.into_iter().flatten().filter_map(|label| label.as_str());
    let mut policies: Vec<String> = listed.map(ToOwned::to_owned).collect();
    for trace in traces {
        if !policies.contains(&trace.header.policy.label) {
            policies.push(trace.header.policy.label.clone());
        }
    }
    policies.retain(|policy| traces.iter().any(|trace| trace.header.policy.label == *policy));
    policies
}

/// How the run was judged, with the baseline asked for in its place.
fn judging(trace: &Trace, baseline: Option<&String>) -> Result<Judging, Failure> {
    let recorded = trace.header.experiment.get("judging").cloned();
    let judging: Judging = recorded
        .map_or_else(|| Ok(Judging::default()), serde_json::from_value)
        .map_err(|error| anyhow::anyhow!("the trace's own judging can't be read: {error}"))
        .or_fail(Kind::Input)?;
    Ok(Judging { baseline: baseline.cloned().or(judging.baseline), ..judging })
}

/// How the run was scored, with what is asked for in its place.
pub(super) fn scoring(trace: &Trace, args: &ScoringArgs) -> Result<Scoring, Failure> {
    let recorded = trace.header.experiment.get("scoring").cloned();
    let mut scoring: Scoring = match recorded {
        Some(recorded) => serde_json::from_value(recorded)
            .map_err(|error| anyhow::anyhow!("the trace's own scoring can't be read: {error}"))
            .or_fail(Kind::Input)?,
        None => Scoring {
            deadlines: DeadlineRule::RECORDED,
            prefill: None,
            fluidity: metron_metrics::FluidityRule::default(),
            rate_target: metron_metrics::RateTarget::default(),
            stall_limit: std::time::Duration::MAX,
            goodput: None,
            class_deadlines: std::collections::BTreeMap::new(),
            objectives: Objectives::default(),
        },
    };
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
    scoring.fluidity.with_first_token &= rule.with_first_token;
    scoring.fluidity.max_slack = rule.max_slack.or(scoring.fluidity.max_slack);
    if scoring.needs_curve() && scoring.prefill.is_none() {
        let error = anyhow::anyhow!(
            "the trace has no calibration, so a predicted deadline can't be computed; give \
             --ttft-deadline as a duration"
        );
        return Err(Failure { kind: Kind::Usage, error });
    }
    Ok(scoring)
}
