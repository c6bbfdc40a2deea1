use kuva::prelude::{Layout, LinePlot, Plot};
use metron_metrics::RunOf;
use metron_trace::{StepRecord, WorkKind};

use super::Figure;
use super::theme::{Colour, Key, draw, plain_numbers};
use crate::report::Report;

/// At most so many bins, two units of the figure's width each.
const BINS: usize = 520;

/// The kinds of work, from the bottom of the stack up.
const KINDS: [(WorkKind, &str, Colour); 3] = [
    (WorkKind::Decode, "decode tokens", Colour::DECODE),
    (WorkKind::Prefill, "prefill tokens", Colour::PREFILL),
    (WorkKind::Recompute, "recomputed tokens", Colour::RECOMPUTE),
];

/// A timeline of batches per policy, of its first replicate: all on the same axes, so that they
/// can be compared.
pub(crate) fn timelines(report: &Report<'_>) -> Vec<Figure> {
    let shown: Vec<&RunOf<'_>> = report
        .comparison
        .policies
        .iter()
        .filter_map(|row| report.runs.iter().find(|run| run.policy == row.policy))
        .filter(|run| !run.trace.steps.is_empty())
        .collect();
    let steps = || shown.iter().flat_map(|run| &run.trace.steps);
    let end = steps().map(|step| step.ended_at.as_secs_f64()).fold(0.0, f64::max);
    let most = f64::from(steps().map(StepRecord::tokens).max().unwrap_or(0));
    shown
        .iter()
        .enumerate()
        .map(|(at, run)| Figure {
            caption: run.policy.to_owned(),
            svg: picture(&format!("batches-{at}"), &bins(&run.trace.steps, end), end, most),
        })
        .collect()
}

/// The legend of all these figures: the kinds of work that there were.
pub(crate) fn timeline_keys(report: &Report<'_>) -> Vec<Key> {
    let ran = |kind: WorkKind| {
        let mut steps = report.runs.iter().flat_map(|run| &run.trace.steps);
        steps.any(|step| step.tokens_of(kind) > 0)
    };
    let kinds = KINDS.into_iter().filter(|(kind, ..)| ran(*kind));
    kinds.map(|(_, name, colour)| Key::area(name, colour)).collect()
}

/// For each bin of time the largest step that ran in it, as tokens by kind; zeros where nothing
/// ran. The largest and not the mean, because what a decode waits for is a large step.
fn bins(steps: &[StepRecord], end: f64) -> Vec<[u32; 3]> {
    let mut bins = vec![[0; 3]; BINS];
    let bin_of = |seconds: f64| {
        #[expect(clippy::cast_sign_loss, reason = "a share of a time that is not negative")]
        let bin = (seconds / end * BINS as f64) as usize;
        bin.min(BINS - 1)
    };
    for step in steps {
        let tokens = KINDS.map(|(kind, ..)| step.tokens_of(kind));
        let last = bin_of(step.ended_at.as_secs_f64());
        let first = bin_of(step.started_at.as_secs_f64()).min(last);
        for bin in &mut bins[first..=last] {
            if total(&tokens) > total(bin) {
                *bin = tokens;
            }
        }
    }
    bins
}

fn total(tokens: &[u32; 3]) -> u64 {
    tokens.iter().map(|tokens| u64::from(*tokens)).sum()
}

/// The kinds on top of one another: the tallest is drawn first, and the lower ones over it. The axis
/// is logarithmic, or the decodes would vanish beside the prefills; it begins below one token.
fn picture(name: &str, bins: &[[u32; 3]], end: f64, most: f64) -> String {
    const FLOOR: f64 = 0.8;
    let width = end / bins.len() as f64;
    let mut plots: Vec<Plot> = Vec::new();
    for kinds in (1..=KINDS.len()).rev() {
        let (.., colour) = KINDS[kinds - 1];
        if bins.iter().all(|bin| bin[kinds - 1] == 0) {
            continue;
        }
        let outline = bins.iter().enumerate().flat_map(|(at, bin)| {
            let height: f64 = bin[..kinds].iter().copied().map(f64::from).sum();
            let height = height.max(FLOOR);
            [(at as f64 * width, height), ((at + 1) as f64 * width, height)]
        });
        let area = LinePlot::new()
            .with_data(outline.collect::<Vec<_>>())
            .with_color(colour)
            .with_stroke_width(0.0)
            .with_fill()
            .with_fill_opacity(1.0);
        plots.push(area.into());
    }
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label("time, s")
        .with_y_label("tokens a step")
        .with_log_y()
        .with_y_tick_format(plain_numbers())
        .with_x_axis_min(0.0)
        .with_x_axis_max(end)
        .with_y_axis_min(FLOOR)
        .with_y_axis_max(most);
    draw(name, plots, layout, (1120.0, 200.0))
}
