use std::sync::Arc;

use kuva::prelude::{Layout, LineStyle, Plot, TickFormat, render_to_svg};
use kuva::render::layout::AxisLabelOverlap;
use kuva::render::theme::Theme;
use metron_metrics::Cause;
use serde::Serialize;

use crate::report::Report;

/// A colour of the page. Kuva wants colours as it draws, and the page's are not known before it is
/// shown, light, dark or on paper: a figure is drawn in stand-ins, and then they are replaced.
#[derive(Clone, Copy)]
pub(crate) struct Colour {
    stand_in: &'static str,
    css: &'static str,
}

impl Colour {
    pub(crate) const INK: Self = Self::new("#010001", "var(--ink)");
    pub(crate) const GRID: Self = Self::new("#010002", "var(--grid)");
    pub(crate) const QUIET: Self = Self::new("#010003", "var(--quiet)");
    pub(crate) const LATE: Self = Self::new("#010004", "var(--late)");
    pub(crate) const DECODE: Self = Self::new("#010005", "var(--decode)");
    pub(crate) const PREFILL: Self = Self::new("#010006", "var(--prefill)");
    pub(crate) const RECOMPUTE: Self = Self::new("#010007", "var(--recompute)");
    pub(crate) const GOOD: Self = Self::new("#010008", "var(--best)");
    /// The causes of missed deadlines, in their order; what is work of a kind has the kind's colour.
    const CAUSES: [Self; Cause::ALL.len()] = [
        Self::new("#030001", "var(--queue)"),
        Self::PREFILL,
        Self::DECODE,
        Self::RECOMPUTE,
        Self::new("#030002", "var(--blocks)"),
        Self::new("#030003", "var(--scheduler)"),
        Self::new("#030004", "var(--engine)"),
        Self::new("#030005", "var(--model)"),
        Self::new("#030006", "var(--unexplained)"),
    ];
    const POLICIES: [Self; 7] = [
        Self::new("#020001", "var(--policy-1)"),
        Self::new("#020002", "var(--policy-2)"),
        Self::new("#020003", "var(--policy-3)"),
        Self::new("#020004", "var(--policy-4)"),
        Self::new("#020005", "var(--policy-5)"),
        Self::new("#020006", "var(--policy-6)"),
        Self::new("#020007", "var(--policy-7)"),
    ];
    const ALL: [&'static [Self]; 3] = [
        &[
            Self::INK,
            Self::GRID,
            Self::QUIET,
            Self::LATE,
            Self::DECODE,
            Self::PREFILL,
            Self::RECOMPUTE,
            Self::GOOD,
        ],
        &Self::CAUSES,
        &Self::POLICIES,
    ];

    const fn new(stand_in: &'static str, css: &'static str) -> Self {
        Self { stand_in, css }
    }

    pub(crate) fn of_cause(cause: Cause) -> Self {
        Self::CAUSES[cause as usize]
    }

    /// A policy's, by its place in the comparison.
    pub(crate) const fn of_policy(at: usize) -> Self {
        Self::POLICIES[at % Self::POLICIES.len()]
    }
}

impl From<Colour> for String {
    /// What kuva is to draw with.
    fn from(colour: Colour) -> Self {
        colour.stand_in.to_owned()
    }
}

/// A policy's dash, for readers and printers without colours.
pub(crate) fn dash_of(policy: usize) -> LineStyle {
    let dashes = [LineStyle::Solid, LineStyle::Dashed, LineStyle::DashDot, LineStyle::Dotted];
    dashes[policy % dashes.len()].clone()
}

/// An entry of a legend. Legends are part of the page, not of the figures: one for all figures of a
/// kind, which wraps as text does.
#[derive(Serialize)]
pub(crate) struct Key {
    label: String,
    colour: &'static str,
    /// The dashes of a line; `None` for a full one.
    dash: Option<String>,
    mark: Mark,
}

/// What an entry of a legend shows beside its label.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Line,
    Area,
    Shade,
}

impl Key {
    pub(crate) fn line(label: &str, colour: Colour, style: &LineStyle) -> Self {
        let dash = style.dasharray();
        Self { label: label.to_owned(), colour: colour.css, dash, mark: Mark::Line }
    }

    pub(crate) fn area(label: &str, colour: Colour) -> Self {
        Self { label: label.to_owned(), colour: colour.css, dash: None, mark: Mark::Area }
    }

