use std::time::Duration;

use metron_metrics::{Comparison, Deadlined, RunOf, RunSummary, Scoring, Timeline, summarise};
use metron_trace::Header;
use serde::Serialize;

use crate::doubts::{DoubtLine, doubt_lines};
use crate::{html, text};

/// Version of the JSON's schema: raised whenever a field changes its name or its meaning.
pub const SCHEMA_VERSION: u32 = 3;

/// One or several runs, with what was computed from them.
#[derive(Debug)]
pub struct Report<'a> {
    /// The page's title.
    pub title: String,
    /// What ran, on what, with which defaults: name and sentence.
    pub facts: Vec<(String, String)>,
    /// The policies' rows and sentences.
    pub comparison: &'a Comparison,
    /// The runs themselves, for the figures.
    pub runs: &'a [RunOf<'a>],
    /// How they were scored.
    pub scoring: &'a Scoring,
    /// Whether the experiment was cut short.
    pub is_partial: bool,
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Whether the best values are coloured, besides their mark.
    pub colour: bool,
}

/// The form of metrics.json and of `--json`.
#[derive(Serialize)]
struct Envelope<'a> {
    schema_version: u32,
    is_partial: bool,
    scoring: &'a Scoring,
    doubts: Vec<DoubtLine>,
    comparison: &'a Comparison,
    runs: Vec<RunEnvelope<'a>>,
}

#[derive(Serialize)]
struct RunEnvelope<'a> {
    policy: &'a str,
    /// From 1.
    replicate: u32,
    header: Header,
    summary: RunSummary,
}

impl<'a> RunEnvelope<'a> {
    fn new(run: &RunOf<'a>, scoring: &Scoring) -> Self {
        Self {
            policy: run.policy,
            replicate: run.replicate.saturating_add(1),
            header: counted_from_one(&run.trace.header),
            summary: summarise(&[run.trace], scoring),
        }
    }
}

/// A header as results have it: a trace stores its replicate from 0, and people count from 1.
pub(crate) fn counted_from_one(header: &Header) -> Header {
    Header { replicate: header.replicate.saturating_add(1), ..header.clone() }
}

impl Report<'_> {
    /// As JSON: the scoring, the doubts, the comparison with each policy's pooled summary, and each run's
    /// header and summary. Times are in seconds, but what says `_ns`; those of a header are as its trace
    /// has them, `{secs, nanos}`.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&Envelope {
            schema_version: SCHEMA_VERSION,
            is_partial: self.is_partial,
            scoring: self.scoring,
            doubts: doubt_lines(self),
            comparison: self.comparison,
            runs: self.runs.iter().map(|run| RunEnvelope::new(run, self.scoring)).collect(),
        })
    }

    /// As a table and a few sentences, for a terminal.
    pub fn to_text(&self, style: Style) -> String {
        text::render(self, style)
    }

    /// As one HTML file that needs nothing beside it.
    pub fn to_html(&self) -> Result<String, minijinja::Error> {
        html::render(self)
    }

    /// The deadlines that a request is scored with.
    pub(crate) fn deadlines(&self, timeline: &Timeline) -> Option<Deadlined> {
        self.scoring.deadlines_in(&self.runs.first()?.trace.header, timeline)
    }

    /// Whether a gap can be a stall at all.
    pub(crate) fn has_stall_limit(&self) -> bool {
        self.scoring.stall_limit < Duration::MAX
    }
}
