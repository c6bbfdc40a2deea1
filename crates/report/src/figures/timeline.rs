use kuva::prelude::{Layout, LegendPosition, LinePlot, Plot};
use metron_trace::WorkKind;

use super::theme::draw;
use crate::report::{Report, Run};

/// At most so many bins, so that a long run makes no large file.
const BINS: usize = 240;

/// Colours of the kinds of work, from the bottom of the stack up.
const KINDS: [(WorkKind, &str, &str); 3] = [
    (WorkKind::Decode, "decode", "#56b4e9"),
    (WorkKind::Prefill, "prefill", "#e69f00"),
    (WorkKind::Recompute, "recomputed", "#cc79a7"),
];

/// A timeline of batches per policy, of its first replicate: caption and picture. All have the same
/// axes, so that they can be compared.
pub(crate) fn timelines(report: &Report<'_>) -> Vec<(String, String)> {
    let shown: Vec<&Run<'_>> = report
        .comparison
        .policies
        .iter()
        .filter_map(|row| report.runs.iter().find(|run| run.policy == row.policy))
        .filter(|run| !run.trace.steps.is_empty())
        .collect();
    let end = shown
        .iter()
        .filter_map(|run| run.trace.steps.last())
        .map(|step| step.ended_at.as_secs_f64())
        .fold(0.0, f64::max);
    let binned: Vec<Vec<[f64; 3]>> = shown.iter().map(|run| bins(run, end)).collect();
    let most = binned.iter().flatten().map(|bin| bin.iter().sum::<f64>()).fold(1.0, f64::max);
    shown
        .iter()
        .zip(&binned)
        .map(|(run, bins)| (run.policy.to_owned(), stacked(bins, end, most)))
        .collect()
}

/// Mean tokens of a step, by kind, over the steps that ended in each bin.
fn bins(run: &Run<'_>, end: f64) -> Vec<[f64; 3]> {
    let mut tokens = vec![[0.0; 3]; BINS];
    let mut steps = vec![0.0; BINS];
    for step in &run.trace.steps {
        #[expect(clippy::cast_sign_loss, reason = "a share of a time that is not negative")]
        let bin = ((step.ended_at.as_secs_f64() / end * BINS as f64) as usize).min(BINS - 1);
        steps[bin] += 1.0;
        for (sum, (kind, ..)) in tokens[bin].iter_mut().zip(KINDS) {
            *sum += f64::from(step.tokens_of(kind));
        }
    }
    let mean = |(tokens, steps): ([f64; 3], f64)| {
        if steps > 0.0 { tokens.map(|sum| sum / steps) } else { tokens }
    };
    tokens.into_iter().zip(steps).map(mean).collect()
}

/// The kinds on top of one another: the tallest is drawn first, and the lower ones over it.
fn stacked(bins: &[[f64; 3]], end: f64, most: f64) -> String {
    let width = end / bins.len() as f64;
    let mut plots: Vec<Plot> = Vec::new();
    for kinds in (1..=KINDS.len()).rev() {
        let (_, name, colour) = KINDS[kinds - 1];
        if kinds == KINDS.len() && bins.iter().all(|bin| bin[kinds - 1] == 0.0) {
            continue; // nothing was recomputed
        }
        let outline = bins.iter().enumerate().flat_map(|(at, bin)| {
            let height: f64 = bin[..kinds].iter().sum();
            [(at as f64 * width, height), ((at + 1) as f64 * width, height)]
        });
        let area = LinePlot::new()
            .with_data(outline.collect::<Vec<_>>())
            .with_color(colour)
            .with_stroke_width(0.5)
            .with_fill()
            .with_fill_opacity(1.0)
            .with_legend(name);
        plots.push(area.into());
    }
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label("time, s")
        .with_y_label("tokens a step")
        .with_legend_position(LegendPosition::OutsideRightTop)
        .with_x_axis_min(0.0)
        .with_x_axis_max(end)
        .with_y_axis_min(0.0)
        .with_y_axis_max(most);
    draw(plots, layout, 1120.0, 220.0)
}
