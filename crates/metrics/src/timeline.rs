use std::time::Duration;

use metron_trace::{Deadlines, EndStatus, RequestId, Timestamp, Trace};

/// One request as its user saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The request.
    pub request: RequestId,
    /// Its class.
    pub class: u32,
    /// `a`: the intended arrival.
    pub arrived_at: Timestamp,
    /// `q`: the start of the first step that ran any of its tokens.
    pub first_scheduled_at: Option<Timestamp>,
    /// `e_0 .. e_{n-1}`: when each output token was ready.
    pub tokens_at: Vec<Timestamp>,
    /// `P`.
    pub prompt_tokens: u32,
    /// Deadlines in force during the run.
    pub deadlines: Option<Deadlines>,
    /// How it ended; `None` if it was in progress when the trace ended.
    pub status: Option<EndStatus>,
}

impl Timeline {
    /// `T_0 .. T_{n-1}` in nanoseconds: the first token after the arrival, each later one after
    /// the one before.
    pub fn inter_token_ns(&self) -> Vec<u64> {
        let mut before = self.arrived_at;
        self.tokens_at
            .iter()
            .map(|at| {
                let gap = at.as_nanos().saturating_sub(before.as_nanos());
                before = *at;
                gap
            })
            .collect()
    }

    /// Whether it got all its tokens.
    pub fn is_finished(&self) -> bool {
        self.status == Some(EndStatus::Finished)
    }

    /// Whether it ended without all its tokens: a violation of every limit.
    pub fn has_failed(&self) -> bool {
        self.status.is_some_and(|status| status != EndStatus::Finished)
    }

    /// From its arrival to an instant.
    pub(crate) fn since_arrival(&self, at: Timestamp) -> Duration {
        at - self.arrived_at
    }
}

/// The timeline of every request of a trace, in order of arrival.
pub fn timelines(trace: &Trace) -> Vec<Timeline> {
    let slots = trace.requests.iter().map(|r| r.id.index() + 1).max().unwrap_or(0);
    let mut place = vec![None; slots];
    let mut timelines: Vec<Timeline> = Vec::with_capacity(trace.requests.len());
    for request in &trace.requests {
        place[request.id.index()] = Some(timelines.len());
        timelines.push(Timeline {
            request: request.id,
            class: request.class,
            arrived_at: request.arrived_at,
            first_scheduled_at: None,
            tokens_at: Vec::new(),
            prompt_tokens: request.prompt_tokens,
            deadlines: request.deadlines,
            status: None,
        });
    }
    let at = |id: RequestId| place.get(id.index()).copied().flatten();
    for step in &trace.steps {
        for at in step.work.iter().filter_map(|work| at(work.request)) {
            timelines[at].first_scheduled_at.get_or_insert(step.started_at);
        }
    }
    for token in &trace.tokens {
        if let Some(at) = at(token.request) {
            timelines[at].tokens_at.push(token.at);
        }
    }
    for end in &trace.ends {
        if let Some(at) = at(end.request) {
            timelines[at].status = Some(end.status);
        }
    }
    timelines
}
