use std::time::Duration;

use metron_trace::{Deadlines, EndStatus, Request, RequestId, Timestamp, Trace};

use crate::fluidity::{Deadlined, Fluidity, FluidityRule, of_gaps};

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
    /// Whether it was cancelled because the run ended, and not by its client: then it was in progress.
    pub was_cut_off: bool,
}

impl Timeline {
    /// `T_0 .. T_{n-1}` in nanoseconds: the first token after the arrival, each later one after
    /// the one before.
    pub fn inter_token_ns(&self) -> Vec<u64> {
        self.gaps_ns().collect()
    }

    /// Deadlines met and missed: [`fluidity`](crate::fluidity) of its gaps.
    pub fn fluidity(&self, deadlines: Deadlined, rule: &FluidityRule) -> Fluidity {
        of_gaps(self.gaps_ns(), deadlines, rule)
    }

    fn gaps_ns(&self) -> impl Iterator<Item = u64> {
        let mut before = self.arrived_at;
        self.tokens_at.iter().map(move |at| {
            let gap = at.as_nanos().saturating_sub(before.as_nanos());
            before = *at;
            gap
        })
    }

    /// Whether it got all its tokens.
    pub fn is_finished(&self) -> bool {
        self.status == Some(EndStatus::Finished)
    }

    /// Whether it failed, timed out or was withdrawn by its client: a violation of every limit. A
    /// request that the run ended too early to send, or to serve to its end, has not failed.
    pub fn has_failed(&self) -> bool {
        match self.status {
            Some(EndStatus::Failed | EndStatus::TimedOut) => true,
            Some(EndStatus::Cancelled) => !self.was_cut_off,
            Some(EndStatus::Finished | EndStatus::Unsent) | None => false,
        }
    }

    /// Whether it came to no end of its own, because the run or its trace ended before.
    pub fn is_open(&self) -> bool {
        self.was_cut_off || matches!(self.status, Some(EndStatus::Unsent) | None)
    }

    /// Of a request of which nothing is known yet but that it arrived.
    fn arrived(request: &Request) -> Self {
        Self {
            request: request.id,
            class: request.class,
            arrived_at: request.arrived_at,
            first_scheduled_at: None,
            tokens_at: Vec::new(),
            prompt_tokens: request.prompt_tokens,
            deadlines: request.deadlines,
            status: None,
            was_cut_off: false,
        }
    }

    /// From its arrival to an instant.
    pub(crate) fn since_arrival(&self, at: Timestamp) -> Duration {
        at - self.arrived_at
    }
}

/// The timeline of every request of a trace, in order of arrival. Records of requests that the
/// trace does not have are left out.
pub fn timelines(trace: &Trace) -> Vec<Timeline> {
    let places = Places::new(&trace.requests);
    let mut timelines: Vec<Timeline> = trace.requests.iter().map(Timeline::arrived).collect();
    for step in &trace.steps {
        for place in step.work.iter().filter_map(|work| places.of(work.request)) {
            timelines[place].first_scheduled_at.get_or_insert(step.started_at);
        }
    }
    for token in &trace.tokens {
        if let Some(place) = places.of(token.request) {
            timelines[place].tokens_at.push(token.at);
        }
    }
    // Nobody but Ctrl-C cancels a request of the engine's; another tool's client may.
    let is_cut_off = |status| status == EndStatus::Cancelled && !trace.header.origin.is_imported();
    for end in &trace.ends {
        if let Some(place) = places.of(end.request) {
            timelines[place].status = Some(end.status);
            timelines[place].was_cut_off = is_cut_off(end.status);
        }
    }
    timelines
}

/// Where each request stands in a trace's list, by id.
pub(crate) struct Places(Vec<(RequestId, usize)>);

impl Places {
    pub(crate) fn new(requests: &[Request]) -> Self {
        let mut places: Vec<(RequestId, usize)> =
            requests.iter().enumerate().map(|(place, request)| (request.id, place)).collect();
        places.sort_unstable();
        Self(places)
    }

    pub(crate) fn of(&self, id: RequestId) -> Option<usize> {
        // Ids are dense unless the trace is damaged: the id is then its own index.
        let at = match self.0.get(id.index()) {
            Some((own, _)) if *own == id => id.index(),
            _ => self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?,
        };
        Some(self.0[at].1)
    }
}
