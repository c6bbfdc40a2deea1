//! Trace events of a run, for Perfetto's viewer and Chrome's.
//!
//! The format is Chrome's "Trace Event Format": complete events (`X`), counters (`C`), instants
//! (`i`) and names of tracks (`M`), times in microseconds.

use std::io::{Result, Write};
use std::time::Duration;

use metron_trace::{Operator, Phases, RequestId, StepRecord, Timestamp, Trace, Work, WorkKind};
use serde::Serialize;
use serde_json::{Value, json};

/// Groups of tracks; Perfetto calls them processes.
const ENGINE: u32 = 1;
const OPERATORS: u32 = 2;
const SEQUENCES: u32 = 3;

/// Tracks of the engine: whole steps, then a track a phase.
const STEPS: u32 = 1;
const PHASES: [&str; 7] =
    ["schedule", "prepare", "transfer", "forward", "transfer back", "sample", "detokenise"];

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    ph: char,
    pid: u32,
    tid: u32,
    /// Microseconds; `None` for names of tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    /// Scope of an instant: its thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<char>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

/// Writes a run as one JSON object: a track for whole steps and for each phase, one for each
/// operator where operators were timed, one for each request, and counters of the batch.
///
/// # Errors
/// Whatever the writer says.
pub fn write_perfetto(trace: &Trace, to: &mut dyn Write) -> Result<()> {
    let model = &trace.header.model.id;
    let policy = &trace.header.policy.label;
    write!(to, "{{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
    serde_json::to_writer(&mut *to, &json!({ "model": model, "policy": policy }))?;
    to.write_all(b",\"traceEvents\":[")?;
    let mut events = Events { to, any: false };
    events.track_names(trace)?;
    events.queues(trace)?;
    for step in &trace.steps {
        events.step(step)?;
        events.operators(step)?;
        events.sequences(step)?;
        events.counters(step)?;
    }
    to.write_all(b"\n]}\n")
}

struct Events<'a> {
    to: &'a mut dyn Write,
    any: bool,
}

