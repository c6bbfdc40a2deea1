use metron_metrics::{Basis, Judged, ObjectiveVerdict, RunSummary, served_alike};
use metron_trace::Header;

use crate::blame::{blamed, causes};
use crate::report::Report;
use crate::units::percent;

/// What a reader of the table has to know that its numbers don't say.
pub(crate) fn notes(report: &Report<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let policies = report.comparison.policies.iter();
    let pooled: Vec<&RunSummary> = policies.map(|row| &row.pooled).collect();
    if pooled.len() > 1 {
        notes.push(if served_alike(&pooled) {
            "* best of its row".to_owned()
        } else {
            "no best is marked: not all policies served all requests to the end".to_owned()
        });
    }
    if !causes(&blamed(report)).is_empty() {
        notes.push("why deadlines were missed is estimated: see docs/blame.md".to_owned());
    }
    notes.extend(too_long(report));
    let judged = || report.comparison.policies.iter().flat_map(|row| &row.pooled.objectives);
    if judged().next().is_some() {
        notes.push(
            "PASS and FAIL hold with 95 % confidence of the share that keeps the objective"
                .to_owned(),
        );
    }
    if let Some(undecided) = judged().find(|judged| judged.verdict == ObjectiveVerdict::Undecided) {
        notes.push(undecided_note(undecided));
    }
    for row in &report.comparison.policies {
        let rate = &row.pooled.fluid_rate;
        if rate.tokens_per_second == 0.0 && rate.unattainable > 0 {
            notes.push(format!(
                "{}: no decode deadline makes {} of {} requests fluid, too many for a fluid token \
                 rate",
                row.policy, rate.unattainable, rate.requests
            ));
        }
    }
    notes
}

/// What became of requests that were too long: they are in no number.
fn too_long(report: &Report<'_>) -> Option<String> {
    let headers = || report.runs.iter().map(|run| &run.trace.header);
    let count = |what: &str, of: fn(&Header) -> u32| {
        let counts = headers().map(of);
        let (least, most) = (counts.clone().min()?, counts.max().filter(|most| *most > 0)?);
        let range = if least == most { String::new() } else { format!("{least} to ") };
        Some(format!("{range}{most} a run {what}"))
    };
    let counts = [
        count("dropped", |header| header.dropped_requests),
        count("cut", |header| header.truncated_requests),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    let told = || format!("requests longer than the context or the cache: {}", counts.join(", "));
    (!counts.is_empty()).then(told)
}

/// Why a verdict is open, and what would close it.
fn undecided_note(judged: &Judged) -> String {
    let Judged { objective, n, effective, .. } = judged;
    let Some([least, most]) = judged.bounds else {
        return match judged.basis {
            Basis::CutShort => format!("UNDECIDED: no run was served to its end (`{objective}`)"),
            _ => format!("UNDECIDED: nothing in the runs has what `{objective}` bounds"),
        };
    };
    let (worth, what) = match judged.basis {
        Basis::NothingVaries => (
            "which hardly differ, so that only runs count",
            "more replicates (--replicates) decide it",
        ),
        Basis::TooFew => (
            "too few to show how they depend on each other",
            "more requests or replicates (--num-prompts, --replicates) decide it",
        ),
        Basis::Values | Basis::CutShort => (
            &*format!("that are worth {effective:.0} independent ones"),
            "more requests or replicates decide it",
        ),
    };
    let what = if objective.share >= 1.0 {
        "no sample can show that all do: ask for less than 100 %"
    } else {
        what
    };
    format!(
        "UNDECIDED: the share is between {} % and {} % (for `{objective}`, {n} values {worth}); \
         {what}",
        percent(least),
        percent(most),
    )
}
