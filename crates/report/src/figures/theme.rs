use kuva::plot::LineStyle;
use kuva::prelude::{Layout, Plot, render_to_svg};
use kuva::render::theme::Theme;

/// Colours that stand for the page's own: kuva wants colours as it draws, and the page's are not
/// known before it is shown, light or dark.
const INK: &str = "#010203";
const GRID: &str = "#040506";
const PAPER: &str = "#070809";

/// The page's colours in their places.
const PLACES: [(&str, &str); 3] =
    [(INK, "var(--ink)"), (GRID, "var(--grid)"), (PAPER, "var(--paper)")];

/// A colour a policy (Okabe and Ito, distinguishable by colour-blind readers), ...
const COLOURS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a8a00"];

/// ... and a dash, for greyscale.
pub(crate) fn dash_of(policy: usize) -> LineStyle {
    [LineStyle::Dotted, LineStyle::Dashed, LineStyle::DashDot, LineStyle::Solid][policy % 4].clone()
}

/// A policy's colour, by its place in the comparison.
pub(crate) fn colour_of(policy: usize) -> &'static str {
    COLOURS[policy % COLOURS.len()]
}

/// Draws plots in the page's colours, `width` by `height` pixels.
pub(crate) fn draw(plots: Vec<Plot>, layout: Layout, width: f64, height: f64) -> String {
    let theme = Theme {
        background: "none".to_owned(),
        axis_color: INK.to_owned(),
        grid_color: GRID.to_owned(),
        tick_color: INK.to_owned(),
        text_color: INK.to_owned(),
        legend_bg: PAPER.to_owned(),
        legend_border: GRID.to_owned(),
        pie_leader: INK.to_owned(),
        box_median: INK.to_owned(),
        violin_border: INK.to_owned(),
        colorbar_border: INK.to_owned(),
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
    PLACES
        .iter()
        .fold(render_to_svg(plots, layout), |svg, (colour, place)| svg.replace(colour, place))
}
