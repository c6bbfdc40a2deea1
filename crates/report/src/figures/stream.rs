use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use kuva::prelude::{Layout, LinePlot, LineStyle, Plot, ScatterPlot, ShadedRegion};
use metron_metrics::{DueToken, Fluidity, StallStory, Timeline, due_tokens, fluidity, timelines};
use metron_trace::RequestId;
use serde::Serialize;

use super::Figure;
use super::theme::{Colour, Key, draw};
use crate::report::Report;
use crate::units::seconds;

/// One request's stream under every policy.
#[derive(Serialize)]
pub(crate) struct Streams {
    /// Which request it is and why it was chosen.
    pub(crate) why: String,
    /// A picture for each policy that served it.
    pub(crate) figures: Vec<Figure>,
}

/// The streams of up to two requests: the one whose fluidity differs most between the policies, and
/// the one that waited longest for a token. Each is a step curve of its tokens over time against
/// the line of their deadlines: the figure of arXiv 2407.07000 that explains the fluidity-index.
pub(crate) fn streams(report: &Report<'_>) -> Vec<Streams> {
    let first = report.runs.iter().map(|run| run.replicate).min().unwrap_or_default();
    let most_telling = most_telling(&scored(report, first));
    let longest_stall = longest_stall(report);
    let mut shown = Vec::new();
    if let Some(request) = most_telling {
        let why = if report.comparison.policies.len() > 1 {
            "its fluidity-index differs most between the policies"
        } else {
            "it has the lowest fluidity-index"
        };
        let why = format!("Request {} of replicate {}: {why}.", request.0, first + 1);
        shown.push(streams_of(report, first, request, why, "telling"));
    }
    if let Some((policy, story)) = longest_stall
        && Some((first, story.request)) != most_telling.map(|request| (first, request))
    {
        let (replicate, request) = (story.replicate, story.request);
        let gap = seconds(story.gap.as_secs_f64());
        let why = format!(
            "Request {} of replicate {}: it waited longest for a token, {gap} under {policy}.",
            request.0,
            replicate + 1
        );
        shown.push(streams_of(report, replicate, request, why, "stalled"));
    }
    shown.retain(|streams| !streams.figures.is_empty());
    shown
}

/// The legend of all these figures.
pub(crate) fn stream_keys() -> [Key; 4] {
    [
        Key::line("tokens ready", Colour::INK, &LineStyle::Solid),
        Key::line("tokens due", Colour::QUIET, &LineStyle::Dashed),
        Key::line("overdue: deadlines pass", Colour::LATE, &LineStyle::Solid),
        Key::shade("stall", Colour::LATE),
    ]
}

/// The longest stall of all policies, if it was above the limit.
fn longest_stall<'a>(report: &'a Report<'_>) -> Option<(&'a str, &'a StallStory)> {
    let policies = report.comparison.policies.iter().rev(); // the first of equals
    policies
        .filter_map(|row| Some((row.policy.as_str(), row.longest_stall.as_ref()?)))
        .max_by_key(|(_, story)| story.gap)
        .filter(|(_, story)| story.gap > report.scoring.stall_limit)
}

struct Scored {
    timeline: Timeline,
    tokens: Vec<DueToken>,
    fluidity: Fluidity,
}

/// The requests of each policy's run that have a fluidity-index, by the policy's place.
fn scored(report: &Report<'_>, replicate: u32) -> Vec<(usize, BTreeMap<RequestId, Scored>)> {
    let policies = report.comparison.policies.iter().enumerate();
    policies
        .filter_map(|(at, row)| {
            let mut runs = report.runs.iter();
            let run = runs.find(|run| run.policy == row.policy && run.replicate == replicate)?;
            let scored = timelines(run.trace).into_iter().filter_map(|t| score(report, t));
            Some((at, scored.map(|scored| (scored.timeline.request, scored)).collect()))
        })
        .collect()
}

fn score(report: &Report<'_>, timeline: Timeline) -> Option<Scored> {
    let due = report.deadlines(&timeline)?;
    let rule = &report.scoring.fluidity;
    let gaps = timeline.inter_token_ns();
    let fluidity = fluidity(&gaps, due, rule);
    fluidity.index()?;
    Some(Scored { tokens: due_tokens(&gaps, due, rule), fluidity, timeline })
}

/// Of the requests that finished under every policy, the one with the widest range of
/// fluidity-indices; with one policy, the one with the lowest. Of equals the longest stream, and
/// then the first.
fn most_telling(scored: &[(usize, BTreeMap<RequestId, Scored>)]) -> Option<RequestId> {
    let (_, first) = scored.first()?;
    let candidates = first.iter().filter_map(|(id, own)| {
        let finished = |(_, of): &(usize, BTreeMap<RequestId, Scored>)| {
            let scored = of.get(id).filter(|scored| scored.timeline.is_finished())?;
            scored.fluidity.index()
        };
        let indices: Vec<f64> = scored.iter().map(finished).collect::<Option<_>>()?;
        let least = indices.iter().copied().fold(f64::INFINITY, f64::min);
        let most = match indices.as_slice() {
            [_] => 1.0,
            several => several.iter().copied().fold(0.0, f64::max),
        };
        Some((most - least, own.tokens.len(), Reverse(*id)))
    });
    candidates
        .max_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))))
        .map(|(.., Reverse(id))| id)
}

