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
/// Where a label begins, to the right of its points and below them: the roof is above.
const LABEL_AT: (f64, f64) = (6.0, 14.0);
/// About how wide a letter is.
const LETTER: f64 = 7.0;

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
    let (least, farthest) =
        (intensities().reduce(f64::min)? / 2.0, intensities().reduce(f64::max)? * 2.0);
    let lowest = points.iter().map(|point| point.1).fold(least * bandwidth, f64::min) / 3.0;
    let highest = peak * 2.0;
    let per_unit =
        |most: f64| (WITHIN_AXES.0 / (most / least).ln(), WITHIN_AXES.1 / (highest / lowest).ln());
    let names: Vec<&str> = shown.iter().map(|operator| operator.operator.name()).collect();
    let labels = labels(&points, &names, per_unit(farthest));
    let most = labels.iter().map(|label| label.room(least)).fold(farthest, f64::max);
    let roof = LinePlot::new()
        .with_data([(least, least * bandwidth), (ridge, peak), (most, peak)])
        .with_color(Colour::INK)
        .with_stroke_width(2.0);
    let operators = ScatterPlot::new()
        .with_data(points.iter().copied())
        .with_color(Colour::DECODE)
        .with_size(5.0);
    let plots: Vec<Plot> =
        vec![roof.into(), operators.into(), written(&labels, per_unit(most)).into()];
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

/// What some points that lie together are called.
#[derive(Debug, PartialEq)]
struct Label {
    /// From the fastest on.
    text: String,
    /// The greatest of its points' intensities.
    to: f64,
    /// The least of their rates.
    lowest: f64,
}

impl Label {
    /// How far an axis has to go that begins at `least`, so that the label ends within it.
    fn room(&self, least: f64) -> f64 {
        let width = LABEL_AT.0 + self.text.chars().count() as f64 * LETTER;
        let left = (1.0 - width / WITHIN_AXES.0).max(0.25);
        least * ((self.to / least).ln() / left).exp()
    }
}

/// Labels beside their points. Kuva puts labels above points, or beside them with a line between:
/// these have points of their own, of no size.
fn written(labels: &[Label], per_unit: (f64, f64)) -> ScatterPlot {
    let place = |label: &Label| {
        let x = label.to * (LABEL_AT.0 / per_unit.0).exp();
        (x, label.lowest * (-LABEL_AT.1 / per_unit.1).exp())
    };
    ScatterPlot::new()
        .with_data(labels.iter().map(place).collect::<Vec<_>>())
        .with_color(Colour::DECODE)
        .with_size(0.0)
        .with_labels(labels.iter().map(|label| label.text.as_str()))
        // The text begins at its place: an offset of nothing draws no line.
        .with_label_style(LabelStyle::Arrow { offset_x: 0.0, offset_y: 0.0 })
}

/// The labels of the points: those that lie together share one. `per_unit` are lengths on the page
/// for a factor of e.
fn labels(points: &[(f64, f64)], names: &[&str], per_unit: (f64, f64)) -> Vec<Label> {
    let near = |a: (f64, f64), b: (f64, f64)| {
        (a.0 / b.0).ln().abs() * per_unit.0 < APART.0
            && (a.1 / b.1).ln().abs() * per_unit.1 < APART.1
    };
    let mut downwards: Vec<usize> = (0..points.len()).collect();
    downwards.sort_by(|a, b| points[*b].1.total_cmp(&points[*a].1));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for at in downwards {
        let joins =
            |group: &&mut Vec<usize>| group.iter().any(|other| near(points[at], points[*other]));
        match groups.iter_mut().find(joins) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    let label = |group: &Vec<usize>| {
        let together: Vec<&str> = group.iter().map(|at| names[*at]).collect();
        let own = || group.iter().map(|at| points[*at]);
        Label {
            text: together.join(", "),
            to: own().map(|point| point.0).fold(0.0, f64::max),
            lowest: own().map(|point| point.1).fold(f64::INFINITY, f64::min),
        }
    };
    groups.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::{LABEL_AT, LETTER, Label, WITHIN_AXES, labels};

    #[test]
    fn points_that_lie_together_share_a_label_beside_and_below_all_of_them() {
        let points = [(1.0, 10.0), (80.0, 400.0), (90.0, 410.0), (85.0, 100.0)];
        let names = ["logits", "qkv", "down", "attention_prefill"];
        let labels = labels(&points, &names, (60.0, 40.0));
        let texts: Vec<&str> = labels.iter().map(|label| label.text.as_str()).collect();
        assert_eq!(texts, ["down, qkv", "attention_prefill", "logits"]);
        let together = Label { text: texts[0].to_owned(), to: 90.0, lowest: 400.0 };
        assert_eq!(labels[0], together);
    }

    #[test]
    fn an_axis_goes_on_until_its_labels_end_within_it() {
        let label = Label { text: "attention".to_owned(), to: 100.0, lowest: 1.0 };
        let most = label.room(1.0);
        let per_unit = WITHIN_AXES.0 / most.ln();
        let ends = 100.0_f64.ln() * per_unit + LABEL_AT.0 + 9.0 * LETTER;
        assert!((ends - WITHIN_AXES.0).abs() < 1e-6, "{ends}");
    }
}
