use std::fmt::Write;

use metron_metrics::{Bracket, Capacity, Objectives, SearchEnd};
use metron_trace::{Header, Origin};
use serde::Serialize;

use crate::columns::columns;
use crate::report::SCHEMA_VERSION;
use crate::units::{percent, three_digits};

/// The capacities of some policies.
#[derive(Debug, Clone, Copy)]
pub struct CapacityReport<'a> {
    /// What ran, on what.
    pub header: &'a Header,
    /// A capacity for each policy.
    pub capacities: &'a [Capacity],
    /// What runs have to keep.
    pub objectives: &'a Objectives,
    /// The horizon: requests of a run.
    pub num_requests: u32,
    /// With what probability.
    pub probability: f64,
    /// How sure the brackets are.
    pub confidence: f64,
    /// Whether the search was cut short.
    pub is_partial: bool,
}

/// The form of capacity.json and of `--json`.
#[derive(Serialize)]
struct Envelope<'a> {
    schema_version: u32,
    is_partial: bool,
    objectives: &'a Objectives,
    num_requests: u32,
    probability: f64,
    confidence: f64,
    /// Whether the upper bounds come from a cost model that was fitted to a machine.
    upper_bound_is_estimated: bool,
    seed: u64,
    capacities: &'a [Capacity],
    header: &'a Header,
}

impl CapacityReport<'_> {
    /// As JSON: the definition of the capacity, and each policy's with every run.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&Envelope {
            schema_version: SCHEMA_VERSION,
            is_partial: self.is_partial,
            objectives: self.objectives,
            num_requests: self.num_requests,
            probability: self.probability,
            confidence: self.confidence,
            upper_bound_is_estimated: self.bound_is_estimated(),
            seed: self.header.seed,
            capacities: self.capacities,
            header: self.header,
        })
    }

    fn bound_is_estimated(&self) -> bool {
        self.header.origin == Origin::Measured
    }

    /// As a table and what to know of it.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "The greatest rate at which a run of {} requests, from an empty start, keeps\n    {}\n\
             with a probability of {} ({:.0} % confidence):\n\n",
            self.num_requests,
            self.objectives,
            self.probability,
            self.confidence * 100.0,
        );
        text.push_str(&self.table());
        if self.is_partial {
            text.push_str("\nPARTIAL: the search was interrupted; the same command goes on.\n");
        }
        for sentence in self.sentences() {
            let _ = write!(text, "\n{sentence}\n");
        }
        text
    }

    fn table(&self) -> String {
        let head = [
            "policy",
            "requests/s",
            "most likely",
            "no policy above",
            "reaches, %",
            "replicates",
            "runs",
            "binding",
        ];
        let row = |own: &Capacity| {
            let number = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), three_digits);
            [
                own.policy.clone(),
                bracket_text(own.bracket),
                number(own.estimate),
                number(own.upper_bound),
                own.of_bound().map_or_else(|| "-".to_owned(), percent),
                own.replicates.to_string(),
                own.probes.len().to_string(),
                own.binding.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            ]
        };
        let rows: Vec<[String; 8]> = std::iter::once(head.map(ToOwned::to_owned))
            .chain(self.capacities.iter().map(row))
            .collect();
        columns(&rows)
    }

    fn sentences(&self) -> Vec<String> {
        let mut sentences: Vec<String> =
            self.capacities.iter().filter_map(|own| self.end_sentence(own)).collect();
        sentences.extend(self.capacities.iter().filter_map(not_monotone_sentence));
        sentences.push(self.bound_sentence());
        sentences
    }

    fn end_sentence(&self, own: &Capacity) -> Option<String> {
        let policy = &own.policy;
        let [least, greatest] = own.range?.map(three_digits);
        match own.end {
            SearchEnd::Narrow | SearchEnd::Interrupted => None,
            SearchEnd::OutOfReplicates => {
                let width = own.bracket.width().map_or_else(
                    || "open on one side".to_owned(),
                    |width| format!("{} % wide", percent(width)),
                );
                Some(format!(
                    "{policy}: the bracket is {width} after {} replicates; more (--replicates) \
                     or longer runs (--num-prompts) narrow it.",
                    own.replicates
                ))
            }
            SearchEnd::NothingPasses => Some(format!(
                "{policy}: nothing passes. Rates from {greatest} down to {least} requests/s were \
                 tried, at which requests hardly meet: {} asks more than this system can do.",
                if self.objectives.iter().count() > 1 {
                    "one of the objectives"
                } else {
                    "the objective"
                },
            )),
            SearchEnd::EverythingPasses => Some(format!(
                "{policy}: everything passes, up to {greatest} requests/s: the objectives do not \
                 bound how long a request waits, or runs are too short for a queue to grow."
            )),
        }
    }

    fn bound_sentence(&self) -> String {
        if self.capacities.iter().all(|own| own.upper_bound.is_none()) {
            return "There is no rate that no policy can exceed: the objectives do not bound how \
                    long a request may take, or a whole run fits into that time."
                .to_owned();
        }
        let estimated = if self.bound_is_estimated() {
            " ESTIMATED: the cost model was fitted to this machine."
        } else {
            ""
        };
        format!(
            "No policy can exceed the rate above which the work of these requests, in full \
             batches by the cost model, does not fit between their arrivals and bounds.{estimated}"
        )
    }
}

fn bracket_text(bracket: Bracket) -> String {
    match (bracket.passed, bracket.failed) {
        (Some(passed), Some(failed)) => {
            format!("{} to {}", three_digits(passed), three_digits(failed))
        }
        (Some(passed), None) => format!("at least {}", three_digits(passed)),
        (None, Some(failed)) => format!("below {}", three_digits(failed)),
        (None, None) => "undecided".to_owned(),
    }
}

fn not_monotone_sentence(own: &Capacity) -> Option<String> {
    (own.not_monotone > 0).then(|| {
        format!(
            "{}: in {} of {} replicates a run passed at a greater rate than one that failed; the \
             least rate that failed counts.",
            own.policy, own.not_monotone, own.replicates
        )
    })
}
