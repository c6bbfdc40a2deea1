use std::fmt::Write;

use metron_metrics::{Bracket, Capacity, Judged, Objectives, Probed, RaisedDoubt, SearchEnd};
use metron_trace::{Header, Origin};
use serde::Serialize;

use crate::capacity_page;
use crate::columns::columns;
use crate::doubts::{DoubtLine, lines_text};
use crate::report::SCHEMA_VERSION;
use crate::units::{percent, three_digits};

/// The capacities of some policies.
#[derive(Debug, Clone, Copy)]
pub struct CapacityReport<'a> {
    /// What ran, on what.
    pub header: &'a Header,
    /// The same for people, with every default: name and sentence.
    pub facts: &'a [(String, String)],
    /// A capacity for each policy.
    pub capacities: &'a [Capacity],
    /// The doubts that the runs give cause for.
    pub doubts: &'a [RaisedDoubt],
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
    doubts: Vec<DoubtLine>,
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
            doubts: self.doubt_lines(),
            capacities: self.capacities,
            header: self.header,
        })
    }

    /// As one HTML file that needs nothing beside it.
    ///
    /// # Errors
    /// If the template is broken, which is a defect.
    pub fn to_html(&self) -> Result<String, minijinja::Error> {
        capacity_page::render(self)
    }

    pub(crate) fn doubt_lines(&self) -> Vec<DoubtLine> {
        self.doubts.iter().cloned().map(DoubtLine::new).collect()
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
        text.push_str(&columns(&self.table()));
        if self.is_partial {
            text.push_str("\nPARTIAL: the search was cut short; the same command goes on.\n");
        }
        for sentence in self.sentences() {
            let _ = write!(text, "\n{sentence}\n");
        }
        let doubts = self.doubt_lines();
        if !doubts.is_empty() {
            let _ = write!(text, "\n{}", lines_text(&doubts));
        }
        text
    }

    /// The table with its head. What binds is named where there is a choice.
    pub(crate) fn table(&self) -> Vec<Vec<String>> {
        let is_choice = self.objectives.iter().count() > 1;
        let mut head = vec![
            "policy",
            "requests/s",
            "wide, %",
            "most likely",
            "no policy above",
            "reaches, %",
            "replicates",
            "runs",
        ];
        head.extend(is_choice.then_some("binding"));
        let row = |own: &Capacity| {
            let shown = |value: Option<f64>, format: fn(f64) -> String| {
                value.map_or_else(|| "-".to_owned(), format)
            };
            let binding = || own.binding.as_ref().map_or_else(String::new, ToString::to_string);
            let mut row = vec![
                own.policy.clone(),
                bracket_text(own.bracket),
                shown(own.bracket.width(), percent),
                shown(own.estimate, three_digits),
                shown(own.upper_bound, three_digits),
                shown(own.of_bound(), percent),
                own.replicates.to_string(),
                own.probes.len().to_string(),
            ];
            row.extend(is_choice.then(binding));
            row
        };
        let head = head.into_iter().map(ToOwned::to_owned).collect();
        std::iter::once(head).chain(self.capacities.iter().map(row)).collect()
    }

    pub(crate) fn sentences(&self) -> Vec<String> {
        let mut sentences: Vec<String> = self.capacities.iter().filter_map(end_sentence).collect();
        sentences.extend(self.wide_sentence());
        sentences.extend(self.open_sentence());
        sentences.extend(self.capacities.iter().filter_map(not_monotone_sentence));
        sentences.push(self.bound_sentence());
        sentences
    }

    /// What makes wide brackets narrower, and what that costs: their width is that of chance, which
    /// goes with the root of the number of requests.
    fn wide_sentence(&self) -> Option<String> {
        let (policies, replicates) = self.out_of_replicates(|own| own.bracket.width().is_some())?;
        Some(format!(
            "{policies}: {replicates} replicates leave the bracket wide. Four times as many \
             (--replicates {}, in the same directory: the runs that there are count) make it about \
             half as wide, for four times the time; so do runs four times as long (--num-prompts {}, \
             in another), of which another capacity is asked.",
            replicates.saturating_mul(4),
            self.num_requests.saturating_mul(4)
        ))
    }

    /// What may close brackets that are open: how wide they would be is not known.
    fn open_sentence(&self) -> Option<String> {
        let (policies, replicates) = self.out_of_replicates(|own| own.bracket.width().is_none())?;
        Some(format!(
            "{policies}: {replicates} replicates leave the bracket open. More (--replicates {}, in \
             the same directory: the runs that there are count) may close it.",
            replicates.saturating_mul(2)
        ))
    }

    /// The policies, of these, whose search used up its replicates, and how many those were.
    fn out_of_replicates(&self, is_one: impl Fn(&Capacity) -> bool) -> Option<(String, u32)> {
        let all = self.capacities.iter();
        let own: Vec<&Capacity> =
            all.filter(|own| own.end == SearchEnd::OutOfReplicates && is_one(own)).collect();
        let replicates = own.iter().map(|own| own.replicates).max()?;
        let policies: Vec<&str> = own.iter().map(|own| own.policy.as_str()).collect();
        Some((policies.join(", "), replicates))
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
            "No policy above: at greater rates none keeps the objectives in enough of these \
             replicates, as the work of their requests, in full batches by the cost model, does not \
             fit between their arrivals and bounds.{estimated}"
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

/// What is to be said of how a search ended.
fn end_sentence(own: &Capacity) -> Option<String> {
    let policy = &own.policy;
    let [least, greatest] = own.range?.map(three_digits);
    match own.end {
        SearchEnd::Narrow | SearchEnd::OutOfReplicates => None,
        SearchEnd::Interrupted => Some(format!(
            "{policy}: not decided after {} runs from {least} to {greatest} requests/s.",
            own.probes.len()
        )),
        SearchEnd::NothingPasses => {
            let tried = if least == greatest {
                format!(", not even at {least} requests/s")
            } else {
                format!(". Rates from {greatest} down to {least} requests/s were tried")
            };
            Some(format!(
                "{policy}: nothing passes{tried}, at which requests hardly meet{}. That is more \
                 than this system can do.",
                best_at_the_least_rate(own)
            ))
        }
        SearchEnd::EverythingPasses => Some(format!(
            "{policy}: everything passes, up to {greatest} requests/s: the objectives do not \
             bound how long a request waits, or runs are too short for a queue to grow."
        )),
    }
}

/// How near the best run came to the objective that it missed, at the least rate of all.
fn best_at_the_least_rate(own: &Capacity) -> String {
    let share = |judged: &&Judged| judged.share.unwrap_or_default();
    let missed = |probe: &Probed| {
        let missed = probe.judged.iter().filter(|judged| probe.missed.contains(&judged.objective));
        missed.min_by(|a, b| share(a).total_cmp(&share(b))).cloned()
    };
    let least = own.range.map_or(0.0, |[least, _]| least);
    let at_least = own.probes.iter().filter(|probe| probe.rate <= least);
    let best = at_least.filter_map(missed).max_by(|a, b| share(&a).total_cmp(&share(&b)));
    best.map_or_else(String::new, |judged| {
        format!(
            "; there the best run kept the bound of `{}` for {} %",
            judged.objective,
            percent(share(&&judged))
        )
    })
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
