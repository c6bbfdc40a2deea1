use std::fmt::Write;

use crate::report::{Report, Style};
use crate::rows::{Row, rows};

const GREEN: &str = "\u{1b}[32;1m";
const RESET: &str = "\u{1b}[0m";

/// The table, then the sentences.
pub(crate) fn render(report: &Report<'_>, style: Style) -> String {
    let policies = &report.comparison.policies;
    let rows = rows(report.comparison);
    let name_width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row.cells[at].chars().count());
        cells.chain([policies[at].policy.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..policies.len()).map(width).collect();
    let mut text = String::new();
    let _ = write!(text, "{:<name_width$}", "");
    for (policy, width) in policies.iter().zip(&widths) {
        let _ = write!(text, "  {:>width$} ", policy.policy);
    }
    text = text.trim_end().to_owned() + "\n";
    for row in &rows {
        text.push_str(&line(row, name_width, &widths, style));
    }
    if policies.len() > 1 {
        text.push_str("* best of its row\n");
    }
    if report.is_partial {
        text.push_str("\nPARTIAL: the experiment was interrupted.\n");
    }
    for sentence in &report.comparison.sentences {
        let _ = write!(text, "\n{sentence}\n");
    }
    text
}

fn line(row: &Row, name_width: usize, widths: &[usize], style: Style) -> String {
    let mut line = format!("{:<name_width$}", row.name);
    for (at, (cell, width)) in row.cells.iter().zip(widths).enumerate() {
        let is_best = row.best.contains(&at);
        let (on, off) = if is_best && style.colour { (GREEN, RESET) } else { ("", "") };
        let mark = if is_best { "*" } else { " " };
        let _ = write!(line, "  {on}{cell:>width$}{mark}{off}");
    }
    line.trim_end().to_owned() + "\n"
}
