use std::io::{Result, Write};
use std::time::Duration;

use metron_trace::{RequestId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

/// A group of tracks, by its number; viewers call it a process.
#[derive(Clone, Copy)]
pub(super) struct Group(pub(super) u32);

/// A track of a group; viewers call it a thread. They sort by the number and show it behind the
/// name. A number that is also a group's would be taken for that process's main thread, and zero for
/// no number.
#[derive(Clone, Copy)]
pub(super) struct Track(pub(super) Group, pub(super) u32);

/// Events of one kind that nest by their id instead of by a track.
const CATEGORY: &str = "request";

/// One event; which fields it has depends on its phase.
#[derive(Default, Serialize)]
struct Event<'a> {
    name: &'a str,
    /// Complete (`X`), counter (`C`), metadata (`M`), or of a request: begin, end, instant (`b`, `e`,
    /// `n`).
    ph: &'static str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id2: Option<Local>,
    /// In microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

/// An id within a group.
#[derive(Serialize)]
struct Local {
    local: String,
}

/// Writes events, one a line.
pub(super) struct Events<'a> {
    to: &'a mut dyn Write,
    any: bool,
}

impl<'a> Events<'a> {
    pub(super) fn new(to: &'a mut dyn Write) -> Self {
        Self { to, any: false }
    }

    pub(super) fn name_group(&mut self, Group(pid): Group, name: &str) -> Result<()> {
        let args = json!({ "name": name });
        self.push(&Event { name: "process_name", ph: "M", pid, args, ..Event::default() })
    }

    pub(super) fn name_track(&mut self, Track(Group(pid), tid): Track, name: &str) -> Result<()> {
        let (tid, args) = (Some(tid), json!({ "name": name }));
        self.push(&Event { name: "thread_name", ph: "M", pid, tid, args, ..Event::default() })
    }

    /// Something that took a while.
    pub(super) fn slice(
        &mut self,
        Track(Group(pid), tid): Track,
        name: &str,
        at: Timestamp,
        took: Duration,
        args: Value,
    ) -> Result<()> {
        let (ts, dur) = (Some(microseconds(at)), Some(took.as_nanos() as f64 / 1e3));
        self.push(&Event { name, ph: "X", pid, tid: Some(tid), ts, dur, args, ..Event::default() })
    }

    /// New values of a group's counters; viewers name each by the name and its key.
    pub(super) fn count(
        &mut self,
        Group(pid): Group,
        name: &str,
        at: Timestamp,
        args: Value,
    ) -> Result<()> {
        let ts = Some(microseconds(at));
        self.push(&Event { name, ph: "C", pid, ts, args, ..Event::default() })
    }

    /// Of a request: something begins. The first name of a request names its track.
    pub(super) fn begin(
        &mut self,
        track: (Group, RequestId),
        name: &str,
        at: Timestamp,
        args: Value,
    ) -> Result<()> {
        self.of_request("b", track, name, at, args)
    }

    /// Of a request: what began last ends.
    pub(super) fn end(
        &mut self,
        track: (Group, RequestId),
        name: &str,
        at: Timestamp,
    ) -> Result<()> {
        self.of_request("e", track, name, at, Value::Null)
    }

    /// Of a request: something happens at once.
    pub(super) fn instant(
        &mut self,
        track: (Group, RequestId),
        name: &str,
        at: Timestamp,
        args: Value,
    ) -> Result<()> {
        self.of_request("n", track, name, at, args)
    }

    fn of_request(
        &mut self,
        ph: &'static str,
        (Group(pid), request): (Group, RequestId),
        name: &str,
        at: Timestamp,
        args: Value,
    ) -> Result<()> {
        let (ts, cat) = (Some(microseconds(at)), Some(CATEGORY));
        let id2 = Some(Local { local: request.0.to_string() });
        self.push(&Event { name, ph, pid, cat, id2, ts, args, ..Event::default() })
    }

    fn push(&mut self, event: &Event<'_>) -> Result<()> {
        self.to.write_all(if self.any { b",\n" } else { b"\n" })?;
        self.any = true;
        serde_json::to_writer(&mut *self.to, event).map_err(Into::into)
    }
}

fn microseconds(at: Timestamp) -> f64 {
    at.as_nanos() as f64 / 1e3
}
