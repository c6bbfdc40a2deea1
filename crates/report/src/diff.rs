use std::fmt::Write;

use metron_metrics::{RunSummary, Scoring};
use metron_trace::Header;
use serde::Serialize;
use serde_json::Value;

use crate::columns::columns;
use crate::inputs::{Input, different_inputs, leaves};
use crate::report::SCHEMA_VERSION;
use crate::rows::{Row, Shared, rows_of};
use crate::text::table_line;

/// Two saved results side by side.
#[derive(Debug)]
pub struct Diff<'a> {
    /// How the results are called: A and B.
    pub names: [&'a str; 2],
    /// The policies that stand beside each other.
    pub pairs: Vec<Pair<'a>>,
    /// Policies of one result that the other does not have.
    pub alone: [Vec<&'a str>; 2],
}

/// A policy of the first result and one of the second.
#[derive(Debug)]
pub struct Pair<'a> {
    /// Of the first.
    pub a: Side<'a>,
    /// Of the second.
    pub b: Side<'a>,
}

/// A policy's runs in one result.
#[derive(Debug)]
pub struct Side<'a> {
    /// Its label.
    pub policy: &'a str,
    /// Replicates pooled.
    pub replicates: usize,
    /// The header of the first of them.
    pub header: &'a Header,
    /// What was computed of all of them.
    pub summary: RunSummary,
    /// How they were scored.
    pub scoring: Scoring,
}

/// The form of `--json`.
#[derive(Serialize)]
struct Envelope<'a> {
    schema_version: u32,
    a: &'a str,
    b: &'a str,
    inputs: Vec<Input>,
    policies: Vec<PolicyEnvelope<'a>>,
    only_in_a: &'a [&'a str],
    only_in_b: &'a [&'a str],
}

#[derive(Serialize)]
struct PolicyEnvelope<'a> {
    a: &'a str,
    b: &'a str,
    metrics: Vec<Metric>,
}

/// A number of both summaries, by the way to it; times in seconds.
#[derive(Serialize)]
struct Metric {
    name: String,
    a: Option<f64>,
    b: Option<f64>,
    /// `b - a`
    difference: Option<f64>,
    /// `b / a`
    ratio: Option<f64>,
}

impl Diff<'_> {
    /// As JSON: every number of the summaries, and the inputs that differ.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let policies = self.pairs.iter().map(|pair| {
            let (a, b) = (pair.a.policy, pair.b.policy);
            Ok(PolicyEnvelope { a, b, metrics: metrics(&pair.a.summary, &pair.b.summary)? })
        });
        serde_json::to_string_pretty(&Envelope {
            schema_version: SCHEMA_VERSION,
            a: self.names[0],
            b: self.names[1],
            inputs: self.inputs(),
            policies: policies.collect::<Result<_, serde_json::Error>>()?,
            only_in_a: &self.alone[0],
            only_in_b: &self.alone[1],
        })
    }

    /// As tables for a terminal: the metrics of each pair, then what differs in the inputs.
    pub fn to_text(&self) -> String {
        let mut text = format!("A  {}\nB  {}\n", self.names[0], self.names[1]);
        for pair in &self.pairs {
            let _ = write!(text, "\n{}", pair.to_text());
        }
        for (alone, name) in self.alone.iter().zip(["A", "B"]) {
            if !alone.is_empty() {
                let _ = write!(text, "\nOnly in {name}: {}\n", alone.join(", "));
            }
        }
        let inputs = self.inputs();
        if inputs.is_empty() {
            text.push_str("\nNothing differs in their inputs.\n");
            return text;
        }
        let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let mut rows = vec![["what differs in their inputs", "A", "B"].map(ToOwned::to_owned)];
        let row = |input: &Input| [input.name.clone(), or_dash(&input.a), or_dash(&input.b)];
        rows.extend(inputs.iter().map(row));
        let _ = write!(text, "\n{}", columns(&rows));
        if inputs.iter().any(|input| input.name.starts_with("scoring")) {
            text.push_str(
                "\nEach was scored as its run was, its fluidity by its own deadlines; stalls, fluid requests, \
                 goodput and objectives whose limits differ are left out. Both are scored alike with --ttft-deadline, --tbt-deadline, --rule, \
                 --without-first-token, --fluid-index, --fluid-share, --max-slack, --stall-limit, \
                 --goodput and --objective.\n",
            );
        }
        text
    }

    /// What differs in the inputs of any pair.
    fn inputs(&self) -> Vec<Input> {
        let of_pair = |pair: &Pair<'_>| {
            let mut inputs = different_inputs(pair.a.header, pair.b.header);
            let replicates = [pair.a.replicates, pair.b.replicates];
            if replicates[0] != replicates[1] {
                let [a, b] = replicates.map(|count| Some(count.to_string()));
                inputs.push(Input { name: "replicates".to_owned(), a, b });
            }
            if self.pairs.len() > 1 {
                let of_policy = inputs.iter_mut().filter(|i| i.name.starts_with("policy."));
                of_policy
                    .for_each(|input| input.name = format!("{} of {}", input.name, pair.a.policy));
            }
            inputs
        };
        let mut inputs: Vec<Input> = self.pairs.iter().flat_map(of_pair).collect();
        inputs.sort();
        inputs.dedup();
        inputs
    }
}

