use metron_metrics::{Comparison, PolicyRow, Scoring};
use metron_report::{Report, Style};
use metron_trace::{Header, Trace};

use crate::args::ScoreArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::facts;
use crate::prepare::check_baseline;
use crate::print;
use crate::save_result::SavedResults;
use crate::saved::{SavedRuns, judging};

/// Where results in vLLM's form go that nobody named a directory for.
const SAVED_RESULTS: &str = "vllm";

/// `metron score`: all metrics again from saved traces, under other deadlines if asked.
pub(crate) fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let saved = SavedRuns::read(&args.traces)?;
    let scoring = saved.scoring(&args.scoring)?;
    note_missing_deadlines(&saved.traces, &scoring);
    let results = SavedResults::open(&args.save_result, SAVED_RESULTS.as_ref())?;
    let policies = saved.policies();
    let runs = saved.runs();
    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
    check_baseline(args.baseline.as_deref(), &policies)?;
    let judging = judging(&saved.traces[0], args.baseline.as_ref())?;
    let headers: Vec<&Header> = saved.traces.iter().map(|trace| &trace.header).collect();
    let facts = facts::saved_facts(&headers, &scoring, &args.scoring);
    if !args.json && !args.quiet {
        print::note(&facts::as_text(&facts));
    }
    let comparison = Comparison::judged(&policies, &runs, &scoring, &judging);
    let origin = headers[0].origin;
    let are_whole = |row: &PolicyRow| row.pooled.requests.are_whole(origin);
    let is_cut_short = !comparison.policies.iter().all(are_whole);
    let report = Report {
        title: format!("Metron: {}", policies.join(", ")),
        facts,
        comparison: &comparison,
        runs: &runs,
        scoring: &scoring,
        is_partial: saved.is_cut_off || is_cut_short,
    };
    if args.json {
        print::result(&report.to_json().or_fail(Kind::Internal)?);
    } else {
        print::result(&report.to_text(Style { colour: print::wants_colour() }));
    }
    results.map_or(Ok(()), |results| results.write(&runs, &scoring))
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
