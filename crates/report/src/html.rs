use metron_trace::Header;
use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use serde::Serialize;

use crate::doubts::{DoubtLine, doubt_lines};
use crate::figures::{
    Figure, Key, Streams, blame_figure, blame_keys, cdfs, policy_keys, stream_keys, streams,
    timeline_keys, timelines,
};
use crate::label::system;
use crate::notes::notes;
use crate::report::Report;
use crate::rows::rows;
use crate::verdicts::Verdicts;

/// The templates. Everything in them is escaped but the figures, which kuva made and escaped.
const TEMPLATES: [(&str, &str); 6] = [
    ("capacity.html", include_str!("capacity.html")),
    ("head.html", include_str!("head.html")),
    ("page.html", include_str!("page.html")),
    ("parts.html", include_str!("parts.html")),
    ("profile.html", include_str!("profile.html")),
    ("style.html", include_str!("style.html")),
];

#[derive(Serialize)]
struct Cell {
    text: String,
    is_best: bool,
}

#[derive(Serialize)]
struct TableRow {
    name: String,
    cells: Vec<Cell>,
}

/// What the template is filled from.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    /// What ran on what, in a line; the facts say it in full.
    system: Option<String>,
    version: Option<&'a str>,
    created_at: Option<&'a str>,
    replicates: Option<u32>,
    flags: Vec<&'static str>,
    sentences: &'a [String],
    policies: Vec<Key>,
    rows: Vec<TableRow>,
    notes: Vec<String>,
    doubts: Vec<DoubtLine>,
    blame_keys: Vec<Key>,
    blame: Option<Figure>,
    verdicts: Option<Verdicts>,
    stream_keys: [Key; 4],
    streams: Vec<Streams>,
    cdfs: Vec<Figure>,
    timeline_keys: Vec<Key>,
    timelines: Vec<Figure>,
    facts: &'a [(String, String)],
}

/// One file, with its styles and figures in it; it has no script and asks no network.
pub(crate) fn render(report: &Report<'_>) -> Result<String, minijinja::Error> {
    let headers = || report.runs.iter().map(|run| &run.trace.header);
    let page = Page {
        title: &report.title,
        system: headers().next().map(system),
        version: headers().next().map(|header| header.metron_version.as_str()),
        created_at: headers().find_map(|header| header.created_at.as_deref()),
        replicates: report.comparison.policies.iter().map(|row| row.replicates).max(),
        flags: flags(report),
        sentences: &report.comparison.sentences,
        policies: policy_keys(report),
        rows: table(report),
        notes: notes(report),
        doubts: doubt_lines(report),
        blame_keys: blame_keys(report),
        blame: blame_figure(report),
        verdicts: report
            .comparison
            .judgement
            .as_ref()
            .map(|judgement| Verdicts::new(judgement, report.scoring.rate_target.index)),
        stream_keys: stream_keys(),
        streams: streams(report),
        cdfs: cdfs(report),
        timeline_keys: timeline_keys(report),
        timelines: timelines(report),
        facts: &report.facts,
    };
    fill("page.html", &page)
}

/// Fills a template.
pub(crate) fn fill(name: &str, page: &impl Serialize) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    for (name, template) in TEMPLATES {
        environment.add_template(name, template)?;
    }
    environment.get_template(name)?.render(Serde(page))
}

/// What nobody may overlook.
fn flags(report: &Report<'_>) -> Vec<&'static str> {
    let any = |of: fn(&Header) -> bool| report.runs.iter().any(|run| of(&run.trace.header));
    let flags = [
        (report.is_partial, "Partial: the experiment was cut short."),
        (any(Header::is_simulated), SIMULATED),
        (any(|header| header.model.dummy), RANDOM_WEIGHTS),
    ];
    flags.into_iter().filter_map(|(applies, flag)| applies.then_some(flag)).collect()
}

pub(crate) const SIMULATED: &str = "Simulated: times are a cost model's, not a machine's.";
/// What nobody may overlook of a model without its own weights.
pub const RANDOM_WEIGHTS: &str = "Random weights: timings are real, the text isn't.";

fn table(report: &Report<'_>) -> Vec<TableRow> {
    rows(report)
        .into_iter()
        .map(|row| TableRow {
            cells: row
                .cells
                .into_iter()
                .enumerate()
                .map(|(at, text)| Cell { text, is_best: row.best.contains(&at) })
                .collect(),
            name: row.name,
        })
        .collect()
}
