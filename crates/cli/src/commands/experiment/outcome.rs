use metron_engine::RunEnd;
use metron_lab::{Comparing, FailedRun, MeasuredRun, Replicates};
use metron_llm::hub::ModelName;
use metron_metrics::{Comparison, RunOf, Verdict};
use metron_report::{Report, Style};
use metron_trace::Header;

use crate::args::ExperimentArgs;
use crate::commands::ended;
use crate::exit::{Failure, Kind, OrFail};
use crate::experiment::{Experiment, absolute};
use crate::facts::fact;
use crate::output::OutputDir;
use crate::prepare::Prepared;
use crate::print;
use crate::save_result::SavedResults;

/// The cost model of an experiment in virtual time, beside it.
pub(super) const COST: &str = "cost.toml";

/// Writes down how to repeat the experiment: with the replicates that were asked for, or with those
/// that the time allowed, and from whatever directory.
pub(super) fn write_experiment(
    prepared: &Prepared,
    made: &[MeasuredRun],
    output: &OutputDir,
) -> Result<(), Failure> {
    let replicates = match prepared.replicates {
        Replicates::Exactly(count) | Replicates::UntilDecided(count) => Some(count),
        Replicates::Within(_) => made.iter().map(|run| run.replicate + 1).max(),
    };
    let mut as_run = Experiment { replicates, ..prepared.experiment.clone() };
    as_run.simulate = as_run.simulate.map(|_| COST.into());
    as_run.model.id = as_run.model.id.map(|id| match id.parse() {
        Ok(ModelName::Directory(path) | ModelName::File(path)) => {
            absolute(&path).display().to_string()
        }
        _ => id,
    });
    let text = toml::to_string_pretty(&as_run).or_fail(Kind::Internal)?;
    output.write("experiment.toml", &text).map(|_| ())
}

/// Prints and saves what came of it. An experiment that was cut short is reported as partial.
pub(super) fn report(
    comparing: &Comparing,
    prepared: &Prepared,
    header: &Header,
    mut facts: Vec<(String, String)>,
    output: &OutputDir,
    saved: Option<&SavedResults>,
    args: &ExperimentArgs,
) -> Result<(), Failure> {
    let runs: Vec<RunOf<'_>> = comparing.runs.iter().map(MeasuredRun::as_run_of).collect();
    let policies: Vec<&str> =
        prepared.contestants.iter().map(|contestant| contestant.info.label.as_str()).collect();
    let comparison = Comparison::judged(&policies, &runs, &prepared.scoring, &prepared.judging);
    let at_limit = end_at_limit(prepared, &comparison);
    if let Some(sentence) = &at_limit {
        facts.push(fact("ended", sentence.clone()));
    }
    let report = Report {
        title: format!("Metron: {} on {}", policies.join(", "), header.model.id),
        facts,
        comparison: &comparison,
        runs: &runs,
        scoring: &prepared.scoring,
        is_partial: comparing.end == RunEnd::Stopped,
    };
    let json = report.to_json().or_fail(Kind::Internal)?;
    // Printed first: a disk that takes no more files costs nobody the result.
    if args.output.json {
        print::result(&json);
    } else {
        print::result(&report.to_text(Style { colour: print::wants_colour() }));
    }
    let write = || {
        write_experiment(prepared, &comparing.runs, output)?;
        output.write("metrics.json", &json)?;
        let html = output.write("report.html", &report.to_html().or_fail(Kind::Internal)?)?;
        if !args.output.quiet && !args.output.json {
            if let Some(sentence) = &at_limit {
                print::note(&format!("--until decided ended {sentence}"));
            }
            print::note(&format!("Written to {}: open {}", output.path.display(), html.display()));
        }
        saved.map_or(Ok(()), |saved| saved.write(&runs, &prepared.scoring))
    };
    let written = write();
    end(comparing.failure.as_ref(), comparing.end, written, comparing.runs.len(), output)
}

/// Said of a comparison that was to go on until all was decided, and had no more replicates.
fn end_at_limit(prepared: &Prepared, comparison: &Comparison) -> Option<String> {
    let Replicates::UntilDecided(limit) = prepared.replicates else { return None };
    let judgement = comparison.judgement.as_ref()?;
    let is_open = judgement.headline_verdicts().any(|verdict| verdict == Verdict::Undecided);
    (is_open && judgement.replicates >= limit as usize).then(|| {
        format!("at its limit of {limit} replicates, with verdicts UNDECIDED; --replicates sets it")
    })
}

/// How an experiment ends that has been reported.
fn end(
    failure: Option<&FailedRun>,
    end: RunEnd,
    written: Result<(), Failure>,
    runs: usize,
    output: &OutputDir,
) -> Result<(), Failure> {
    if failure.is_none() {
        written?;
        return ended(end, None);
    }
    if let Err(failure) = written {
        print::note(&format!("the report could not be saved: {failure}"));
    }
    let dir = output.path.display();
    let kept = if runs == 1 { "the run".to_owned() } else { format!("the {runs} runs") };
    print::note(&format!("{kept} before the failure stay in {dir}: metron score {dir} reads them"));
    ended(end, failure)
}