    pub(crate) fn shade(label: &str, colour: Colour) -> Self {
        Self { label: label.to_owned(), colour: colour.css, dash: None, mark: Mark::Shade }
    }
}

/// How each policy is drawn.
pub(crate) fn policy_keys(report: &Report<'_>) -> Vec<Key> {
    let policies = report.comparison.policies.iter().enumerate();
    policies.map(|(at, row)| Key::line(&row.policy, Colour::of_policy(at), &dash_of(at))).collect()
}

/// How values of a logarithmic axis are written: as people write them, where kuva writes 1e-1
/// beside 0.20.
pub(crate) fn plain_numbers() -> TickFormat {
    TickFormat::Custom(Arc::new(plain_number))
}

/// A horizontal axis that is logarithmic: labels that would run into their neighbours are left out.
pub(crate) fn with_log_x(layout: Layout) -> Layout {
    layout
        .with_log_x()
        .with_x_tick_format(plain_numbers())
        .with_x_label_overlap(AxisLabelOverlap::Thin)
}

/// A number of one digit and zeros: `0.02`, `1`, `500`.
fn plain_number(value: f64) -> String {
    let magnitude = value.abs().log10();
    let exponent = if magnitude.is_finite() { (magnitude + 1e-9).floor() } else { 0.0 };
    #[expect(clippy::cast_sign_loss, reason = "clamped from below")]
    let decimals = (-exponent).clamp(0.0, 12.0) as usize;
    format!("{value:.decimals$}")
}

/// Draws plots in the page's colours, `width` by `height` units, as an SVG that takes the width it
/// is given. `name` is unique on the page.
pub(crate) fn draw(
    name: &str,
    plots: Vec<Plot>,
    layout: Layout,
    (width, height): (f64, f64),
) -> String {
    let ink = || String::from(Colour::INK);
    let grid = || String::from(Colour::GRID);
    let theme = Theme {
        background: "none".to_owned(),
        axis_color: ink(),
        grid_color: grid(),
        tick_color: ink(),
        text_color: ink(),
        legend_bg: "none".to_owned(),
        legend_border: grid(),
        pie_leader: ink(),
        box_median: ink(),
        violin_border: ink(),
        colorbar_border: ink(),
        font_family: Some("system-ui, sans-serif".to_owned()),
        show_grid: true,
    };
    let layout = layout
        .with_theme(theme)
        .with_width(width)
        .with_height(height)
        .with_label_size(13)
        .with_tick_size(12)
        .with_body_size(12);
    let svg = with_own_clip(name, render_to_svg(plots, layout));
    let fixed = format!("width=\"{width}\" height=\"{height}\"");
    let svg = svg.replacen(&fixed, &format!("viewBox=\"0 0 {width} {height}\""), 1);
    Colour::ALL
        .into_iter()
        .flatten()
        .fold(svg, |svg, colour| svg.replace(colour.stand_in, colour.css))
}

/// Kuva numbers its clip paths through the life of the process; here they are named after their
/// figure, so that the same report is the same page.
fn with_own_clip(name: &str, svg: String) -> String {
    const PREFIX: &str = "kuva-clip-";
    let Some(start) = svg.find(PREFIX) else { return svg };
    let digits = svg[start + PREFIX.len()..].bytes().take_while(u8::is_ascii_digit).count();
    let id = svg[start..start + PREFIX.len() + digits].to_owned();
    svg.replace(&format!("\"{id}\""), &format!("\"clip-{name}\""))
        .replace(&format!("#{id})"), &format!("#clip-{name})"))
}

#[cfg(test)]
mod tests {
    use super::plain_number;

    #[test]
    fn the_labels_of_a_logarithmic_axis_are_plain_numbers() {
        let values = [0.001, 0.02, 0.1, 0.5, 1.0, 2.0, 20.0, 1000.0];
        let labels = ["0.001", "0.02", "0.1", "0.5", "1", "2", "20", "1000"];
        assert_eq!(values.map(plain_number), labels);
        // As kuva computes them.
        let products = [0.01 * 2.0, 1e-4 * 10.0, 0.1 * 3.0].map(plain_number);
        assert_eq!(products, ["0.02", "0.001", "0.3"]);
    }
}
