use metron_trace::Origin;
use minijinja::{Environment, context};
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

/// One file, with its styles and figures in it; it has no script and asks no network.
pub(crate) fn render(report: &Report<'_>) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.add_template("page.html", PAGE)?;
    let headers = || report.runs.iter().map(|run| &run.trace.header);
    let figures = |figures: Vec<(String, String)>| -> Vec<Figure> {
        figures.into_iter().map(|(caption, svg)| Figure { caption, svg }).collect()
    };
    let streams = streams(report);
    environment.get_template("page.html")?.render(context! {
        title => report.title,
        facts => report.facts,
        policies => report.comparison.policies.iter().map(|row| &row.policy).collect::<Vec<_>>(),
        replicates => report.comparison.policies.iter().map(|row| row.replicates).max(),
        rows => table(report),
        sentences => report.comparison.sentences,
        is_partial => report.is_partial,
        is_simulated => headers().any(|header| header.origin == Origin::Simulated),
        is_dummy => headers().any(|header| header.model.dummy),
        created_at => headers().find_map(|header| header.created_at.clone()),
        version => headers().next().map(|header| header.metron_version.clone()),
        stream_request => streams.as_ref().map(|(request, _)| request.0),
        streams => streams.map(|(_, shown)| {
            figures(shown.into_iter().map(|figure| (figure.caption, figure.svg)).collect())
        }),
        cdfs => figures(cdfs(report)),
        timelines => figures(timelines(report)),
    })
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
