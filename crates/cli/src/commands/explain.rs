use std::fmt;

use metron_metrics::{
    Blame, Doubt, Explanation, RunOf, Scoring, blame, doubts, explain, most_missed,
};
use metron_report::{Style, bare_doubts_text, blame_text, explanation_text};
use metron_trace::{Header, RequestId, Trace};

use crate::args::ExplainArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::print;
use crate::saved::SavedRuns;

/// `metron explain`: why deadlines were missed, of one request or of each policy.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let saved = SavedRuns::read(&args.traces)?;
    let scoring = saved.scoring(&args.scoring)?;
    match args.request {
        Some(id) => one_request(&saved, RequestId(id), args.replicate, &scoring, args.json),
        None => every_policy(&saved, &scoring, args.json),
    }
}

/// The request's story under each policy, in the run that is asked for or its first.
fn one_request(
    saved: &SavedRuns,
    request: RequestId,
    replicate: Option<u32>,
    scoring: &Scoring,
    json: bool,
) -> Result<(), Failure> {
    let mut stories = Vec::new();
    for label in saved.policies() {
        let is_asked = |own: &Header| replicate.is_none_or(|asked| asked == own.replicate + 1);
        let of_policy = saved.traces.iter().filter(|trace| trace.header.policy.label == label);
        let Some(trace) = of_policy.clone().find(|trace| is_asked(&trace.header)) else {
            return Err(no_such_replicate(&label, of_policy));
        };
        let story = explain(trace, request, scoring).ok_or_else(|| unknown(request, trace))?;
        stories.push((Told { label, replicate: trace.header.replicate }, story));
    }
    if json {
        let stories: Vec<serde_json::Value> = stories.iter().map(as_json).collect();
        print::result(&serde_json::to_string_pretty(&stories).or_fail(Kind::Internal)?);
        return Ok(());
    }
    let texts: Vec<String> =
        stories.iter().map(|(told, story)| explanation_text(&told.to_string(), story)).collect();
    print::result(&texts.join("\n"));
    Ok(())
}

/// Whose run a story is of.
struct Told {
    label: String,
    /// From 0.
    replicate: u32,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (replicate {})", self.label, self.replicate + 1)
    }
}

fn as_json((told, story): &(Told, Explanation)) -> serde_json::Value {
    let replicate = u64::from(told.replicate) + 1;
    serde_json::json!({ "policy": told.label, "replicate": replicate, "story": story })
}

fn no_such_replicate<'a>(policy: &str, runs: impl Iterator<Item = &'a Trace>) -> Failure {
    let numbers: Vec<String> = runs.map(|run| (run.header.replicate + 1).to_string()).collect();
    let there = numbers.join(", ");
    let error = anyhow::anyhow!("--replicate: {policy} has no such run; there are {there}");
    Failure { kind: Kind::Usage, error }
}

fn unknown(request: RequestId, trace: &Trace) -> Failure {
    let ids = || trace.requests.iter().map(|request| request.id.0);
    let known = match (ids().min(), ids().max()) {
        (Some(first), Some(last)) => format!("it has requests {first} to {last}"),
        _ => "it has no requests".to_owned(),
    };
    let policy = &trace.header.policy.label;
    let error = anyhow::anyhow!("there is no {request} in the trace of {policy}: {known}");
    Failure { kind: Kind::Usage, error }
}

/// Each policy's missed deadlines by cause, and the request that missed the most.
fn every_policy(saved: &SavedRuns, scoring: &Scoring, json: bool) -> Result<(), Failure> {
    let blamed = |label| Blamed::new(label, &saved.traces, scoring);
    let policies: Vec<Blamed> = saved.policies().into_iter().map(blamed).collect();
    if json {
        let policies: Vec<serde_json::Value> = policies.iter().map(Blamed::as_json).collect();
        print::result(&serde_json::to_string_pretty(&policies).or_fail(Kind::Internal)?);
        return Ok(());
    }
    if policies.iter().all(|policy| policy.blame.is_none()) {
        let error = anyhow::anyhow!(
            "why deadlines were missed can't be told: the traces have no steps, no calibration or \
             no deadlines"
        );
        return Err(Failure { kind: Kind::Input, error });
    }
    let table: Vec<(&str, Option<&Blame>)> =
        policies.iter().map(|policy| (policy.label.as_str(), policy.blame.as_ref())).collect();
    let mut text = blame_text(&table, Style { colour: print::wants_colour() });
    text.push_str("The causes are estimated: see docs/blame.md.\n\n");
    for policy in &policies {
        text.push_str(&policy.worst_sentence());
    }
    text.push_str(&slowed_by(&saved.runs(), scoring));
    print::result(&text);
    Ok(())
}

/// What the machine did to these runs, as doubts: its part of their missed deadlines is among the
/// unexplained ones.
fn slowed_by(runs: &[RunOf<'_>], scoring: &Scoring) -> String {
    let doubts: Vec<Doubt> = doubts(runs, scoring).into_iter().map(|raised| raised.doubt).collect();
    let text = bare_doubts_text(doubts.iter().filter(|doubt| doubt.slows_steps()));
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// A policy, with all of its traces pooled.
struct Blamed {
    label: String,
    blame: Option<Blame>,
    /// Which replicate its first run is, from 0.
    replicate: u32,
    /// The request of that run that missed the most deadlines, and how many.
    worst: Option<(RequestId, u64)>,
}

impl Blamed {
    fn new(label: String, traces: &[Trace], scoring: &Scoring) -> Self {
        let own: Vec<&Trace> =
            traces.iter().filter(|trace| trace.header.policy.label == label).collect();
        let worst = own.first().and_then(|trace| most_missed(trace, scoring));
        let replicate = own.first().map_or(0, |trace| trace.header.replicate);
        Self { blame: blame(&own, scoring), replicate, worst, label }
    }

    fn as_json(&self) -> serde_json::Value {
        serde_json::json!({
            "policy": self.label,
            "estimated_blame": self.blame,
            "worst_request": self.worst.map(|(request, _)| request),
        })
    }

    fn worst_sentence(&self) -> String {
        let Self { label, .. } = self;
        let run = format!("replicate {}", self.replicate + 1);
        self.worst.map_or_else(
            || format!("{label}: no deadline was missed in {run}.\n"),
            |(request, missed)| {
                let id = request.0;
                format!("{label}: {request} missed the most in {run}, {missed} (--request {id}).\n")
            },
        )
    }
}
