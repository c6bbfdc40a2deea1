use std::path::{Path, PathBuf};

use metron_metrics::{Comparison, DeadlineRule, Objectives, RunOf, Scoring};
use metron_report::{Report, Run, Style};
use metron_trace::{StoreError, Trace, TraceReader};

use crate::args::ScoreArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::ScoringSection;
use crate::output::io_failure;
use crate::print;

/// `metron score`: all metrics again from saved traces, under other deadlines if asked.
pub(crate) fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let mut traces = Vec::new();
    for path in &args.traces {
        for dir in trace_dirs(path)? {
            let (trace, missing) = TraceReader::read(&dir).map_err(store_failure)?;
            for missing in missing {
                print::note(&format!("{}: {missing}", dir.display()));
            }
            traces.push(trace);
        }
    }
    let scoring = scoring(&traces[0], args)?;
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
    let comparison = Comparison::new(&policies, &of_runs, &scoring);
    let report = Report {
        title: format!("Metron: {}", policies.join(", ")),
        facts: Vec::new(),
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
    Ok(())
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

fn store_failure(error: StoreError) -> Failure {
    Failure { kind: Kind::Input, error: error.into() }
}

/// The policies in the order of the comparison that made the traces; others behind.
fn policies(traces: &[Trace]) -> Vec<String> {
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

/// How the run was scored, with what is asked for in its place.
fn scoring(trace: &Trace, args: &ScoreArgs) -> Result<Scoring, Failure> {
    let recorded = trace.header.experiment.get("scoring").cloned();
    let mut scoring: Scoring = match recorded {
        Some(recorded) => serde_json::from_value(recorded)
            .map_err(|error| anyhow::anyhow!("the trace's own scoring can't be read: {error}"))
            .or_fail(Kind::Input)?,
        None => Scoring {
            deadlines: DeadlineRule::RECORDED,
            prefill: None,
            fluidity: metron_metrics::FluidityRule::default(),
            stall_limit: std::time::Duration::MAX,
            goodput: None,
            class_deadlines: std::collections::BTreeMap::new(),
            objectives: Objectives::default(),
        },
    };
    let mut asked = ScoringSection::default();
    asked.overlay(&args.scoring)?;
    scoring.deadlines.first_token = asked.first_token.unwrap_or(scoring.deadlines.first_token);
    scoring.deadlines.next_token = asked.next_token.or(scoring.deadlines.next_token);
    scoring.stall_limit = asked.stall_limit.unwrap_or(scoring.stall_limit);
    scoring.goodput = asked.goodput.clone().or(scoring.goodput);
    if !asked.objectives.is_empty() {
        asked.check_classes(&trace.header.classes)?;
        scoring.objectives = asked.objectives.clone();
    }
    let rule = asked.fluidity_rule();
    if args.scoring.rule.is_some() {
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
