use metron_metrics::{Doubt, RaisedDoubt, doubts};
use serde::Serialize;

use crate::report::Report;

/// A doubt as the JSON has it, and as people read it.
#[derive(Serialize)]
pub(crate) struct DoubtLine {
    doubt: Doubt,
    /// Whose runs raise it; empty if it is about the whole.
    policies: Vec<String>,
    runs: usize,
    of_runs: usize,
    /// What was seen, and in whose runs.
    pub(crate) finding: String,
    /// What to do about it.
    pub(crate) advice: &'static str,
}

/// Every doubt that a report's runs give cause for.
pub(crate) fn doubt_lines(report: &Report<'_>) -> Vec<DoubtLine> {
    doubts(report.runs, report.scoring).into_iter().map(DoubtLine::new).collect()
}

impl DoubtLine {
    pub(crate) fn new(raised: RaisedDoubt) -> Self {
        let whose = match raised.policies.as_slice() {
            policies if policies.is_empty() || raised.of == 1 => String::new(),
            policies => format!(
                " ({}; {} of {} runs, this is the worst)",
                policies.join(", "),
                raised.runs,
                raised.of
            ),
        };
        Self {
            finding: raised.doubt.finding() + &whose,
            advice: raised.doubt.advice(),
            doubt: raised.doubt,
            policies: raised.policies,
            runs: raised.runs,
            of_runs: raised.of,
        }
    }
}

/// These doubts as text.
pub(crate) fn lines_text(lines: &[DoubtLine]) -> String {
    doubts_text(lines.iter().map(|line| (line.finding.as_str(), line.advice)))
}

/// Doubts as text, a line each with what to do; nothing of none.
pub(crate) fn doubts_text<'a>(doubts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let line = |(finding, advice)| format!("  {finding}. {advice}\n");
    let lines = doubts.into_iter().map(line).collect::<Vec<_>>().concat();
    if lines.is_empty() { lines } else { format!("Doubts:\n{lines}") }
}

/// The same of doubts that do not say whose they are.
pub fn bare_doubts_text<'a>(doubts: impl IntoIterator<Item = &'a Doubt>) -> String {
    let lines: Vec<(String, &str)> =
        doubts.into_iter().map(|doubt| (doubt.finding(), doubt.advice())).collect();
    doubts_text(lines.iter().map(|(finding, advice)| (finding.as_str(), *advice)))
}
