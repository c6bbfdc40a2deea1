use kuva::prelude::{Layout, LinePlot, Plot, ScatterPlot};
use metron_trace::{OperatorProfile, Profile, Roofs, ShapeProfile};

use super::Figure;
use super::theme::{Colour, draw};

/// Operators that take a smaller share of their step are left out.
const LEAST_SHARE: f64 = 0.01;

/// Each shape's operators under the machine's roof (Williams, Waterman and Patterson, CACM 2009).
pub(crate) fn rooflines(profile: &Profile) -> Vec<Figure> {
    let shapes = profile.shapes.iter().enumerate();
    shapes
        .filter_map(|(at, shape)| {
            let svg = picture(&format!("roofline-{at}"), &profile.roofs, shape)?;
            Some(Figure { caption: shape.shape.to_string(), svg })
        })
        .collect()
}

/// Operations a byte, and billions of operations a second.
fn point(operator: &OperatorProfile) -> (f64, f64) {
    (operator.flops / operator.bytes, operator.flops / operator.seconds / 1e9)
}

fn picture(name: &str, roofs: &Roofs, shape: &ShapeProfile) -> Option<String> {
    let step: f64 = shape.operators.iter().map(|operator| operator.seconds).sum();
    let shown: Vec<&OperatorProfile> = shape
        .operators
        .iter()
        .filter(|o| o.flops > 0.0 && o.bytes > 0.0 && o.seconds > LEAST_SHARE * step)
        .collect();
    let points: Vec<(f64, f64)> = shown.iter().map(|operator| point(operator)).collect();
    let (peak, bandwidth) = (roofs.flops_per_second / 1e9, roofs.bytes_per_second() / 1e9);
    let ridge = peak / bandwidth;
    let intensities = || points.iter().map(|point| point.0).chain([ridge]);
    let (least, most) =
        (intensities().reduce(f64::min)? / 2.0, intensities().reduce(f64::max)? * 4.0);
    let roof = LinePlot::new()
        .with_data([(least, least * bandwidth), (ridge, peak), (most, peak)])
        .with_color(Colour::INK)
        .with_stroke_width(2.0);
    let operators = ScatterPlot::new()
        .with_data(points.iter().copied())
        .with_color(Colour::DECODE)
        .with_size(5.0)
        .with_labels(shown.iter().map(|operator| operator.operator.name()))
        .with_repel_labels();
    let lowest = points.iter().map(|point| point.1).fold(least * bandwidth, f64::min);
    let plots: Vec<Plot> = vec![roof.into(), operators.into()];
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label("operations a byte")
        .with_y_label("GFLOP/s")
        .with_log_scale()
        .with_x_axis_min(least)
        .with_x_axis_max(most)
        .with_y_axis_min(lowest / 2.0)
        .with_y_axis_max(peak * 2.0);
    Some(draw(name, plots, layout, (550.0, 340.0)))
}
