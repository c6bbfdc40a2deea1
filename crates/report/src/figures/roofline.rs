use kuva::prelude::{Layout, LinePlot, Plot, ScatterPlot, VolcanoLabelStyle as LabelStyle};
use metron_trace::{OperatorProfile, Profile, Roofs, ShapeProfile};

use super::Figure;
use super::theme::{Colour, draw, plain_numbers};

/// Operators that take a smaller share of their step are left out.
const LEAST_SHARE: f64 = 0.01;
/// Of a picture, and about what of it lies within the axes.
const SIZE: (f64, f64) = (550.0, 340.0);
const WITHIN_AXES: (f64, f64) = (440.0, 265.0);
/// Labels of points that are nearer to each other would overlap.
const APART: (f64, f64) = (90.0, 15.0);
/// Where a label begins, to the right of its point and below it: the roof is above.
const LABEL_AT: (f64, f64) = (6.0, 14.0);

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
    // With room for a label on either side.
    let (least, most) =
        (intensities().reduce(f64::min)? / 4.0, intensities().reduce(f64::max)? * 6.0);
    let roof = LinePlot::new()
        .with_data([(least, least * bandwidth), (ridge, peak), (most, peak)])
        .with_color(Colour::INK)
        .with_stroke_width(2.0);
    let lowest = points.iter().map(|point| point.1).fold(least * bandwidth, f64::min) / 2.0;
    let highest = peak * 2.0;
    let names: Vec<&str> = shown.iter().map(|operator| operator.operator.name()).collect();
    let per_unit = (WITHIN_AXES.0 / (most / least).ln(), WITHIN_AXES.1 / (highest / lowest).ln());
    let operators = ScatterPlot::new()
        .with_data(points.iter().copied())
        .with_color(Colour::DECODE)
        .with_size(5.0);
    // Kuva puts a label above its point, or beside it with a line between: here it has a place of its
    // own, where nothing is drawn.
    let beside = |(x, y): &(f64, f64)| {
        (x * (LABEL_AT.0 / per_unit.0).exp(), y * (-LABEL_AT.1 / per_unit.1).exp())
    };
    let names = ScatterPlot::new()
        .with_data(points.iter().map(beside))
        .with_color(Colour::DECODE)
        .with_size(0.0)
        .with_labels(labels(&points, &names, per_unit))
        .with_label_style(LabelStyle::Arrow { offset_x: 0.0, offset_y: 0.0 });
    let plots: Vec<Plot> = vec![roof.into(), operators.into(), names.into()];
    let layout = Layout::auto_from_plots(&plots)
        .with_x_label("operations a byte")
        .with_y_label("GFLOP/s")
        .with_log_scale()
        .with_tick_format(plain_numbers())
        .with_x_axis_min(least)
        .with_x_axis_max(most)
        .with_y_axis_min(lowest)
        .with_y_axis_max(highest);
    Some(draw(name, plots, layout, SIZE))
}

/// A label for each point: those that lie together share one, at the highest of them, from there
/// down. `per_unit` are lengths on the page for a factor of e.
fn labels(points: &[(f64, f64)], names: &[&str], per_unit: (f64, f64)) -> Vec<String> {
    let near = |a: (f64, f64), b: (f64, f64)| {
        (a.0 / b.0).ln().abs() * per_unit.0 < APART.0
            && (a.1 / b.1).ln().abs() * per_unit.1 < APART.1
    };
    let mut downwards: Vec<usize> = (0..points.len()).collect();
    downwards.sort_by(|a, b| points[*b].1.total_cmp(&points[*a].1));
    let mut labels = vec![String::new(); points.len()];
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for at in downwards {
        let joins =
            |group: &&mut Vec<usize>| group.iter().any(|other| near(points[at], points[*other]));
        match groups.iter_mut().find(joins) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    for group in groups {
        let together: Vec<&str> = group.iter().map(|at| names[*at]).collect();
        labels[group[0]] = together.join(", ");
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::labels;

    #[test]
    fn points_that_lie_together_share_a_label() {
        let points = [(1.0, 10.0), (80.0, 400.0), (90.0, 410.0), (85.0, 100.0)];
        let names = ["logits", "qkv", "down", "attention_prefill"];
        let labels = labels(&points, &names, (60.0, 40.0));
        assert_eq!(labels, ["logits", "", "down, qkv", "attention_prefill"]);
    }
}
