use kuva::prelude::{BarPlot, Layout, Plot};
use metron_metrics::Cause;

use super::Figure;
use super::theme::{Colour, Key, draw};
use crate::blame::{blamed, causes};
use crate::report::Report;

/// Each policy's missed deadlines as a bar of its causes. `None` if nothing was missed, or nothing
/// is known of why.
pub(crate) fn blame_figure(report: &Report<'_>) -> Option<Figure> {
    let policies = blamed(report);
    let causes = causes(&policies);
    if causes.is_empty() {
        return None;
    }
    let mut bars = BarPlot::new().with_stacked().with_horizontal(true).with_width(0.7);
    // Kuva draws from the bottom up; the first policy stands on top, as in the table.
    for (policy, blame) in policies.iter().rev() {
        let missed = |cause| blame.map_or(0, |blame| blame.missed_for(cause)) as f64;
        let parts = causes.iter().map(|cause| (missed(*cause), Colour::of_cause(*cause)));
        bars = bars.with_group(*policy, parts);
    }
    let plots: Vec<Plot> = vec![bars.into()];
    let layout =
        Layout::auto_from_plots(&plots).with_x_label("missed deadlines").with_x_axis_min(0.0);
    let height = 90.0 + 40.0 * policies.len() as f64;
    let svg = draw("blame", plots, layout, (1120.0, height));
    Some(Figure { caption: "Missed deadlines by cause (estimated)".to_owned(), svg })
}

/// The legend: the causes that there were.
pub(crate) fn blame_keys(report: &Report<'_>) -> Vec<Key> {
    let key = |cause: Cause| Key::area(cause.name(), Colour::of_cause(cause));
    causes(&blamed(report)).into_iter().map(key).collect()
}
