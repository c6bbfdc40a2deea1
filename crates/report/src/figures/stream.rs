use std::collections::BTreeMap;

use kuva::prelude::{Layout, LegendPosition, LinePlot, Plot, ScatterPlot};
use metron_metrics::{Deadlined, Fluidity, Timeline, fluidity, timelines};
use metron_trace::RequestId;

use super::theme::{colour_of, draw};
use crate::report::Report;

/// One request's stream under one policy.
pub(crate) struct StreamFigure {
    /// The policy and what it gave the request.
    pub(crate) caption: String,
    /// The picture.
    pub(crate) svg: String,
}

/// The request whose fluidity differs most between the policies, and its stream under each: tokens
/// over time against the line of their deadlines (the figure of arXiv 2407.07000 that explains the
/// fluidity-index). Of the first replicate.
pub(crate) fn streams(report: &Report<'_>) -> Option<(RequestId, Vec<StreamFigure>)> {
    let scored: Vec<(usize, BTreeMap<RequestId, Scored>)> = report
        .comparison
        .policies
        .iter()
        .enumerate()
        .filter_map(|(at, row)| {
            let run = report.runs.iter().find(|run| run.policy == row.policy)?;
            let scored = timelines(run.trace).into_iter().filter_map(|t| score(report, t));
            Some((at, scored.map(|scored| (scored.timeline.request, scored)).collect()))
        })
        .collect();
    let chosen = most_different(&scored)?;
    let shown: Vec<(usize, &Scored)> =
        scored.iter().filter_map(|(at, of)| Some((*at, of.get(&chosen)?))).collect();
    let end = shown.iter().map(|(_, scored)| scored.end_s()).fold(0.0, f64::max);
    let figures = shown
        .into_iter()
        .map(|(at, scored)| {
            let index = scored.fluidity.index().unwrap_or_default();
            let policy = &report.comparison.policies[at].policy;
            StreamFigure {
                caption: format!(
                    "{policy}: fluidity-index {index:.2}, {} of {} deadlines missed",
                    scored.fluidity.missed,
                    scored.fluidity.met + scored.fluidity.missed
                ),
                svg: scored.picture(at, end),
            }
        })
        .collect();
    Some((chosen, figures))
}

struct Scored {
    timeline: Timeline,
    due: Deadlined,
    fluidity: Fluidity,
}

fn score(report: &Report<'_>, timeline: Timeline) -> Option<Scored> {
    let scoring = report.scoring;
    let (prompt, recorded) = (timeline.prompt_tokens, timeline.deadlines);
    let due: Deadlined = scoring.deadlines.of(prompt, recorded, scoring.prefill.as_ref())?.into();
    let fluidity = fluidity(&timeline.inter_token_ns(), due, &scoring.fluidity);
    (timeline.is_finished() && timeline.tokens_at.len() > 2).then_some(Scored {
        timeline,
        due,
        fluidity,
    })
}

/// The lowest id among the requests with the widest range of fluidity-indices.
fn most_different(scored: &[(usize, BTreeMap<RequestId, Scored>)]) -> Option<RequestId> {
    let range = |id: &RequestId| {
        let of = |(_, scored): &(usize, BTreeMap<RequestId, Scored>)| {
            scored.get(id).and_then(|scored| scored.fluidity.index())
        };
        let indices: Vec<f64> = scored.iter().filter_map(of).collect();
        let least = indices.iter().copied().fold(f64::INFINITY, f64::min);
        let most = indices.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (indices.len() == scored.len()).then_some(most - least)
    };
    let ranges = scored.first()?.1.keys().filter_map(|id| Some((range(id)?, *id)));
    ranges.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, id)| id)
}

impl Scored {
    /// Seconds from the arrival to the last token.
    fn end_s(&self) -> f64 {
        self.timeline.inter_token_ns().iter().sum::<u64>() as f64 / 1e9
    }

    /// Seconds after the arrival at which each token was ready, and at which it was due: deadlines
    /// go on from the last, and from a late token after a miss.
    fn ready_and_due(&self) -> Vec<(f64, f64)> {
        let mut due = 0.0;
        let mut now = 0.0;
        let mut points = Vec::new();
        for (i, gap) in self.timeline.inter_token_ns().into_iter().enumerate() {
            now += gap as f64 / 1e9;
            let deadline = if i == 0 { self.due.first_ns } else { self.due.next_ns };
            due += deadline as f64 / 1e9;
            points.push((now, due));
            due = if now > due { now } else { due };
        }
        points
    }

    fn picture(&self, policy: usize, end: f64) -> String {
        let points = self.ready_and_due();
        let stair = |of: fn(&(f64, f64)) -> f64| {
            let mut corners = vec![(0.0, 0.0)];
            for (token, point) in points.iter().enumerate() {
                corners.push((of(point), token as f64));
                corners.push((of(point), token as f64 + 1.0));
            }
            corners
        };
        let late: Vec<(f64, f64)> = points
            .iter()
            .enumerate()
            .filter(|(_, (ready, due))| ready > due)
            .map(|(token, (ready, _))| (*ready, token as f64 + 1.0))
            .collect();
        let mut plots: Vec<Plot> = vec![
            LinePlot::new()
                .with_data(stair(|point| point.1))
                .with_color("#808080")
                .with_dashed()
                .with_stroke_width(1.5)
                .with_legend("due")
                .into(),
            LinePlot::new()
                .with_data(stair(|point| point.0))
                .with_color(colour_of(policy))
                .with_stroke_width(2.0)
                .with_legend("ready")
                .into(),
        ];
        if !late.is_empty() {
            let late = ScatterPlot::new().with_data(late).with_color("#d62728").with_size(4.0);
            plots.push(late.with_legend("late").into());
        }
        let last_due = points.last().map_or(0.0, |point| point.1);
        let layout = Layout::auto_from_plots(&plots)
            .with_x_label("time after the arrival, s")
            .with_y_label("tokens")
            .with_legend_position(LegendPosition::OutsideBottomCenter)
            .with_x_axis_min(0.0)
            .with_x_axis_max(end.max(last_due))
            .with_y_axis_min(0.0);
        draw(plots, layout, 560.0, 340.0)
    }
}
