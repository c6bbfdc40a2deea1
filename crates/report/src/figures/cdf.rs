use kuva::prelude::{Layout, LegendPosition, LinePlot, Plot};
use metron_metrics::{Scoring, fluidity, timelines};

use super::theme::{colour_of, dash_of, draw};
use crate::report::{Report, Run};

/// A distribution per policy: its caption and its picture.
pub(crate) fn cdfs(report: &Report<'_>) -> Vec<(String, String)> {
    let scoring = report.scoring;
    let mut figures = Vec::new();
    let mut add = |caption: &str, x_label: &str, of: &dyn Fn(&Run<'_>) -> Vec<f64>| {
        if let Some(svg) = cdf(report, x_label, of) {
            figures.push((caption.to_owned(), svg));
        }
    };
    add("Time to first token", "TTFT, ms", &|run| ttft(run));
    add("Time between tokens", "TBT, ms", &|run| tbt(run));
    add("Fluidity-index", "fluidity-index", &|run| indices(run, scoring));
    figures
}

/// Above this ratio of the largest to the median value the axis is logarithmic.
const SPREAD: f64 = 8.0;

fn cdf(report: &Report<'_>, x_label: &str, of: &dyn Fn(&Run<'_>) -> Vec<f64>) -> Option<String> {
    let mut all = Vec::new();
    let mut plots: Vec<Plot> = Vec::new();
    for (at, row) in report.comparison.policies.iter().enumerate() {
        let own = report.runs.iter().filter(|run| run.policy == row.policy);
        let mut values: Vec<f64> = own.flat_map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        all.extend_from_slice(&values);
        if !values.is_empty() {
            let line = LinePlot::new()
                .with_data(steps(&values))
                .with_color(colour_of(at))
                .with_line_style(dash_of(at))
                .with_stroke_width(2.0)
                .with_legend(row.policy.clone());
            plots.push(line.into());
        }
    }
    all.sort_unstable_by(f64::total_cmp);
    let (median, most) = (*all.get(all.len() / 2)?, *all.last()?);
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label(x_label)
        .with_y_label("share of all")
        .with_legend_position(LegendPosition::OutsideBottomCenter)
        .with_y_axis_min(0.0)
        .with_y_axis_max(1.0);
    let layout = if median > 0.0 && most > SPREAD * median { layout.with_log_x() } else { layout };
    Some(draw(plots, layout, 560.0, 360.0))
}

/// The corners of an empirical distribution function, at most some hundred of them.
fn steps(sorted: &[f64]) -> Vec<(f64, f64)> {
    const MOST: usize = 400;
    let n = sorted.len();
    let every = n.div_ceil(MOST);
    let mut corners = vec![(sorted[0], 0.0)];
    for at in (0..n).filter(|at| at % every == 0 || at + 1 == n) {
        let before = corners.last().map_or(0.0, |corner| corner.1);
        corners.push((sorted[at], before));
        corners.push((sorted[at], (at + 1) as f64 / n as f64));
    }
    corners
}

fn ttft(run: &Run<'_>) -> Vec<f64> {
    timelines(run.trace)
        .iter()
        .filter_map(|timeline| timeline.inter_token_ns().first().map(|ns| *ns as f64 / 1e6))
        .collect()
}

fn tbt(run: &Run<'_>) -> Vec<f64> {
    timelines(run.trace)
        .iter()
        .filter(|timeline| timeline.is_finished())
        .flat_map(|timeline| timeline.inter_token_ns().split_off(1))
        .map(|ns| ns as f64 / 1e6)
        .collect()
}

fn indices(run: &Run<'_>, scoring: &Scoring) -> Vec<f64> {
    timelines(run.trace)
        .iter()
        .filter_map(|timeline| {
            let recorded = timeline.deadlines;
            let curve = scoring.prefill.as_ref();
            let due = scoring.deadlines.of(timeline.prompt_tokens, recorded, curve)?;
            fluidity(&timeline.inter_token_ns(), due.into(), &scoring.fluidity).index()
        })
        .collect()
}
