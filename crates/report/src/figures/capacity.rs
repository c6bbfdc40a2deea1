use kuva::prelude::{Layout, LinePlot, LineStyle, Plot, ReferenceLine, ScatterPlot, ShadedRegion};
use metron_metrics::{Capacity, Judged, Objective, ObjectiveVerdict};

use super::Figure;
use super::theme::{Colour, Key, draw, with_log_x};

/// The verdicts of single runs, each with its colour.
const VERDICTS: [(ObjectiveVerdict, &str, Colour); 3] = [
    (ObjectiveVerdict::Pass, "PASS: the run alone is sure of it", Colour::GOOD),
    (ObjectiveVerdict::Fail, "FAIL: likewise", Colour::LATE),
    (ObjectiveVerdict::Undecided, "UNDECIDED: not sure by itself", Colour::QUIET),
];

/// Brackets have one colour: a row is named, and needs none of its own.
const BRACKET: Colour = Colour::of_policy(0);

/// Each policy's bracket, a bar, beside the rate that no policy can exceed; all on one axis that
/// begins at 0, so that distances are what they look like.
pub(crate) fn bracket_figure(capacities: &[Capacity]) -> Figure {
    let end = 1.06 * capacities.iter().filter_map(greatest_shown).fold(0.0, f64::max);
    let end = if end > 0.0 { end } else { 1.0 };
    // Kuva counts from the bottom up; the first policy stands on top, as in the table.
    let rows = (1..=capacities.len()).rev().map(|row| row as f64);
    let mut plots: Vec<Plot> = Vec::new();
    for (own, row) in capacities.iter().zip(rows) {
        plots.extend(bracket(own, row, end));
    }
    let names = capacities.iter().rev().map(|own| own.policy.clone()).collect();
    let layout = Layout::auto_from_plots(&plots)
        .with_y_categories(names)
        .with_x_label("requests/s")
        .with_x_axis_min(0.0)
        .with_x_axis_max(end)
        .with_y_axis_min(0.4)
        .with_y_axis_max(capacities.len() as f64 + 0.6);
    let height = 90.0 + 55.0 * capacities.len() as f64;
    let svg = draw("brackets", plots, layout, (1120.0, height));
    Figure { caption: "Capacity, bracketed".to_owned(), svg }
}

pub(crate) fn bracket_keys() -> [Key; 3] {
    [
        Key::area("the bracket of the capacity", BRACKET),
        Key::line("most likely", Colour::INK, &LineStyle::Solid),
        Key::line("no policy above", Colour::LATE, &LineStyle::Solid),
    ]
}

/// The greatest rate that a policy's row shows.
fn greatest_shown(own: &Capacity) -> Option<f64> {
    let tried = own.range.map(|[_, greatest]| greatest);
    let shown = [own.bracket.passed, own.bracket.failed, own.upper_bound];
    shown.into_iter().flatten().reduce(f64::max).or(tried)
}

/// A policy's row: the bracket, or what is open on its open side, and the way to the bound.
fn bracket(own: &Capacity, row: f64, end: f64) -> Vec<Plot> {
    let from = own.bracket.passed.unwrap_or(0.0);
    let to = own.bracket.failed.unwrap_or(end);
    let level = |from: f64, to: f64| LinePlot::new().with_data([(from, row), (to, row)]);
    let tick = |at: f64, half: f64| LinePlot::new().with_data([(at, row - half), (at, row + half)]);
    let mut plots: Vec<Plot> = Vec::new();
    if let Some(bound) = own.upper_bound {
        let way = level(to.min(bound), bound).with_color(Colour::QUIET).with_dashed();
        plots.push(way.with_stroke_width(1.5).into());
        plots.push(tick(bound, 0.36).with_color(Colour::LATE).with_stroke_width(3.0).into());
    }
    let is_open = own.bracket.passed.is_none() || own.bracket.failed.is_none();
    let bar = level(from, to).with_color(BRACKET);
    let bar = if is_open {
        bar.with_dashed().with_stroke_width(5.0)
    } else {
        bar.with_stroke_width(16.0)
    };
    plots.push(bar.into());
    if let Some(estimate) = own.estimate {
        plots.push(tick(estimate, 0.28).with_color(Colour::INK).with_stroke_width(3.0).into());
    }
    plots
}

