use metron_trace::Origin;
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use crate::figures::{cdfs, streams, timelines};
use crate::report::Report;
use crate::rows::rows;

/// The page's frame. Everything in it is escaped but the figures, which kuva made and escaped.
const PAGE: &str = include_str!("page.html");

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

#[derive(Serialize)]
struct Figure {
    caption: String,
    svg: String,
}

/// What the template is filled from.
#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    facts: &'a [(String, String)],
    policies: Vec<&'a str>,
    replicates: Option<u32>,
    rows: Vec<TableRow>,
    sentences: &'a [String],
    is_partial: bool,
    is_simulated: bool,
    is_dummy: bool,
    created_at: Option<&'a str>,
    version: Option<&'a str>,
    stream_request: Option<u32>,
    streams: Vec<Figure>,
    cdfs: Vec<Figure>,
    timelines: Vec<Figure>,
}

/// One file, with its styles and figures in it; it has no script and asks no network.
pub(crate) fn render(report: &Report<'_>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_template("page.html", PAGE)?;
    let policies = &report.comparison.policies;
    let headers = || report.runs.iter().map(|run| &run.trace.header);
    let (request, streams) = streams(report).unzip();
    let streams = streams.unwrap_or_default().into_iter().map(|f| (f.caption, f.svg)).collect();
    let page = Page {
        title: &report.title,
        facts: &report.facts,
        policies: policies.iter().map(|row| row.policy.as_str()).collect(),
        replicates: policies.iter().map(|row| row.replicates).max(),
        rows: table(report),
        sentences: &report.comparison.sentences,
        is_partial: report.is_partial,
        is_simulated: headers().any(|header| header.origin == Origin::Simulated),
        is_dummy: headers().any(|header| header.model.dummy),
        created_at: headers().find_map(|header| header.created_at.as_deref()),
        version: headers().map(|header| header.metron_version.as_str()).next(),
        stream_request: request.map(|request| request.0),
        streams: figures(streams),
        cdfs: figures(cdfs(report)),
        timelines: figures(timelines(report)),
    };
    environment.get_template("page.html")?.render(Serde(&page))
}

fn figures(figures: Vec<(String, String)>) -> Vec<Figure> {
    figures.into_iter().map(|(caption, svg)| Figure { caption, svg }).collect()
}

fn table(report: &Report<'_>) -> Vec<TableRow> {
    rows(report.comparison)
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
