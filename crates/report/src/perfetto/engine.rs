use std::io::Result;
use std::time::Duration;

use metron_trace::{Operator, Phases, StepRecord, Timestamp, Trace, WorkKind};
use serde_json::{Value, json};

use super::events::{Events, Group, Track};

const ENGINE: Group = Group(1);
const OPERATORS: Group = Group(2);

const STEPS: Track = Track(ENGINE, 11);
const PHASES: [&str; 7] =
    ["schedule", "prepare", "transfer", "forward", "transfer back", "sample", "detokenise"];

/// When nothing ran for so long, the counters of what runs go to zero.
const PAUSE: Duration = Duration::from_millis(1);

/// Steps, their phases, their operators where these were timed, and counters.
pub(super) fn write(trace: &Trace, events: &mut Events<'_>) -> Result<()> {
    names(trace, events)?;
    let next = trace.steps.iter().skip(1).map(Some).chain([None]);
    for (step, next) in trace.steps.iter().zip(next) {
        whole(step, events)?;
        phases(step, events)?;
        operators(step, events)?;
        counters(step, events)?;
        if next.is_none_or(|next| next.planned_at.since(step.ended_at) > PAUSE) {
            count_work(step.ended_at, 0, [0; 3], events)?;
        }
    }
    Ok(())
}

fn names(trace: &Trace, events: &mut Events<'_>) -> Result<()> {
    if trace.steps.is_empty() {
        return Ok(());
    }
    events.name_group(ENGINE, "engine")?;
    events.name_track(STEPS, "steps")?;
    for (at, phase) in PHASES.iter().enumerate() {
        events.name_track(of_phase(at), phase)?;
    }
    if trace.steps.iter().any(|step| !step.operators.is_empty()) {
        events.name_group(OPERATORS, "operators")?;
        for operator in Operator::ALL {
            events.name_track(of_operator(operator), operator.name())?;
        }
    }
    Ok(())
}

fn of_phase(at: usize) -> Track {
    Track(ENGINE, STEPS.1 + 1 + at as u32)
}

fn of_operator(operator: Operator) -> Track {
    let at = Operator::ALL.iter().position(|other| *other == operator);
    Track(OPERATORS, 21 + at.unwrap_or_default() as u32)
}

fn whole(step: &StepRecord, events: &mut Events<'_>) -> Result<()> {
    let [prefill, decode, recompute] = tokens(step);
    let mut args = json!({
        "sequences": sequences(step),
        "prefill_tokens": prefill,
        "decode_tokens": decode,
        "recompute_tokens": recompute,
    });
    if let Some(predicted) = step.predicted {
        args["predicted_ms"] = json!(predicted.as_secs_f64() * 1e3);
    }
    let name = format!("step {}", step.index);
    events.slice(STEPS, &name, step.planned_at, step.took(), args)
}

/// Where a step spent its time: the policy before the executor took the batch, text after the tokens'
/// time, and the rest one after the other. What takes no time, as a policy in virtual time, is left
/// out.
fn phases(step: &StepRecord, events: &mut Events<'_>) -> Result<()> {
    let mut at = step.started_at;
    for (place, took) in times(&step.phases).into_iter().enumerate() {
        let Some(took) = took.filter(|took| !took.is_zero()) else { continue };
        let starts_at = match PHASES[place] {
            "schedule" => step.planned_at,
            "detokenise" => step.ended_at,
            _ => {
                let began = at;
                at = at + took;
                began
            }
        };
        events.slice(of_phase(place), PHASES[place], starts_at, took, Value::Null)?;
    }
    Ok(())
}

fn operators(step: &StepRecord, events: &mut Events<'_>) -> Result<()> {
    for span in &step.operators {
        let mut args = json!({ "step": step.index });
        if let Some(layer) = span.layer {
            args["layer"] = json!(layer);
        }
        let track = of_operator(span.operator);
        events.slice(track, span.operator.name(), span.started_at, span.took, args)?;
    }
    Ok(())
}

fn counters(step: &StepRecord, events: &mut Events<'_>) -> Result<()> {
    let at = step.started_at;
    count_work(at, sequences(step), tokens(step), events)?;
    events.count(ENGINE, "free", at, json!({ "blocks": step.blocks_free }))?;
    events.count(ENGINE, "queue", at, json!({ "requests": step.num_waiting }))
}

fn count_work(
    at: Timestamp,
    sequences: usize,
    [prefill, decode, recompute]: [u32; 3],
    events: &mut Events<'_>,
) -> Result<()> {
    events.count(ENGINE, "batch", at, json!({ "sequences": sequences }))?;
    let tokens = json!({ "prefill": prefill, "decode": decode, "recompute": recompute });
    events.count(ENGINE, "tokens", at, tokens)
}

fn sequences(step: &StepRecord) -> usize {
    step.work.chunk_by(|a, b| a.request == b.request).count()
}

/// Of prefill, decode and recomputation.
fn tokens(step: &StepRecord) -> [u32; 3] {
    [WorkKind::Prefill, WorkKind::Decode, WorkKind::Recompute].map(|kind| step.tokens_of(kind))
}

/// In the order of [`PHASES`].
fn times(phases: &Phases) -> [Option<Duration>; 7] {
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
