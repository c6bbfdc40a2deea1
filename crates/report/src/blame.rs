use metron_metrics::{Better, Blame, Cause};

use crate::report::{Report, Style};
use crate::rows::{Row, whole};
use crate::text::table;

/// What the missed deadlines of a policy were missed for; `None` where that is not known.
pub(crate) type Blamed<'a> = (&'a str, Option<&'a Blame>);

/// Every policy of a report.
pub(crate) fn blamed<'a>(report: &Report<'a>) -> Vec<Blamed<'a>> {
    let rows = report.comparison.policies.iter();
    rows.map(|row| (row.policy.as_str(), row.estimated_blame.as_ref())).collect()
}

/// The causes that any policy missed a deadline for.
pub(crate) fn causes(policies: &[Blamed<'_>]) -> Vec<Cause> {
    let blames = || policies.iter().filter_map(|(_, blame)| *blame);
    let missed = |cause: &Cause| blames().any(|blame| blame.missed_for(*cause) > 0);
    Cause::ALL.into_iter().filter(missed).collect()
}

/// The missed deadlines of every policy, and below them their causes; nothing if no policy's are
/// known.
pub(crate) fn blame_rows(policies: &[Blamed<'_>]) -> Vec<Row> {
    if policies.iter().all(|(_, blame)| blame.is_none()) {
        return Vec::new();
    }
    let counts = |of: &dyn Fn(&Blame) -> u64| -> Vec<Option<f64>> {
        policies.iter().map(|(_, blame)| blame.map(|blame| of(blame) as f64)).collect()
    };
    let row = |name: String, counts: &[Option<f64>], best: Vec<usize>| Row {
        name,
        values: counts.to_vec(),
        format: whole,
        cells: counts.iter().map(|count| count.map_or_else(|| "-".to_owned(), whole)).collect(),
        best,
    };
    let (all, causes) = (counts(&|blame| blame.missed), causes(policies));
    let name = if causes.is_empty() { "deadlines missed" } else { "deadlines missed, for" };
    let mut rows = vec![row(name.to_owned(), &all, Better::Lower.best(&all))];
    for cause in causes {
        let of_cause = counts(&|blame| blame.missed_for(cause));
        rows.push(row(format!("  {}", cause.name()), &of_cause, Vec::new()));
    }
    rows
}

/// The missed deadlines of each policy by cause, as a table for a terminal.
pub fn blame_text(policies: &[Blamed<'_>], style: Style) -> String {
    let labels: Vec<&str> = policies.iter().map(|(label, _)| *label).collect();
    table(&labels, &blame_rows(policies), style)
}
