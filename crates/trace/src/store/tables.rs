//! The tables: how rows become columns, and back.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;

use super::columns::{
    Columns, f32s, i32s, maybe_u32s, maybe_u64s, spans, times, u32s, u64s, words,
};
use crate::{
    Deadlines, EndStatus, Operator, OperatorSpan, Phases, Preemption, PreemptionCause, Request,
    RequestEnd, RequestId, Sampling, StepRecord, Token, Work, WorkKind,
};

/// A stored table. `Row` is what a record batch holds many of.
pub(super) trait Table: Sized {
    /// The file's name in the trace's directory.
    const FILE: &'static str;

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError>;

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError>;
}

/// A row that belongs to a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfStep<T> {
    pub(super) step: u64,
    pub(super) row: T,
}

impl Table for Request {
    const FILE: &'static str = "requests.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        let deadline = |of: fn(Deadlines) -> std::time::Duration| {
            rows.iter().map(move |r| r.deadlines.map(of))
        };
        RecordBatch::try_from_iter_with_nullable([
            required(u32s("request", rows.iter().map(|r| r.id.0))),
            required(times("arrived_at", rows.iter().map(|r| r.arrived_at))),
            required(u32s("prompt_tokens", rows.iter().map(|r| r.prompt_tokens))),
            optional(maybe_u32s("output_tokens", rows.iter().map(|r| r.output_tokens))),
            required(u32s("max_tokens", rows.iter().map(|r| r.max_tokens))),
            required(u32s("class", rows.iter().map(|r| r.class))),
            required(i32s("priority", rows.iter().map(|r| r.priority))),
            optional(spans("first_token_deadline", deadline(|d| d.first_token))),
            optional(spans("next_token_deadline", deadline(|d| d.next_token))),
            required(f32s("temperature", rows.iter().map(|r| r.sampling.temperature))),
            optional(maybe_u32s("top_k", rows.iter().map(|r| r.sampling.top_k))),
            required(f32s("top_p", rows.iter().map(|r| r.sampling.top_p))),
            required(u64s("sampling_seed", rows.iter().map(|r| r.sampling.seed))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let id = columns.u32s("request")?;
        let arrived_at = columns.times("arrived_at")?;
        let prompt_tokens = columns.u32s("prompt_tokens")?;
        let output_tokens = columns.maybe_u32s("output_tokens")?;
        let max_tokens = columns.u32s("max_tokens")?;
        let class = columns.u32s("class")?;
        let priority = columns.i32s("priority")?;
        let first_token = columns.spans("first_token_deadline")?;
        let next_token = columns.spans("next_token_deadline")?;
        let temperature = columns.f32s("temperature")?;
        let top_k = columns.maybe_u32s("top_k")?;
        let top_p = columns.f32s("top_p")?;
        let seed = columns.u64s("sampling_seed")?;
        Ok((0..batch.num_rows())
            .map(|row| Self {
                id: RequestId(id(row)),
                arrived_at: arrived_at(row),
                prompt_tokens: prompt_tokens(row),
                output_tokens: output_tokens(row),
                max_tokens: max_tokens(row),
                class: class(row),
                priority: priority(row),
                deadlines: first_token(row)
                    .zip(next_token(row))
                    .map(|(first_token, next_token)| Deadlines { first_token, next_token }),
                sampling: Sampling {
                    temperature: temperature(row),
                    top_k: top_k(row),
                    top_p: top_p(row),
                    seed: seed(row),
                },
            })
            .collect())
    }
}

/// A step without its work, preemptions and operators, which have tables of their own.
impl Table for StepRecord {
    const FILE: &'static str = "steps.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        let phase = |of: fn(&Phases) -> Option<std::time::Duration>| {
            rows.iter().map(move |s| of(&s.phases))
        };
        RecordBatch::try_from_iter_with_nullable([
            required(u64s("step", rows.iter().map(|s| s.index))),
            required(times("planned_at", rows.iter().map(|s| s.planned_at))),
            required(times("started_at", rows.iter().map(|s| s.started_at))),
            required(times("ended_at", rows.iter().map(|s| s.ended_at))),
            optional(spans("schedule", phase(|p| Some(p.schedule)))),
            optional(spans("prepare", phase(|p| p.prepare))),
            optional(spans("transfer", phase(|p| p.transfer))),
            optional(spans("forward", phase(|p| p.forward))),
            optional(spans("sample", phase(|p| p.sample))),
            optional(spans("transfer_back", phase(|p| p.transfer_back))),
            optional(spans("detokenise", phase(|p| p.detokenise))),
            required(u32s("blocks_used", rows.iter().map(|s| s.blocks_used))),
            required(u32s("blocks_free", rows.iter().map(|s| s.blocks_free))),
            required(u32s("num_waiting", rows.iter().map(|s| s.num_waiting))),
            required(u32s("num_running", rows.iter().map(|s| s.num_running))),
            optional(spans("predicted", rows.iter().map(|s| s.predicted))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let index = columns.u64s("step")?;
        let planned_at = columns.times("planned_at")?;
        let started_at = columns.times("started_at")?;
        let ended_at = columns.times("ended_at")?;
        let schedule = columns.spans("schedule")?;
        let prepare = columns.spans("prepare")?;
        let transfer = columns.spans("transfer")?;
        let forward = columns.spans("forward")?;
        let sample = columns.spans("sample")?;
        let transfer_back = columns.spans("transfer_back")?;
        let detokenise = columns.spans("detokenise")?;
        let blocks_used = columns.u32s("blocks_used")?;
        let blocks_free = columns.u32s("blocks_free")?;
        let num_waiting = columns.u32s("num_waiting")?;
        let num_running = columns.u32s("num_running")?;
        let predicted = columns.spans("predicted")?;
        Ok((0..batch.num_rows())
            .map(|row| Self {
                index: index(row),
                planned_at: planned_at(row),
                started_at: started_at(row),
                ended_at: ended_at(row),
                phases: Phases {
                    schedule: schedule(row).unwrap_or_default(),
                    prepare: prepare(row),
                    transfer: transfer(row),
                    forward: forward(row),
                    sample: sample(row),
                    transfer_back: transfer_back(row),
                    detokenise: detokenise(row),
                },
                work: Vec::new(),
                preemptions: Vec::new(),
                blocks_used: blocks_used(row),
                blocks_free: blocks_free(row),
                num_waiting: num_waiting(row),
                num_running: num_running(row),
                predicted: predicted(row),
                operators: Vec::new(),
            })
            .collect())
    }
}

impl Table for OfStep<Work> {
    const FILE: &'static str = "work.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter_with_nullable([
            required(u64s("step", rows.iter().map(|w| w.step))),
            required(u32s("request", rows.iter().map(|w| w.row.request.0))),
            required(u32s("context", rows.iter().map(|w| w.row.context))),
            required(u32s("tokens", rows.iter().map(|w| w.row.tokens))),
            required(words("kind", rows.iter().map(|w| work_kind(w.row.kind)))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let step = columns.u64s("step")?;
        let request = columns.u32s("request")?;
        let context = columns.u32s("context")?;
        let tokens = columns.u32s("tokens")?;
        let kind = columns.words("kind", |word| {
            [WorkKind::Prefill, WorkKind::Decode, WorkKind::Recompute]
                .into_iter()
                .find(|kind| work_kind(*kind) == word)
        })?;
        (0..batch.num_rows())
            .map(|row| {
                let work = Work {
                    request: RequestId(request(row)),
                    context: context(row),
                    tokens: tokens(row),
                    kind: kind(row)?,
                };
                Ok(Self { step: step(row), row: work })
            })
            .collect()
    }
}

impl Table for OfStep<OperatorSpan> {
    const FILE: &'static str = "operators.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter_with_nullable([
            required(u64s("step", rows.iter().map(|o| o.step))),
            required(words("operator", rows.iter().map(|o| o.row.operator.name()))),
            optional(maybe_u32s("layer", rows.iter().map(|o| o.row.layer))),
            required(times("started_at", rows.iter().map(|o| o.row.started_at))),
            optional(spans("took", rows.iter().map(|o| Some(o.row.took)))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let step = columns.u64s("step")?;
        let operator = columns.words("operator", |word| {
            Operator::ALL.into_iter().find(|operator| operator.name() == word)
        })?;
        let layer = columns.maybe_u32s("layer")?;
        let started_at = columns.times("started_at")?;
        let took = columns.spans("took")?;
        (0..batch.num_rows())
            .map(|row| {
                let span = OperatorSpan {
                    operator: operator(row)?,
                    layer: layer(row),
                    started_at: started_at(row),
                    took: took(row).unwrap_or_default(),
                };
                Ok(Self { step: step(row), row: span })
            })
            .collect()
    }
}

impl Table for OfStep<Preemption> {
    const FILE: &'static str = "preemptions.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter_with_nullable([
            required(u64s("step", rows.iter().map(|p| p.step))),
            required(u32s("request", rows.iter().map(|p| p.row.request.0))),
            required(words("cause", rows.iter().map(|p| preemption_cause(p.row.cause)))),
            required(u32s("tokens_lost", rows.iter().map(|p| p.row.tokens_lost))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let step = columns.u64s("step")?;
        let request = columns.u32s("request")?;
        let cause = columns.words("cause", |word| {
            [PreemptionCause::OutOfBlocks, PreemptionCause::Policy]
                .into_iter()
                .find(|cause| preemption_cause(*cause) == word)
        })?;
        let tokens_lost = columns.u32s("tokens_lost")?;
        (0..batch.num_rows())
            .map(|row| {
                let preemption = Preemption {
                    request: RequestId(request(row)),
                    cause: cause(row)?,
                    tokens_lost: tokens_lost(row),
                };
                Ok(Self { step: step(row), row: preemption })
            })
            .collect()
    }
}

impl Table for Token {
    const FILE: &'static str = "tokens.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter_with_nullable([
            required(u32s("request", rows.iter().map(|t| t.request.0))),
            required(u32s("index", rows.iter().map(|t| t.index))),
            optional(maybe_u64s("step", rows.iter().map(|t| t.step))),
            optional(maybe_u32s("id", rows.iter().map(|t| t.id))),
            required(times("at", rows.iter().map(|t| t.at))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let request = columns.u32s("request")?;
        let index = columns.u32s("index")?;
        let step = columns.maybe_u64s("step")?;
        let id = columns.maybe_u32s("id")?;
        let at = columns.times("at")?;
        Ok((0..batch.num_rows())
            .map(|row| Self {
                request: RequestId(request(row)),
                index: index(row),
                step: step(row),
                id: id(row),
                at: at(row),
            })
            .collect())
    }
}

impl Table for RequestEnd {
    const FILE: &'static str = "ends.arrows";

    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter_with_nullable([
            required(u32s("request", rows.iter().map(|e| e.request.0))),
            required(words("status", rows.iter().map(|e| end_status(e.status)))),
            required(times("ended_at", rows.iter().map(|e| e.ended_at))),
        ])
    }

    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, ArrowError> {
        let columns = Columns(batch);
        let request = columns.u32s("request")?;
        let status = columns.words("status", |word| {
            use EndStatus::{Cancelled, Failed, Finished, TimedOut, Unsent};
            [Finished, Failed, TimedOut, Cancelled, Unsent]
                .into_iter()
                .find(|status| end_status(*status) == word)
        })?;
        let ended_at = columns.times("ended_at")?;
        (0..batch.num_rows())
            .map(|row| {
                Ok(Self {
                    request: RequestId(request(row)),
                    status: status(row)?,
                    ended_at: ended_at(row),
                })
            })
            .collect()
    }
}

type Column = (&'static str, arrow_array::ArrayRef);

fn required((name, values): Column) -> (&'static str, arrow_array::ArrayRef, bool) {
    (name, values, false)
}

fn optional((name, values): Column) -> (&'static str, arrow_array::ArrayRef, bool) {
    (name, values, true)
}

fn work_kind(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Prefill => "prefill",
        WorkKind::Decode => "decode",
        WorkKind::Recompute => "recompute",
    }
}

fn preemption_cause(cause: PreemptionCause) -> &'static str {
    match cause {
        PreemptionCause::OutOfBlocks => "out_of_blocks",
        PreemptionCause::Policy => "policy",
    }
}

fn end_status(status: EndStatus) -> &'static str {
    match status {
        EndStatus::Finished => "finished",
        EndStatus::Failed => "failed",
        EndStatus::TimedOut => "timed_out",
        EndStatus::Cancelled => "cancelled",
        EndStatus::Unsent => "unsent",
    }
}