/// Every run of each policy under each objective.
pub(crate) fn probe_figures(capacities: &[Capacity]) -> Vec<Figure> {
    let rates = || capacities.iter().flat_map(|own| &own.probes).map(|probe| probe.rate);
    let (Some(least), Some(most)) = (rates().reduce(f64::min), rates().reduce(f64::max)) else {
        return Vec::new();
    };
    let rates = [least / 1.05, most * 1.05];
    let mut figures = Vec::new();
    for (at, own) in capacities.iter().enumerate().filter(|(_, own)| !own.probes.is_empty()) {
        let objectives = own.probes[0].judged.iter().map(|judged| &judged.objective);
        for (nth, objective) in objectives.enumerate() {
            let axes = Axes { rates, share_from: least_share(capacities, objective) };
            figures.push(Figure {
                caption: format!("{}: {objective}", own.policy),
                svg: probes(&format!("probes-{at}-{nth}"), own, objective, &axes),
            });
        }
    }
    figures
}

/// What the figures of an objective share, so that policies can be compared.
struct Axes {
    /// Least and greatest rate.
    rates: [f64; 2],
    /// The least share.
    share_from: f64,
}

/// Above this ratio of the greatest to the least rate the axis is logarithmic.
const SPREAD: f64 = 8.0;

/// A little below all that is shown of an objective.
fn least_share(capacities: &[Capacity], objective: &Objective) -> f64 {
    let judged = capacities.iter().flat_map(|own| &own.probes).flat_map(|probe| &probe.judged);
    let own = judged.filter(|judged| judged.objective == *objective);
    let lows = own.filter_map(|judged| judged.bounds).map(|[low, _]| low);
    let least = lows.fold(objective.share, f64::min);
    (1.0 - 1.1 * (1.0 - least)).max(0.0)
}

pub(crate) fn probe_keys() -> Vec<Key> {
    let mut keys: Vec<Key> =
        VERDICTS.into_iter().map(|(_, name, colour)| Key::area(name, colour)).collect();
    keys.push(Key::line("the share that is asked", Colour::INK, &LineStyle::Dashed));
    keys.push(Key::shade("the bracket of the capacity", Colour::INK));
    keys
}

/// The runs of a policy: rate against the share that kept an objective's bound, with its interval.
fn probes(name: &str, own: &Capacity, objective: &Objective, axes: &Axes) -> String {
    let judged: Vec<(f64, &Judged)> = own
        .probes
        .iter()
        .flat_map(|probe| probe.judged.iter().map(move |judged| (probe.rate, judged)))
        .filter(|(_, judged)| judged.objective == *objective)
        .collect();
    let mut plots: Vec<Plot> = Vec::new();
    for (verdict, _, colour) in VERDICTS {
        let points: Vec<(f64, f64, [f64; 2])> = judged
            .iter()
            .filter(|(_, judged)| judged.verdict == verdict)
            .filter_map(|(rate, judged)| Some((*rate, judged.share?, judged.bounds?)))
            .collect();
        // Thin lines of their own: kuva's whiskers have caps, which close ranks at near rates.
        plots.extend(points.iter().map(|(rate, _, [low, high])| {
            let line = LinePlot::new().with_data([(*rate, *low), (*rate, *high)]);
            line.with_color(colour).with_stroke_width(0.7).into()
        }));
        if !points.is_empty() {
            let dots = points.iter().map(|(rate, share, _)| (*rate, *share));
            let dots = ScatterPlot::new().with_data(dots).with_color(colour).with_size(3.0);
            plots.push(dots.into());
        }
    }
    let asked = ReferenceLine::horizontal(objective.share).with_color(Colour::INK);
    let [least, most] = axes.rates;
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label("requests/s")
        .with_y_label("share that kept the bound")
        .with_x_axis_min(least)
        .with_x_axis_max(most)
        .with_y_axis_min(axes.share_from)
        // Room for the points at 1.
        .with_y_axis_max(1.0 + 0.03 * (1.0 - axes.share_from))
        .with_reference_line(asked);
    let layout = if most > SPREAD * least { with_log_x(layout) } else { layout };
    let bracket = own.bracket.passed.zip(own.bracket.failed);
    let layout = bracket.into_iter().fold(layout, |layout, (passed, failed)| {
        let shade = ShadedRegion::vertical(passed, failed);
        layout.with_shaded_region(shade.with_color(Colour::INK).with_opacity(0.15))
    });
    draw(name, plots, layout, (560.0, 300.0))
}
