use std::fmt::Write;
use std::time::Duration;

use metron_metrics::interpolated;
use metron_trace::{Operator, OperatorProfile, Profile, Roofs, ShapeProfile};
use serde::Serialize;

use crate::figures::{Figure, rooflines};
use crate::html::{RANDOM_WEIGHTS, fill};
use crate::label::computed_by;
use crate::text::{fold, head_lines, table_line};
use crate::units::{milliseconds, percent, three_digits};

/// A profile as a person reads it.
#[derive(Debug, Clone, Copy)]
pub struct ProfileReport<'a>(pub &'a Profile);

/// Said where the processor's counters could not be read.
const NO_COUNTERS: &str =
    "Hardware counters can't be read here: perf events are forbidden, or there are none.";

/// A table with a column for each shape.
#[derive(Serialize)]
struct Table {
    name: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    cells: Vec<String>,
}

/// What the template is filled from.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    system: String,
    roofs: String,
    counters: Option<&'static str>,
    version: &'a str,
    created_at: Option<&'a str>,
    /// What nobody may overlook.
    flag: Option<&'static str>,
    shapes: Vec<String>,
    tables: Vec<Table>,
    rooflines: Vec<Figure>,
}

impl ProfileReport<'_> {
    /// For a terminal.
    pub fn to_text(self) -> String {
        let shapes = self.shapes();
        let heads: Vec<Vec<String>> = shapes.iter().map(|shape| fold(shape)).collect();
        let tables = self.tables();
        let rows = || tables.iter().flat_map(|table| &table.rows);
        let longest = |texts: &mut dyn Iterator<Item = &String>| {
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let name_width = longest(&mut rows().map(|row| &row.name));
        let widths: Vec<usize> = (0..shapes.len())
            .map(|at| longest(&mut rows().map(|row| &row.cells[at]).chain(&heads[at])))
            .collect();
        let mut text = format!("{}\n{}\n", self.system(), self.roofs());
        if !self.has_counters() {
            let _ = writeln!(text, "{NO_COUNTERS}");
        }
        for table in &tables {
            let _ = write!(text, "\n{}\n", table.name);
            for line in head_lines(&heads) {
                text.push_str(&table_line("", &line, &widths, name_width, |_, cell| cell));
            }
            for row in &table.rows {
                let cells: Vec<&str> = row.cells.iter().map(String::as_str).collect();
                text.push_str(&table_line(&row.name, &cells, &widths, name_width, |_, cell| cell));
            }
        }
        text
    }

    /// One self-contained file.
    ///
    /// # Errors
    /// If the template is broken, which is a defect.
    pub fn to_html(self) -> Result<String, minijinja::Error> {
        let profile = self.0;
        let page = Page {
            title: format!("Profile of {}", profile.model.id),
            system: self.system(),
            roofs: self.roofs(),
            counters: (!self.has_counters()).then_some(NO_COUNTERS),
            version: &profile.metron_version,
            created_at: profile.created_at.as_deref(),
            flag: profile.model.dummy.then_some(RANDOM_WEIGHTS),
            shapes: self.shapes(),
            tables: self.tables(),
            rooflines: rooflines(profile),
        };
        fill("profile.html", &page)
    }

    fn system(self) -> String {
        let Profile { model, executor, machine, .. } = self.0;
        computed_by(model, executor, Some(machine))
    }

    fn roofs(self) -> String {
        let Roofs { triad_bytes_per_second, read_bytes_per_second, flops_per_second } =
            self.0.roofs;
        let [triad, read, product] =
            [triad_bytes_per_second, read_bytes_per_second, flops_per_second]
                .map(|rate| three_digits(rate / 1e9));
        format!(
            "This machine at most: triad {triad} GB/s, reading {read} GB/s, matrix product \
             {product} GFLOP/s."
        )
    }

    fn has_counters(self) -> bool {
        self.0.shapes.iter().any(|shape| shape.counters.is_some())
    }

    fn shapes(self) -> Vec<String> {
        self.0.shapes.iter().map(|shape| shape.shape.to_string()).collect()
    }

    fn tables(self) -> Vec<Table> {
        let roofs = self.0.roofs;
        let of_roof =
            move |o: &OperatorProfile| percent(roofs.least_seconds(o.flops, o.bytes) / o.seconds);
        vec![
            self.steps(),
            self.operators("milliseconds", |o| Some(milliseconds(o.seconds))),
            self.operators("share of the roof, %", |o| Some(of_roof(o))),
            self.operators("GFLOP/s", |o| {
                // What only moves bytes has no rate of operations.
                (o.flops > 0.0).then(|| three_digits(o.flops / o.seconds / 1e9))
            }),
            self.operators("GB/s", |o| Some(three_digits(o.bytes / o.seconds / 1e9))),
        ]
    }

    fn row(self, name: &str, cell: impl Fn(&ShapeProfile) -> Option<String>) -> Row {
        let cells = self.0.shapes.iter().map(|shape| cell(shape).unwrap_or_else(|| "-".to_owned()));
        Row { name: name.to_owned(), cells: cells.collect() }
    }

    fn steps(self) -> Table {
        let step = |shape: &ShapeProfile| median(&shape.steps);
        let mut rows = vec![
            self.row("median step, ms", |shape| step(shape).map(milliseconds)),
            self.row("tokens/s", |shape| {
                step(shape).map(|step| three_digits(f64::from(shape.shape.tokens()) / step))
            }),
            self.row("outside the forward, %", |shape| {
                Some(percent(median(&shape.outside_forward)? / step(shape)?))
            }),
            self.row("cost of timing operators, %", |shape| {
                Some(format!("{:.1}", (tracing_cost(shape)? - 1.0) * 100.0))
            }),
        ];
        if self.has_counters() {
            rows.push(self.row("instructions a cycle", |shape| {
                let counters =
                    shape.counters.filter(|counters| counters.forward.cycles > 0)?.forward;
                Some(three_digits(counters.instructions as f64 / counters.cycles as f64))
            }));
            rows.push(self.row("cache misses a step", |shape| {
                Some(shape.counters?.forward.cache_misses.to_string())
            }));
        }
        Table { name: "steps", rows }
    }

    fn operators(
        self,
        name: &'static str,
        cell: impl Fn(&OperatorProfile) -> Option<String>,
    ) -> Table {
        let of = |shape: &ShapeProfile, operator| {
            shape.operators.iter().find(|other| other.operator == operator).and_then(&cell)
        };
        let ran = Operator::ALL
            .into_iter()
            .filter(|operator| self.0.shapes.iter().any(|shape| of(shape, *operator).is_some()));
        let rows = ran.map(|operator| self.row(operator.name(), |shape| of(shape, operator)));
        Table { name, rows: rows.collect() }
    }
}

/// By how much steps are longer while their operators are timed, as a factor: the median of pairs.
fn tracing_cost(shape: &ShapeProfile) -> Option<f64> {
    let pairs = shape.traced_steps.iter().zip(&shape.steps);
    middle(pairs.map(|(traced, plain)| traced.as_secs_f64() / plain.as_secs_f64()).collect())
}

/// In seconds.
fn median(times: &[Duration]) -> Option<f64> {
    middle(times.iter().map(Duration::as_secs_f64).collect())
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    interpolated(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let times = [5, 1, 2, 40].map(Duration::from_secs);
        assert_eq!((median(&times), median(&times[..3])), (Some(3.5), Some(2.0)));
        assert_eq!(median(&[]), None);
    }
}
