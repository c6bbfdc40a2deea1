use std::fmt;
use std::time::Duration;

use metron_metrics::{FirstTokenRule, Scoring};
use metron_trace::{Header, Origin};

use crate::args::ScoringArgs;
use crate::derive::LoadFacts;
use crate::facts::milliseconds;

/// Where a deadline came from.
enum Source {
    /// The user.
    Given,
    /// The saved run, or the experiment's file.
    Recorded,
    /// The calibration, in this way.
    Derived(String),
}

impl Source {
    /// Of what was not derived.
    fn of(asked: Option<&String>) -> Self {
        if asked.is_some() { Self::Given } else { Self::Recorded }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str(" (given)"),
            Self::Recorded => f.write_str(" (as recorded)"),
            Self::Derived(how) => write!(f, " ({how})"),
        }
    }
}

/// Where each deadline came from.
pub(crate) struct Sources {
    first_token: Source,
    next_token: Source,
    classes: Source,
}

impl Sources {
    /// Of a run that is about to begin: what it was not asked for and did not derive stood in the
    /// file of its experiment.
    pub(crate) fn of_run(header: &Header, load: &LoadFacts, asked: &ScoringArgs) -> Self {
        let by =
            if header.origin == Origin::Simulated { "by the cost model" } else { "measured here" };
        let steps = || {
            let step = milliseconds(load.decode_step);
            format!("5 isolated decode steps of {step} at batch {}, {by}", load.batch)
        };
        let source = |is_derived: bool, how: &dyn Fn() -> String, asked: Option<&String>| {
            if is_derived { Source::Derived(how()) } else { Source::of(asked) }
        };
        let slack = || "its slack is 12 times the later ones'".to_owned();
        Self {
            first_token: source(load.derived_first_token, &slack, asked.ttft_deadline.as_ref()),
            next_token: source(load.derived_next_token, &steps, asked.tbt_deadline.as_ref()),
            classes: Source::Given,
        }
    }

    /// Of a saved run.
    pub(crate) fn of_saved_run(asked: &ScoringArgs) -> Self {
        Self {
            first_token: Source::of(asked.ttft_deadline.as_ref()),
            next_token: Source::of(asked.tbt_deadline.as_ref()),
            classes: Source::Recorded,
        }
    }
}

/// When tokens are due, where each deadline came from, and what a stall is.
pub(crate) fn deadlines(header: &Header, scoring: &Scoring, sources: &Sources) -> String {
    let rule = &scoring.deadlines;
    let mut parts = Vec::new();
    if header.origin.is_imported() && rule.needs_recorded() {
        parts.push("not known: another tool's result has none".to_owned());
    } else {
        let (first, next) = (first_token(rule.first_token), next_token(rule.next_token));
        parts.push(format!("{first}{}, {next}{}", sources.first_token, sources.next_token));
    }
    for (class, own) in &scoring.class_deadlines {
        let own =
            [own.first_token.map(first_token), own.next_token.map(|own| next_token(Some(own)))];
        let own: Vec<String> = own.into_iter().flatten().collect();
        parts.push(format!("of class {class}: {}{}", own.join(", "), sources.classes));
    }
    parts.extend(fit(header, scoring));
    if scoring.stall_limit < Duration::MAX {
        parts.push(format!("a gap above {} is a stall", milliseconds(scoring.stall_limit)));
    }
    parts.join("; ")
}

fn first_token(rule: FirstTokenRule) -> String {
    match rule {
        FirstTokenRule::Recorded => "first token when its run had it due".to_owned(),
        rule => format!("first token within {rule} of the arrival"),
    }
}

fn next_token(deadline: Option<Duration>) -> String {
    match deadline {
        Some(deadline) => format!("later ones {} apart", milliseconds(deadline)),
        None => "later ones when their run had them due".to_owned(),
    }
}

/// What predictions rest on, where a deadline is one.
fn fit(header: &Header, scoring: &Scoring) -> Option<String> {
    let prefill = &header.calibration.as_ref().filter(|_| scoring.needs_curve())?.prefill;
    let (shortest, longest) = prefill.range()?;
    Some(format!(
        "prefill predicted from {} isolated repeats of {shortest} to {longest} tokens (quick \
         calibration, residual {:.1} %)",
        prefill.points.len(),
        prefill.relative_residual * 100.0
    ))
}
