//! Trace events of a run, for Perfetto's viewer and Chrome's.
//!
//! `scripts/check-perfetto` holds what is written here against what Perfetto's own trace processor
//! reads.

mod engine;
mod events;
mod requests;

use std::io::{Result, Write};

use metron_trace::Trace;
use serde_json::json;

use events::Events;

/// Writes a run as one JSON object in Chrome's "Trace Event Format": a track for whole steps and for
/// each phase, one for each operator where operators were timed, one for each request, and counters
/// of the batch, its tokens, the free blocks and the queue.
///
/// # Errors
/// Whatever the writer says.
pub fn write_perfetto(trace: &Trace, to: &mut dyn Write) -> Result<()> {
    let model = &trace.header.model.id;
    let policy = &trace.header.policy.label;
    write!(to, "{{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
    serde_json::to_writer(&mut *to, &json!({ "model": model, "policy": policy }))?;
    to.write_all(b",\"traceEvents\":[")?;
    let mut events = Events::new(to);
    engine::write(trace, &mut events)?;
    requests::write(trace, &mut events)?;
    to.write_all(b"\n]}\n")
}
