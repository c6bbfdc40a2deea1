use std::collections::BTreeMap;
use std::io::Result;

use metron_trace::{
    Preemption, Request, RequestEnd, RequestId, StepRecord, Timestamp, Trace, Work, WorkKind,
};
use serde_json::{Value, json};

use super::events::{Events, Group};

const REQUESTS: Group = Group(3);

/// One request, from its arrival to its end, with what happened to it in order of time.
struct Life<'a> {
    request: &'a Request,
    events: Vec<Happened<'a>>,
    end: Option<&'a RequestEnd>,
}

enum Happened<'a> {
    Preempted(&'a StepRecord, &'a Preemption),
    Ran(&'a StepRecord, &'a [Work]),
}

/// A track for each request: waiting, then its share of each step.
pub(super) fn write(trace: &Trace, events: &mut Events<'_>) -> Result<()> {
    events.name_group(REQUESTS, "requests")?;
    let last = trace.requests.iter().map(|request| request.id.0).max();
    // Viewers sort these tracks by their names.
    let digits = last.unwrap_or_default().to_string().len();
    for life in lives(trace) {
        let name = format!("request {:0digits$}", life.request.id.0);
        life.write(&name, !trace.steps.is_empty(), events)?;
    }
    Ok(())
}

/// In order of arrival.
fn lives(trace: &Trace) -> Vec<Life<'_>> {
    let ends: BTreeMap<_, _> = trace.ends.iter().map(|end| (end.request, end)).collect();
    let life = |request: &'_ Request| ends.get(&request.id).copied();
    let mut lives: Vec<Life<'_>> = trace
        .requests
        .iter()
        .map(|request| Life { request, events: Vec::new(), end: life(request) })
        .collect();
    let places: BTreeMap<_, _> =
        trace.requests.iter().zip(0..).map(|(request, at)| (request.id, at)).collect();
    let mut happened = |request: RequestId, what| {
        if let Some(at) = places.get(&request) {
            let life: &mut Life<'_> = &mut lives[*at];
            life.events.push(what);
        }
    };
    for step in &trace.steps {
        for preemption in &step.preemptions {
            happened(preemption.request, Happened::Preempted(step, preemption));
        }
        // A chunk that recomputes and then goes on is recorded as two pieces: one slice.
        for work in step.work.chunk_by(|a, b| a.request == b.request) {
            happened(work[0].request, Happened::Ran(step, work));
        }
    }
    lives
}

impl Life<'_> {
    /// `knows_steps`: a request that never ran waited, and is not merely one of another tool's trace.
    fn write(&self, name: &str, knows_steps: bool, events: &mut Events<'_>) -> Result<()> {
        let track = (REQUESTS, self.request.id);
        let arrived_at = self.request.arrived_at;
        events.begin(track, name, arrived_at, self.facts())?;
        let mut waits_since = knows_steps.then_some(arrived_at);
        let mut ran_until = arrived_at;
        for event in &self.events {
            match event {
                Happened::Preempted(step, preemption) => {
                    let at = step.planned_at.max(ran_until);
                    let args = json!({
                        "step": step.index,
                        "cause": preemption.cause,
                        "tokens_lost": preemption.tokens_lost,
                    });
                    events.instant(track, "preempted", at, args)?;
                    waits_since = Some(at);
                }
                Happened::Ran(step, work) => {
                    if let Some(since) = waits_since.take() {
                        self.wait(since, step.started_at, events)?;
                    }
                    let tokens: u32 = work.iter().map(|part| part.tokens).sum();
                    let args = json!({
                        "step": step.index,
                        "context": work[0].context,
                        "tokens": tokens,
                    });
                    events.begin(track, kind(work), step.started_at, args)?;
                    events.end(track, kind(work), step.ended_at)?;
                    ran_until = step.ended_at;
                }
            }
        }
        let Some(end) = self.end else { return Ok(()) };
        let ended_at = end.ended_at.max(ran_until);
        if let Some(since) = waits_since {
            self.wait(since, ended_at, events)?;
        }
        events.end(track, name, ended_at)
    }

    fn facts(&self) -> Value {
        let mut facts = json!({ "prompt_tokens": self.request.prompt_tokens });
        if let Some(tokens) = self.request.output_tokens {
            facts["output_tokens"] = json!(tokens);
        }
        if let Some(end) = self.end {
            facts["status"] = json!(end.status);
        }
        facts
    }

    fn wait(&self, since: Timestamp, until: Timestamp, events: &mut Events<'_>) -> Result<()> {
        if until <= since {
            return Ok(());
        }
        let track = (REQUESTS, self.request.id);
        events.begin(track, "waiting", since, Value::Null)?;
        events.end(track, "waiting", until)
    }
}

fn kind(work: &[Work]) -> &'static str {
    match work[0].kind {
        WorkKind::Prefill => "prefill",
        WorkKind::Decode => "decode",
        WorkKind::Recompute => "recompute",
    }
}