fn streams_of(
    report: &Report<'_>,
    replicate: u32,
    request: RequestId,
    why: String,
    name: &str,
) -> Streams {
    let scored = scored(report, replicate);
    let shown: Vec<(usize, &Scored)> =
        scored.iter().filter_map(|(at, of)| Some((*at, of.get(&request)?))).collect();
    let end = shown.iter().map(|(_, scored)| scored.end_s()).fold(0.0, f64::max);
    let figure = |(at, scored): (usize, &Scored)| Figure {
        caption: scored.caption(&report.comparison.policies[at].policy),
        svg: scored.picture(&format!("{name}-{at}"), at, end, report.scoring.stall_limit),
    };
    Streams { why, figures: shown.into_iter().map(figure).collect() }
}

/// At most so many tokens are drawn of a stream, evenly chosen.
const MOST_TOKENS: usize = 1000;

impl Scored {
    fn caption(&self, policy: &str) -> String {
        let Fluidity { met, missed } = self.fluidity;
        let index = self.fluidity.index().unwrap_or_default();
        format!(
            "{policy}: fluidity-index {index:.2}, {missed} of {} deadlines missed",
            met + missed
        )
    }

    /// Where the figure ends, in seconds after the arrival: with the last token or its deadline,
    /// but lenient deadlines don't shrink the stream to a corner.
    fn end_s(&self) -> f64 {
        let last = self.tokens.last();
        let ready = last.map_or(0.0, |token| in_seconds(token.ready));
        let due = last.and_then(|token| token.due).map_or(0.0, in_seconds);
        ready.max(due.min(3.0 * ready))
    }

    fn picture(&self, name: &str, policy: usize, end: f64, stall_limit: Duration) -> String {
        let every = self.tokens.len().div_ceil(MOST_TOKENS).max(1);
        let drawn: Vec<(f64, DueToken)> =
            (1_u32..).map(f64::from).zip(self.tokens.iter().copied()).step_by(every).collect();
        let due = drawn.iter().map(|(nth, token)| (in_seconds(due_or_ready(token)), *nth));
        let ready = drawn.iter().map(|(nth, token)| (in_seconds(token.ready), *nth));
        let mut plots: Vec<Plot> = vec![
            LinePlot::new()
                .with_data(stairs(due, end))
                .with_color(Colour::QUIET)
                .with_dashed()
                .with_stroke_width(1.5)
                .into(),
            LinePlot::new()
                .with_data(stairs(ready, end))
                .with_color(Colour::of_policy(policy))
                .with_stroke_width(2.0)
                .into(),
        ];
        plots.extend(overdue(&drawn));
        let layout = Layout::auto_from_plots(&plots)
            .with_x_label("time after the arrival, s")
            .with_y_label("tokens")
            .with_x_axis_min(0.0)
            .with_x_axis_max(end)
            .with_y_axis_min(0.0);
        let layout = self.stalls(stall_limit).fold(layout, Layout::with_shaded_region);
        draw(name, plots, layout, (560.0, 260.0))
    }

    fn stalls(&self, limit: Duration) -> impl Iterator<Item = ShadedRegion> {
        let gaps = self.tokens.windows(2).map(|pair| (pair[0].ready, pair[1].ready));
        let long = move |(from, to): &(u64, u64)| u128::from(to - from) > limit.as_nanos();
        gaps.filter(long).take(MOST_TOKENS).map(|(from, to)| {
            ShadedRegion::vertical(in_seconds(from), in_seconds(to))
                .with_color(Colour::LATE)
                .with_opacity(0.15)
        })
    }
}

fn due_or_ready(token: &DueToken) -> u64 {
    token.due.unwrap_or(token.ready)
}

/// A line at each late token's height, from when it was due to when it was ready.
fn overdue(tokens: &[(f64, DueToken)]) -> Vec<Plot> {
    let late = || tokens.iter().filter(|(_, token)| token.late_by().is_some());
    let mut plots: Vec<Plot> = late()
        .map(|(nth, token)| {
            let from = in_seconds(due_or_ready(token));
            LinePlot::new()
                .with_data([(from, *nth), (in_seconds(token.ready), *nth)])
                .with_color(Colour::LATE)
                .with_stroke_width(2.5)
                .into()
        })
        .collect();
    if !plots.is_empty() {
        let ends: Vec<(f64, f64)> =
            late().map(|(nth, token)| (in_seconds(token.ready), *nth)).collect();
        let dots = ScatterPlot::new().with_data(ends).with_color(Colour::LATE).with_size(3.5);
        plots.push(dots.into());
    }
    plots
}

/// The corners of a curve that rises to each level at its time, up to the end of the figure.
fn stairs(levels: impl Iterator<Item = (f64, f64)>, end: f64) -> Vec<(f64, f64)> {
    let mut corners = vec![(0.0, 0.0)];
    let mut below = 0.0;
    for (at, level) in levels.take_while(|(at, _)| *at <= end) {
        corners.extend([(at, below), (at, level)]);
        below = level;
    }
    corners
}

fn in_seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