impl Pair<'_> {
    fn to_text(&self) -> String {
        let (a, b) = (&self.a, &self.b);
        let rows = rows_of(vec![&a.summary, &b.summary], &Shared::of(&[&a.scoring, &b.scoring]));
        let name = if a.policy == b.policy {
            a.policy.to_owned()
        } else {
            format!("{} against {}", a.policy, b.policy)
        };
        let mut lines = vec![(name, ["A", "B", "B - A", "change"].map(ToOwned::to_owned))];
        lines.extend(rows.iter().map(|row| (row.name.clone(), cells(row))));
        let name_width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let width = |at: usize| lines.iter().map(|(_, cells)| cells[at].chars().count()).max();
        let widths: Vec<usize> = (0..4).map(|at| width(at).unwrap_or(0)).collect();
        let line = |(name, cells): &(String, [String; 4])| {
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            table_line(name, &cells, &widths, name_width, |_, cell| cell)
        };
        lines.iter().map(line).collect()
    }
}

/// Both values of a row, their difference, and the change in per cent where there is one.
fn cells(row: &Row) -> [String; 4] {
    let [a, b] = [0, 1].map(|at| row.cells[at].clone());
    let (Some(from), Some(to)) = (row.values[0], row.values[1]) else {
        return [a, b, "-".to_owned(), "-".to_owned()];
    };
    let difference = to - from;
    // What reads alike is alike.
    if row.cells[0] == row.cells[1] || difference == 0.0 {
        return [a, b, "0".to_owned(), "0 %".to_owned()];
    }
    let sign = if difference > 0.0 { "+" } else { "-" };
    let change =
        if from > 0.0 { format!("{:+.1} %", difference / from * 100.0) } else { "-".to_owned() };
    [a, b, format!("{sign}{}", (row.format)(difference.abs())), change]
}

/// Every number of two summaries.
fn metrics(a: &RunSummary, b: &RunSummary) -> Result<Vec<Metric>, serde_json::Error> {
    let [a, b] = [by_objective(serde_json::to_value(a)?), by_objective(serde_json::to_value(b)?)];
    let (a, b) = (leaves(&a), leaves(&b));
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let metric = |name: &String| {
        let [a, b] = [&a, &b].map(|leaves| leaves.get(name).and_then(Value::as_f64));
        let both = a.zip(b);
        Metric {
            name: name.clone(),
            a,
            b,
            difference: both.map(|(a, b)| b - a),
            ratio: both.filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a),
        }
    };
    Ok(names.into_iter().map(metric).collect())
}

/// A summary whose objectives are named by their text, not by their place: two runs may have others.
fn by_objective(mut summary: Value) -> Value {
    let Some(objectives) = summary.get_mut("objectives") else { return summary };
    let named = |judged: Value| Some((judged.get("objective")?.as_str()?.to_owned(), judged));
    if let Value::Array(listed) = objectives.take() {
        *objectives = listed.into_iter().filter_map(named).collect();
    }
    summary
}
