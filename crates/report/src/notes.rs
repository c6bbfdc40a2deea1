use crate::blame::{blamed, causes};
use crate::report::Report;

/// What a reader of the table has to know that its numbers don't say.
pub(crate) fn notes(report: &Report<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if report.comparison.policies.len() > 1 {
        notes.push("* best of its row".to_owned());
    }
    if !causes(&blamed(report)).is_empty() {
        notes.push("why deadlines were missed is estimated: see docs/blame.md".to_owned());
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
