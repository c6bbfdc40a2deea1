use kuva::prelude::{Layout, LinePlot, Plot, ReferenceLine};
use metron_metrics::{PolicyRow, Timeline, fluidity, timelines};

use super::Figure;
use super::theme::{Colour, dash_of, draw, with_log_x};
use crate::report::Report;

/// What a distribution is of.
struct Quantity<'a> {
    /// Names its figure.
    name: &'static str,
    caption: &'static str,
    axis: Axis,
    /// Its values for one request.
    of: &'a dyn Fn(&Timeline) -> Vec<f64>,
    /// A value that counts, drawn as a dashed line.
    limit: Option<f64>,
}

/// The distributions of TTFT, TBT and the fluidity-index, each with a curve per policy.
pub(crate) fn cdfs(report: &Report<'_>) -> Vec<Figure> {
    let stall_ms = report.scoring.stall_limit.as_secs_f64() * 1e3;
    let quantities = [
        Quantity {
            name: "ttft",
            caption: "Time to first token",
            axis: Axis::Time("TTFT"),
            of: &ttft_ms,
            limit: None,
        },
        Quantity {
            name: "tbt",
            caption: "Time between tokens (dashed: a stall)",
            axis: Axis::Time("TBT"),
            of: &tbt_ms,
            limit: report.has_stall_limit().then_some(stall_ms),
        },
        Quantity {
            name: "fluidity",
            caption: "Fluidity-index (dashed: fluid)",
            axis: Axis::Index("fluidity-index"),
            of: &|timeline| index(report, timeline).into_iter().collect(),
            limit: Some(report.scoring.rate_target.index),
        },
    ];
    quantities
        .iter()
        .filter_map(|quantity| {
            let svg = picture(report, quantity)?;
            Some(Figure { caption: quantity.caption.to_owned(), svg })
        })
        .collect()
}

/// What the horizontal axis shows.
enum Axis {
    /// A time in milliseconds.
    Time(&'static str),
    /// A number from 0 to 1.
    Index(&'static str),
}

impl Axis {
    /// From here on times are in seconds: the labels of more digits run into each other.
    const LONG_MS: f64 = 3000.0;

    /// Its label and unit, where the largest value is `most`.
    fn up_to(&self, most: f64) -> (String, f64) {
        match self {
            Self::Time(name) if most >= Self::LONG_MS => (format!("{name}, s"), 1e3),
            Self::Time(name) => (format!("{name}, ms"), 1.0),
            Self::Index(name) => ((*name).to_owned(), 1.0),
        }
    }
}

/// A policy's values in all of its runs, in order.
fn values(report: &Report<'_>, row: &PolicyRow, quantity: &Quantity<'_>) -> Vec<f64> {
    let runs = report.runs.iter().filter(|run| run.policy == row.policy);
    let requests = runs.flat_map(|run| timelines(run.trace));
    let mut values: Vec<f64> = requests.flat_map(|request| (quantity.of)(&request)).collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Above this ratio of the largest to the median value the axis is logarithmic.
const SPREAD: f64 = 8.0;

fn picture(report: &Report<'_>, quantity: &Quantity<'_>) -> Option<String> {
    let of_policies = || report.comparison.policies.iter().map(|row| values(report, row, quantity));
    let mut all: Vec<f64> = of_policies().flatten().collect();
    all.sort_unstable_by(f64::total_cmp);
    let (least, median, most) = (*all.first()?, all[all.len() / 2], *all.last()?);
    let (x_label, unit) = quantity.axis.up_to(most);
    let curves = of_policies().enumerate().filter(|(_, values)| !values.is_empty());
    let plots: Vec<Plot> = curves
        .map(|(at, values)| {
            let line = LinePlot::new()
                .with_data(corners(&values).into_iter().map(|(x, y)| (x / unit, y)))
                .with_color(Colour::of_policy(at))
                .with_line_style(dash_of(at))
                .with_stroke_width(2.0);
            line.into()
        })
        .collect();
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label(x_label)
        .with_y_label("share at or below")
        .with_y_axis_min(0.0)
        .with_y_axis_max(1.0);
    let layout = if least > 0.0 && most > SPREAD * median { with_log_x(layout) } else { layout };
    let within = quantity.limit.filter(|limit| (least..=most).contains(limit));
    let layout = within.into_iter().fold(layout, |layout, limit| {
        layout.with_reference_line(ReferenceLine::vertical(limit / unit).with_color(Colour::QUIET))
    });
    Some(draw(quantity.name, plots, layout, (400.0, 300.0)))
}

/// The corners of an empirical distribution function, at most some hundred of them.
fn corners(sorted: &[f64]) -> Vec<(f64, f64)> {
    const MOST: usize = 400;
    let n = sorted.len();
    let every = n.div_ceil(MOST);
    let mut corners = vec![(sorted[0], 0.0)];
    for at in (0..n).filter(|at| at % every == 0 || at + 1 == n) {
        let below = corners.last().map_or(0.0, |corner| corner.1);
        corners.push((sorted[at], below));
        corners.push((sorted[at], (at + 1) as f64 / n as f64));
    }
    corners
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn ttft_ms(timeline: &Timeline) -> Vec<f64> {
    timeline.inter_token_ns().into_iter().take(1).map(milliseconds).collect()
}

fn tbt_ms(timeline: &Timeline) -> Vec<f64> {
    if timeline.is_finished() {
        timeline.inter_token_ns().into_iter().skip(1).map(milliseconds).collect()
    } else {
        Vec::new()
    }
}

/// The fluidity-index as the summary counts it: 0 for a request that failed.
fn index(report: &Report<'_>, timeline: &Timeline) -> Option<f64> {
    let due = report.deadlines(timeline)?;
    if timeline.has_failed() {
        return Some(0.0);
    }
    fluidity(&timeline.inter_token_ns(), due, &report.scoring.fluidity).index()
}
