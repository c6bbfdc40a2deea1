//! `AIPerf`'s `profile_export.jsonl`: a record a line, each metric a value with its unit
//! (ai-dynamo/aiperf, `docs/tutorials/working-with-profile-exports.md`).

use serde_json::{Map, Value};

use super::build::{Foreign, ForeignRequest};
use super::fields::{Field, Object};
use super::{ImportError, ImportNote, Imported, Tool};
use crate::{EndStatus, Timestamp};

const HINT: &str = "each line is a record of AIPerf's profile_export.jsonl";
const STREAMING: &str = "AIPerf writes it with --streaming";

pub(super) fn import(text: &str) -> Result<Imported, ImportError> {
    let (mut requests, mut warm_up) = (Vec::new(), 0);
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("line {number}: ");
        let record = Object::parse(line, &place)?;
        let metadata = record.required("metadata", HINT)?.object()?;
        let phase = metadata.optional("benchmark_phase").map(|phase| phase.text()).transpose()?;
        if phase == Some("warmup") {
            warm_up += 1;
            continue;
        }
        requests.push(request(&record, &metadata, &place)?);
    }
    let (label, model, says) = (None, None, Map::new());
    let foreign = Foreign { tool: Tool::Aiperf, label, model, says, requests };
    let mut imported = foreign.into_trace()?;
    if warm_up > 0 {
        imported.notes.push(ImportNote::WarmUp { records: warm_up });
    }
    Ok(imported)
}

fn request(record: &Object, metadata: &Object, place: &str) -> Result<ForeignRequest, ImportError> {
    let sent_at = metadata.required("request_start_ns", HINT)?.nanos()?;
    let status = status(record, metadata);
    let metrics = match record.optional("metrics") {
        // A failed record may have none.
        None if status != EndStatus::Finished => Object::default(),
        _ => record.required("metrics", HINT)?.object()?,
    };
    let count = |name| metric(&metrics, name)?.map(|metric| metric.value()?.count()).transpose();
    let inter_token_s = times(&metrics)?;
    let (prompt_tokens, output_tokens) = if status == EndStatus::Finished {
        let needed = |name| count(name)?.ok_or_else(|| metrics.missing(name, HINT));
        (needed("input_sequence_length")?, needed("output_sequence_length")?)
    } else {
        // A record of an error has no lengths but, in some versions, the prompt's.
        let prompt = count("input_sequence_length")?.or(count("error_isl")?);
        (prompt.unwrap_or(0), count("output_sequence_length")?.unwrap_or(0))
    };
    if status == EndStatus::Finished && output_tokens > 0 {
        check_times(&metrics, &inter_token_s, place, output_tokens)?;
    }
    let sent_at = Some(Timestamp::from_nanos(sent_at));
    Ok(ForeignRequest { sent_at, prompt_tokens, output_tokens, inter_token_s, status })
}

/// Of each chunk; none where the first is not known.
fn times(metrics: &Object) -> Result<Vec<f64>, ImportError> {
    let Some(first) = metric(metrics, "time_to_first_token")? else { return Ok(Vec::new()) };
    let mut times = vec![first.value()?.time(first.unit_s()?)?];
    if let Some(later) = metric(metrics, "inter_chunk_latency")? {
        times.extend(later.value()?.times(later.unit_s()?)?);
    }
    Ok(times)
}

fn status(record: &Object, metadata: &Object) -> EndStatus {
    let was_cancelled = metadata.optional("was_cancelled");
    match record.optional("error") {
        _ if was_cancelled.is_some_and(|was| *was.value == Value::Bool(true)) => {
            EndStatus::Cancelled
        }
        Some(_) => EndStatus::Failed,
        None => EndStatus::Finished,
    }
}

/// Refuses a request of whose tokens the times are not known. One chunk has no gaps.
fn check_times(
    metrics: &Object,
    inter_token_s: &[f64],
    place: &str,
    output_tokens: u32,
) -> Result<(), ImportError> {
    let Some(first) = inter_token_s.first() else {
        let request = format!("{place}the request");
        return Err(ImportError::NoTimes { request, output_tokens });
    };
    let latency = metric(metrics, "request_latency")?;
    let latency = latency.map(|latency| latency.value()?.time(latency.unit_s()?)).transpose()?;
    if inter_token_s.len() == 1 && output_tokens > 1 && latency.is_some_and(|all| all > *first) {
        return Err(metrics.missing("inter_chunk_latency", STREAMING));
    }
    Ok(())
}

/// A metric: an object of a value and its unit.
struct Metric(Object);

fn metric(metrics: &Object, name: &str) -> Result<Option<Metric>, ImportError> {
    metrics.optional(name).map(|metric| Ok(Metric(metric.object()?))).transpose()
}

impl Metric {
    fn value(&self) -> Result<Field<'_>, ImportError> {
        self.0.required("value", HINT)
    }

    /// Its unit, in seconds.
    fn unit_s(&self) -> Result<f64, ImportError> {
        let unit = self.0.required("unit", HINT)?;
        match unit.text()? {
            "ns" => Ok(1e-9),
            "us" => Ok(1e-6),
            "ms" => Ok(1e-3),
            "s" | "sec" => Ok(1.0),
            _ => Err(unit.wrong("ns, us, ms or s")),
        }
    }
}
