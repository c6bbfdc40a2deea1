use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timeline::Timeline;

/// Why a request has no value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It cannot apply, or not yet: the TPOT of a request of one token, the end of one still in
    /// progress or never sent.
    Inapplicable,
    /// The request failed, timed out or was withdrawn by its client: a violation of every limit.
    Failed,
}

/// The conventional metrics of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latencies {
    /// `q - a`: from the arrival to the first step that ran any of its tokens.
    pub scheduling_delay: Result<Duration, Absent>,
    /// `e_0 - a`: TTFT.
    pub ttft: Result<Duration, Absent>,
    /// `e_0 - q`.
    pub prefill_time: Result<Duration, Absent>,
    /// `(e_{n-1} - e_0) / (n - 1)`: TPOT, one value a request.
    pub tpot: Result<Duration, Absent>,
    /// `e_{n-1} - a`.
    pub end_to_end: Result<Duration, Absent>,
    /// End-to-end latency / n.
    pub normalized: Result<Duration, Absent>,
}

impl Latencies {
    /// Of a request.
    pub fn of(timeline: &Timeline) -> Self {
        let absent = if timeline.has_failed() { Absent::Failed } else { Absent::Inapplicable };
        let first = timeline.tokens_at.first().copied().ok_or(absent);
        let last = timeline.tokens_at.last().copied().ok_or(absent);
        let scheduled = timeline.first_scheduled_at.ok_or(absent);
        let n = u32::try_from(timeline.tokens_at.len()).unwrap_or(u32::MAX);
        let finished_at = if timeline.is_finished() { last } else { Err(absent) };
        let end_to_end = finished_at.map(|at| timeline.since_arrival(at));
        let decode = first.and_then(|first| last.map(|last| last - first));
        Self {
            scheduling_delay: scheduled.map(|at| timeline.since_arrival(at)),
            ttft: first.map(|at| timeline.since_arrival(at)),
            prefill_time: first.and_then(|first| scheduled.map(|at| first - at)),
            tpot: if n < 2 { Err(absent) } else { decode.map(|span| span / (n - 1)) },
            end_to_end,
            normalized: end_to_end.map(|span| span / n.max(1)),
        }
    }
}

/// TBTs above a stated limit. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stalls {
    /// How many.
    pub count: u64,
    /// All of them together.
    #[serde(with = "crate::seconds")]
    pub total: Duration,
    /// The longest.
    #[serde(with = "crate::seconds")]
    pub longest: Duration,
}

impl Stalls {
    /// Counts the TBTs of a request that are above `limit`.
    pub fn add(&mut self, inter_token_ns: &[u64], limit: Duration) {
        for gap in inter_token_ns.iter().skip(1).map(|ns| Duration::from_nanos(*ns)) {
            if gap > limit {
                self.count += 1;
                self.total = self.total.saturating_add(gap);
                self.longest = self.longest.max(gap);
            }
        }
    }
}
