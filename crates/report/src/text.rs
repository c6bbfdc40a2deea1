use std::fmt::Write;

use crate::columns::columns;
use crate::doubts::{doubt_lines, lines_text};
use crate::label::labels;
use crate::notes::notes;
use crate::report::{Report, Style};
use crate::rows::{Row, rows};
use crate::verdicts::{MeasureRows, PolicyRow, Verdicts};

const GREEN: &str = "\u{1b}[32;1m";
const RESET: &str = "\u{1b}[0m";

/// Whose numbers they are, the table, what to know of it, and the sentences.
pub(crate) fn render(report: &Report<'_>, style: Style) -> String {
    let policies = report.comparison.policies.iter();
    let policies: Vec<&str> = policies.map(|row| row.policy.as_str()).collect();
    let mut text = labels(report).join("\n") + "\n\n";
    text.push_str(&table(&policies, &rows(report), style));
    for note in notes(report) {
        let _ = writeln!(text, "{note}");
    }
    if report.is_partial {
        text.push_str("\nPARTIAL: the experiment was cut short.\n");
    }
    if let Some(judgement) = &report.comparison.judgement {
        let _ = write!(
            text,
            "\n{}",
            verdict_lines(&Verdicts::new(judgement, report.scoring.rate_target.index), style)
        );
    }
    for sentence in &report.comparison.sentences {
        let _ = write!(text, "\n{sentence}\n");
    }
    let doubts = doubt_lines(report);
    if !doubts.is_empty() {
        let _ = write!(text, "\n{}", lines_text(&doubts));
    }
    text
}

/// Rows of metrics with a column for each policy.
pub(crate) fn table(policies: &[&str], rows: &[Row], style: Style) -> String {
    let heads: Vec<Vec<String>> = policies.iter().map(|label| fold(label)).collect();
    let name_width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(at, head)| {
            let cells = rows.iter().map(|row| row.cells[at].as_str());
            let texts = cells.chain(head.iter().map(String::as_str));
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in head_lines(&heads) {
        text.push_str(&table_line("", &line, &widths, name_width, |_, cell| format!("{cell} ")));
    }
    for row in rows {
        let mark = |at, cell| marked(cell, row.best.contains(&at), style);
        text.push_str(&table_line(&row.name, &row_cells(row), &widths, name_width, mark));
    }
    text
}

/// The headline measures with their intervals and verdicts; of one policy, a line a measure.
fn verdict_lines(verdicts: &Verdicts, style: Style) -> String {
    let line = |name: String, row: &PolicyRow| {
        let verdict = match (row.is_better, style.colour) {
            (true, true) => format!("{GREEN}{}{RESET}", row.verdict),
            _ => row.verdict.clone(),
        };
        [name, row.estimate.clone(), row.difference.clone(), verdict]
    };
    let measures = &verdicts.headline;
    let is_single = measures.iter().all(|measure| measure.rows.len() == 1);
    let named = measures.iter().flat_map(|measure| {
        measure.rows.iter().map(move |row| {
            let name = if is_single { &measure.name } else { &row.policy };
            line(format!("  {name}"), row)
        })
    });
    let table = columns(&named.collect::<Vec<_>>());
    let mut lines = table.lines();
    let mut text = format!("{}\n", verdicts.heading);
    for MeasureRows { name, rows } in measures {
        if !is_single {
            let _ = writeln!(text, "{name}");
        }
        for line in lines.by_ref().take(rows.len()) {
            let _ = writeln!(text, "{line}");
        }
    }
    for note in &verdicts.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn row_cells(row: &Row) -> Vec<&str> {
    row.cells.iter().map(String::as_str).collect()
}

/// One line: its name, then right-aligned cells as `finish` makes them of the padded text.
pub(crate) fn table_line(
    name: &str,
    cells: &[&str],
    widths: &[usize],
    name_width: usize,
    finish: impl Fn(usize, String) -> String,
) -> String {
    let mut line = format!("{name:<name_width$}");
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let _ = write!(line, "  {}", finish(at, format!("{cell:>width$}")));
    }
    line.trim_end().to_owned() + "\n"
}

fn marked(cell: String, is_best: bool, style: Style) -> String {
    match (is_best, style.colour) {
        (false, _) => cell + " ",
        (true, false) => cell + "*",
        (true, true) => format!("{GREEN}{cell}*{RESET}"),
    }
}

/// A label as lines about as wide as a number, broken behind its punctuation:
/// `sarathi:token_budget=256` takes three.
pub(crate) fn fold(label: &str) -> Vec<String> {
    const WIDTH: usize = 14;
    let mut lines: Vec<String> = Vec::new();
    for part in label.split_inclusive([':', '=', ',']) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() <= WIDTH => {
                line.push_str(part);
            }
            _ => lines.push(part.to_owned()),
        }
    }
    lines
}

/// The heads' lines, with the last of each just above the numbers.
pub(crate) fn head_lines(heads: &[Vec<String>]) -> Vec<Vec<&str>> {
    let height = heads.iter().map(Vec::len).max().unwrap_or(0);
    let line = |nth: usize| {
        let part = |head: &Vec<String>| nth.checked_sub(height - head.len());
        heads.iter().map(|head| part(head).map_or("", |at| head[at].as_str())).collect()
    };
    (0..height).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_are_broken_behind_their_punctuation() {
        assert_eq!(fold("vllm-v0"), ["vllm-v0"]);
        assert_eq!(fold("sarathi:token_budget=256"), ["sarathi:", "token_budget=", "256"]);
        assert_eq!(fold("mine:a=1"), ["mine:a=1"]);
        assert_eq!(fold(""), [""; 0]);
    }

    #[test]
    fn heads_end_just_above_the_numbers() {
        let heads = [fold("orca"), fold("sarathi:token_budget=256")];
        assert_eq!(head_lines(&heads), [["", "sarathi:"], ["", "token_budget="], ["orca", "256"]]);
    }
}
