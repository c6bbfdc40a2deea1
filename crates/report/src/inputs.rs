use std::collections::BTreeMap;

use metron_trace::Header;
use serde::Serialize;
use serde_json::Value;

use crate::report::counted_from_one;

/// An input in which two results differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Input {
    /// The way to it in the header.
    pub(crate) name: String,
    /// The first result's; `None` if it has none.
    pub(crate) a: Option<String>,
    /// The second's.
    pub(crate) b: Option<String>,
}

/// What is no input (when and how the run was called, what was measured before it), and what the
/// header says twice.
const NOT_INPUTS: [&str; 12] = [
    "created_at",
    "command_line",
    "calibration",
    "machine.conditions",
    "max_concurrency",
    "policy.label",
    "experiment.policies",
    "experiment.imported.says.date",
    "experiment.experiment.scheduler",
    "experiment.experiment.scoring",
    "experiment.experiment.seed",
    "experiment.experiment.replicates",
];

/// What the other tool of an imported trace did not say, and what followed from its name.
const NOT_IMPORTED: [&str; 7] = [
    "seed",
    "replicate",
    "limits",
    "model.parameters",
    "model.dummy",
    "dropped_requests",
    "truncated_requests",
];

/// Parts of the experiment, without the place where the header keeps them.
const SHORT: [(&str, &str); 3] = [
    ("experiment.experiment.", "experiment."),
    ("experiment.imported.says.", "imported."),
    ("experiment.scoring.", "scoring."),
];

/// In what replicates and policies of one experiment differ by themselves.
const OF_A_RUN: [&str; 4] = ["policy", "replicate", "dropped_requests", "truncated_requests"];

/// The inputs, by name, in which runs differ that stand in one table; that their policies do is the
/// point of it.
pub fn differing_inputs(headers: &[&Header]) -> Vec<String> {
    let Some((first, others)) = headers.split_first() else { return Vec::new() };
    let differing = others.iter().flat_map(|other| different_inputs(first, other));
    let mut names: Vec<String> = differing.map(|input| input.name).collect();
    names.retain(|name| !OF_A_RUN.iter().any(|own| is_in(name, own)));
    names.sort();
    names.dedup();
    names
}

/// In what the inputs of two runs differ, by name. Of what only one of them has, the whole is named
/// and not its parts.
pub(crate) fn different_inputs(a: &Header, b: &Header) -> Vec<Input> {
    let (a, b) = (inputs(a), inputs(b));
    let of_both = a.iter().filter_map(|(name, value)| {
        let other = b.get(name).filter(|other| *other != value)?;
        Some(Input { name: name.clone(), a: Some(shown(value)), b: Some(shown(other)) })
    });
    let only_a = alone(&a, &b).into_iter().map(|(name, a)| Input { name, a: Some(a), b: None });
    let only_b = alone(&b, &a).into_iter().map(|(name, b)| Input { name, a: None, b: Some(b) });
    let mut inputs: Vec<Input> = of_both.chain(only_a).chain(only_b).collect();
    inputs.sort();
    inputs
}

type Leaves = BTreeMap<String, Value>;

/// What `own` has and `other` does not: single values, or how many a part holds that `other` does
/// not have at all.
fn alone(own: &Leaves, other: &Leaves) -> BTreeMap<String, String> {
    let mut parts: BTreeMap<&str, Vec<(&str, &Value)>> = BTreeMap::new();
    for (name, value) in own.iter().filter(|(name, _)| !other.contains_key(*name)) {
        let ends = name.match_indices(['.', '[']).map(|(at, _)| at).chain([name.len()]);
        let is_absent = |part: &&str| !other.keys().any(|name| is_in(name, part));
        let part = ends.map(|end| &name[..end]).find(is_absent).unwrap_or(name);
        parts.entry(part).or_default().push((name, value));
    }
    let row = |(part, values): (&str, Vec<(&str, &Value)>)| match values.as_slice() {
        [(name, value)] => ((*name).to_owned(), shown(value)),
        values => (part.to_owned(), format!("({} values)", values.len())),
    };
    parts.into_iter().map(row).collect()
}

fn inputs(header: &Header) -> Leaves {
    let numbered = counted_from_one(header);
    let mut leaves = leaves(&serde_json::to_value(numbered).unwrap_or_default());
    leaves.retain(|name, _| !NOT_INPUTS.iter().any(|part| is_in(name, part)));
    if header.origin.is_imported() {
        leaves.retain(|name, _| !NOT_IMPORTED.iter().any(|part| is_in(name, part)));
    }
    leaves.into_iter().map(|(name, value)| (short(&name), value)).collect()
}

/// Whether a name is a part's, or leads into it.
fn is_in(name: &str, part: &str) -> bool {
    let rest = name.strip_prefix(part);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn short(name: &str) -> String {
    let shortened = SHORT
        .iter()
        .find_map(|(long, short)| name.strip_prefix(long).map(|rest| format!("{short}{rest}")));
    shortened.unwrap_or_else(|| name.to_owned())
}

/// The single values of a JSON value, each by the way to it: `machine.cpu`, `classes[1].weight`.
/// Nulls and empty texts are left out.
pub(crate) fn leaves(value: &Value) -> Leaves {
    let mut leaves = BTreeMap::new();
    collect(value, "", &mut leaves);
    leaves
}

fn collect(value: &Value, name: &str, leaves: &mut Leaves) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                collect(value, &format!("{name}{dot}{field}"), leaves);
            }
        }
        Value::Array(entries) => {
            for (at, value) in entries.iter().enumerate() {
                collect(value, &format!("{name}[{at}]"), leaves);
            }
        }
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        leaf => {
            leaves.insert(name.to_owned(), leaf.clone());
        }
    }
}

fn shown(leaf: &Value) -> String {
    leaf.as_str().map_or_else(|| leaf.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_named_by_the_way_to_it_and_what_is_absent_is_left_out() {
        let value = json!({ "a": { "b": [1, { "c": "x" }] }, "d": null, "e": "" });
        let leaves = leaves(&value);
        let names: Vec<&str> = leaves.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.b[0]", "a.b[1].c"]);
    }

    #[test]
    fn of_what_only_one_has_the_whole_is_named_and_not_its_parts() {
        let own =
            leaves(&json!({ "a": { "b": 1, "c": { "d": 2, "e": 3 } }, "ab": 4, "f": [5, 6] }));
        let other = leaves(&json!({ "a": { "b": 1 }, "f": [5] }));
        let alone: Vec<(String, String)> = alone(&own, &other).into_iter().collect();
        let expected = [("a.c", "(2 values)"), ("ab", "4"), ("f[1]", "6")];
        assert_eq!(alone, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