impl Events<'_> {
    fn push(&mut self, event: &Event<'_>) -> Result<()> {
        self.to.write_all(if self.any { b",\n" } else { b"\n" })?;
        self.any = true;
        serde_json::to_writer(&mut *self.to, event).map_err(Into::into)
    }

    /// Something that took a while.
    fn slice(
        &mut self,
        (pid, tid): (u32, u32),
        name: &str,
        at: Timestamp,
        took: Duration,
        args: Value,
    ) -> Result<()> {
        let (ts, dur) = (Some(microseconds(at)), Some(took.as_nanos() as f64 / 1e3));
        self.push(&Event { name, ph: 'X', pid, tid, ts, dur, s: None, args })
    }

    fn name(&mut self, what: &str, pid: u32, tid: u32, name: &str) -> Result<()> {
        let args = json!({ "name": name });
        self.push(&Event { name: what, ph: 'M', pid, tid, ts: None, dur: None, s: None, args })
    }

    fn track_names(&mut self, trace: &Trace) -> Result<()> {
        self.name("process_name", ENGINE, 0, "engine")?;
        self.name("thread_name", ENGINE, STEPS, "steps")?;
        for (phase, tid) in PHASES.iter().zip(STEPS + 1..) {
            self.name("thread_name", ENGINE, tid, phase)?;
        }
        if trace.steps.iter().any(|step| !step.operators.is_empty()) {
            self.name("process_name", OPERATORS, 0, "operators")?;
            for (operator, tid) in Operator::ALL.iter().zip(1..) {
                self.name("thread_name", OPERATORS, tid, operator.name())?;
            }
        }
        self.name("process_name", SEQUENCES, 0, "requests")?;
        for request in &trace.requests {
            self.name("thread_name", SEQUENCES, track_of(request.id), &request.id.to_string())?;
        }
        Ok(())
    }

    /// From each request's arrival to its first work.
    fn queues(&mut self, trace: &Trace) -> Result<()> {
        for request in &trace.requests {
            let works = |step: &&StepRecord| step.work.iter().any(|w| w.request == request.id);
            let begun = trace.steps.iter().find(works).map(|step| step.started_at);
            let ended = || trace.ends.iter().find(|end| end.request == request.id);
            if let Some(until) = begun.or_else(|| ended().map(|end| end.ended_at)) {
                let track = (SEQUENCES, track_of(request.id));
                let args = json!({
                    "prompt_tokens": request.prompt_tokens,
                    "output_tokens": request.output_tokens,
                });
                let waited = until.since(request.arrived_at);
                self.slice(track, "waiting", request.arrived_at, waited, args)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &StepRecord) -> Result<()> {
        let name = format!("step {}", step.index);
        let args = json!({
            "prefill_tokens": step.tokens_of(WorkKind::Prefill),
            "decode_tokens": step.tokens_of(WorkKind::Decode),
            "recompute_tokens": step.tokens_of(WorkKind::Recompute),
            "predicted_ms": step.predicted.map(|time| time.as_secs_f64() * 1e3),
        });
        self.slice((ENGINE, STEPS), &name, step.planned_at, step.took(), args)?;
        let mut at = step.started_at;
        for ((phase, took), tid) in PHASES.iter().zip(phases(&step.phases)).zip(STEPS + 1..) {
            let Some(took) = took else { continue };
            let starts_at = match *phase {
                "schedule" => step.planned_at,
                "detokenise" => step.ended_at,
                _ => {
                    let began = at;
                    at = at + took;
                    began
                }
            };
            self.slice((ENGINE, tid), phase, starts_at, took, Value::Null)?;
        }
        Ok(())
    }

    fn operators(&mut self, step: &StepRecord) -> Result<()> {
        for span in &step.operators {
            let tid = Operator::ALL.iter().position(|operator| *operator == span.operator);
            let track = (OPERATORS, tid.unwrap_or_default() as u32 + 1);
            let args = json!({ "step": step.index, "layer": span.layer });
            self.slice(track, span.operator.name(), span.started_at, span.took, args)?;
        }
        Ok(())
    }

    fn sequences(&mut self, step: &StepRecord) -> Result<()> {
        for preemption in &step.preemptions {
            let args = json!({ "cause": preemption.cause, "tokens_lost": preemption.tokens_lost });
            self.push(&Event {
                name: "preempted",
                ph: 'i',
                pid: SEQUENCES,
                tid: track_of(preemption.request),
                ts: Some(microseconds(step.planned_at)),
                dur: None,
                s: Some('t'),
                args,
            })?;
        }
        // A chunk that recomputes and then goes on is recorded as two pieces: one slice.
        for work in step.work.chunk_by(|a, b| a.request == b.request) {
            let tokens: u32 = work.iter().map(|part| part.tokens).sum();
            let args = json!({ "step": step.index, "context": work[0].context, "tokens": tokens });
            let track = (SEQUENCES, track_of(work[0].request));
            let took = step.ended_at.since(step.started_at);
            self.slice(track, kind(work), step.started_at, took, args)?;
        }
        Ok(())
    }

    fn counters(&mut self, step: &StepRecord) -> Result<()> {
        let sequences = step.work.chunk_by(|a, b| a.request == b.request).count();
        let counters = [
            ("batch", json!({ "sequences": sequences })),
            (
                "tokens",
                json!({
                    "prefill": step.tokens_of(WorkKind::Prefill),
                    "decode": step.tokens_of(WorkKind::Decode),
                    "recompute": step.tokens_of(WorkKind::Recompute),
                }),
            ),
            ("free blocks", json!({ "blocks": step.blocks_free })),
            ("queue", json!({ "waiting": step.num_waiting })),
        ];
        for (name, args) in counters {
            let ts = Some(microseconds(step.started_at));
            let (pid, tid) = (ENGINE, 0);
            self.push(&Event { name, ph: 'C', pid, tid, ts, dur: None, s: None, args })?;
        }
        Ok(())
    }
}

/// In the order of [`PHASES`].
fn phases(phases: &Phases) -> [Option<Duration>; 7] {
    [
        Some(phases.schedule),
        phases.prepare,
        phases.transfer,
        phases.forward,
        phases.transfer_back,
        phases.sample,
        phases.detokenise,
    ]
}

fn kind(work: &[Work]) -> &'static str {
    match work[0].kind {
        WorkKind::Prefill => "prefill",
        WorkKind::Decode => "decode",
        WorkKind::Recompute => "recompute",
    }
}

/// Track 0 is the group's own.
fn track_of(request: RequestId) -> u32 {
    request.0 + 1
}

fn microseconds(at: Timestamp) -> f64 {
    at.as_nanos() as f64 / 1e3
}
