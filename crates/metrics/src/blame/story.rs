use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use metron_trace::{EndStatus, RequestId, StepRecord, Timestamp, Token, Trace, Work, WorkKind};
use serde::{Deserialize, Serialize};

use super::account::{Account, Stretch, Sum};
use super::late::{LateWindow, late_windows};
use super::{Blame, Cause, Division, DueStream, Tally};
use crate::fluidity::Fluidity;
use crate::summary::Scoring;
use crate::timeline::{Timeline, timelines};

/// One request's story: when its tokens came, which were late, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The request.
    pub request: RequestId,
    /// When it arrived.
    #[serde(rename = "arrived_at_ns")]
    pub arrived_at: Timestamp,
    /// When its first step started.
    #[serde(rename = "first_scheduled_at_ns")]
    pub first_scheduled_at: Option<Timestamp>,
    /// Length of its prompt.
    pub prompt_tokens: u32,
    /// How it ended; `None` if it was in progress when the trace ended.
    pub status: Option<EndStatus>,
    /// Its tokens, in order.
    pub tokens: Vec<TokenTime>,
    /// `D_p` and `D_d` in nanoseconds, and what was met and missed; `None` without deadlines.
    pub scored: Option<Scored>,
    /// The late tokens, in order.
    pub late: Vec<LateToken>,
    /// The missed deadlines by cause, estimated; `None` for a trace without steps or calibration.
    pub estimated_blame: Option<Blame>,
}

/// One token of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTime {
    /// When it was ready.
    #[serde(rename = "ready_at_ns")]
    pub ready_at: Timestamp,
    /// When it was due; `None` without a deadline.
    #[serde(rename = "due_at_ns")]
    pub due_at: Option<Timestamp>,
    /// The step that made it; `None` in a trace without steps.
    pub step: Option<u64>,
}

/// A stream against its deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// `D_p`.
    pub first_token_ns: u64,
    /// `D_d`.
    pub next_token_ns: u64,
    /// Deadlines met and missed.
    pub fluidity: Fluidity,
}

/// A late token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateToken {
    /// Its place in the output, from 0.
    pub token: u32,
    /// When it was ready.
    #[serde(rename = "ready_at_ns")]
    pub ready_at: Timestamp,
    /// The step that made it.
    pub step: Option<u64>,
    /// How late it was: the sum over the parts, where there are any.
    pub late_ns: u64,
    /// The last token before it that left no slack, since when its delays count; `None`: they count
    /// since the arrival.
    pub after: Option<u32>,
    /// How long that was.
    pub window_ns: u64,
    /// What the deadlines of that time allow.
    pub allowed_ns: u64,
    /// What the request's own work of that time would take alone, by the calibration.
    pub alone_ns: Option<u64>,
    /// The lateness by cause, the largest first: estimated.
    pub parts: Vec<LatePart>,
}

/// What one cause has of a token's lateness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatePart {
    /// The cause.
    pub cause: Cause,
    /// Nanoseconds of the lateness.
    pub lateness_ns: u64,
    /// The delay itself, of which early tokens may have made up a part.
    pub delay_ns: u64,
    /// Where it happened; `None` if nothing ran then, or for the model alone.
    pub place: Option<Where>,
}

/// The steps in which a delay happened, and who was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Where {
    /// How many steps.
    pub steps: u32,
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The step with the most of the delay.
    pub longest: u64,
    /// How much.
    pub longest_ns: u64,
    /// Whose work of the causing kind ran, with its tokens, the most first. In the longest step:
    /// prefills for [`Cause::Prefill`], recomputation (also the request's own), decodes for
    /// [`Cause::BatchGrowth`]. In all of the steps: whatever ran of others while the request waited,
    /// for [`Cause::Queue`] and [`Cause::Blocks`].
    pub ran: Vec<(RequestId, u32)>,
}

/// Tells the story of one request; `None` if the trace does not have it.
pub fn explain(trace: &Trace, request: RequestId, scoring: &Scoring) -> Option<Explanation> {
    let timeline = timelines(trace).into_iter().find(|own| own.request == request)?;
    let stream = DueStream::of(&timeline, &trace.header, scoring);
    let account = Account::new(trace);
    let tokens = token_times(trace, &timeline, stream.as_ref());
    let mut tally = Tally::default();
    let mut late = Vec::new();
    if let Some(stream) = &stream {
        tally.missed = stream.fluidity.missed;
        for window in late_windows(&stream.tokens, &scoring.fluidity) {
            let divided = account.as_ref().map(|account| Divided::of(window, stream, account));
            if let Some(divided) = &divided {
                tally.add(&divided.division, stream.deadlines, scoring);
            }
            let token = &tokens[window.token];
            late.push(late_token(&window, token, divided.as_ref(), trace, request));
        }
    }
    Some(Explanation {
        request,
        arrived_at: timeline.arrived_at,
        first_scheduled_at: timeline.first_scheduled_at,
        prompt_tokens: timeline.prompt_tokens,
        status: timeline.status,
        tokens,
        scored: stream.as_ref().map(|stream| Scored {
            first_token_ns: stream.deadlines.first_ns,
            next_token_ns: stream.deadlines.next_ns,
            fluidity: stream.fluidity,
        }),
        late,
        estimated_blame: account.and(stream.as_ref()).map(|_| tally.blame()),
    })
}

/// A late token's lateness by cause, with where each delay was.
struct Divided {
    division: Division,
    stretches: Vec<Stretch>,
}

impl Divided {
    fn of(window: LateWindow, stream: &DueStream<'_>, account: &Account<'_>) -> Self {
        let [from, to] = stream.instants(&window);
        let stretches = account.stretches(stream.timeline.request, from, to);
        let mut sum = Sum::default();
        sum.add_all(&stretches);
        Self { division: Division::of(window, sum), stretches }
    }
}

fn token_times(
    trace: &Trace,
    timeline: &Timeline,
    stream: Option<&DueStream<'_>>,
) -> Vec<TokenTime> {
    let own = trace.tokens.iter().filter(|token| token.request == timeline.request);
    let time = |(at, token): (usize, &Token)| {
        let due = stream.and_then(|stream| stream.tokens[at].due);
        let due_at = due.map(|due| timeline.arrived_at + Duration::from_nanos(due));
        TokenTime { ready_at: token.at, due_at, step: token.step }
    };
    own.enumerate().map(time).collect()
}

fn late_token(
    window: &LateWindow,
    token: &TokenTime,
    divided: Option<&Divided>,
    trace: &Trace,
    request: RequestId,
) -> LateToken {
    let parts = divided.map(|divided| parts(divided, trace, request));
    LateToken {
        token: window.token as u32,
        ready_at: token.ready_at,
        step: token.step,
        late_ns: window.late_ns(),
        after: window.after.map(|token| token as u32),
        window_ns: window.ready - window.from,
        allowed_ns: window.allowed_ns(),
        alone_ns: divided.map(|divided| divided.division.sum.alone_ns),
        parts: parts.unwrap_or_default(),
    }
}

fn parts(divided: &Divided, trace: &Trace, request: RequestId) -> Vec<LatePart> {
    let Divided { division, stretches } = divided;
    let with_lateness = division.lateness.iter().filter(|(_, ns)| *ns > 0);
    let mut parts: Vec<LatePart> = with_lateness
        .map(|(cause, lateness_ns)| LatePart {
            cause,
            lateness_ns,
            delay_ns: match cause {
                Cause::Model => division.sum.alone_ns,
                _ => division.sum.delays.of(cause),
            },
            place: place(cause, stretches, trace, request),
        })
        .collect();
    parts.sort_by_key(|part| (Reverse(part.lateness_ns), part.cause));
    parts
}

/// The steps in which a cause delayed the request; `None` if there are none.
fn place(cause: Cause, stretches: &[Stretch], trace: &Trace, request: RequestId) -> Option<Where> {
    let delays = stretches.iter().filter_map(|stretch| {
        let step = &trace.steps[stretch.step?];
        Some((step, stretch.delays.of(cause))).filter(|(_, ns)| *ns > 0)
    });
    let steps: Vec<(&StepRecord, u64)> = delays.collect();
    let (longest, longest_ns) = *steps.iter().rev().max_by_key(|(_, ns)| *ns)?;
    Some(Where {
        steps: steps.len() as u32,
        first: steps.first()?.0.index,
        last: steps.last()?.0.index,
        longest: longest.index,
        longest_ns,
        ran: match cause {
            Cause::Queue | Cause::Blocks => {
                ran(cause, steps.iter().map(|(step, _)| *step), request)
            }
            _ => ran(cause, [longest], request),
        },
    })
}

/// Whose work of a cause's kind ran in these steps, the most tokens first.
fn ran<'a>(
    cause: Cause,
    steps: impl IntoIterator<Item = &'a StepRecord>,
    request: RequestId,
) -> Vec<(RequestId, u32)> {
    let counts = |work: &&Work| match cause {
        Cause::Recomputation => work.kind == WorkKind::Recompute,
        Cause::Prefill => work.kind == WorkKind::Prefill && work.request != request,
        Cause::BatchGrowth => work.kind == WorkKind::Decode && work.request != request,
        Cause::Queue | Cause::Blocks => work.request != request,
        Cause::Scheduler | Cause::Engine | Cause::Model | Cause::Unexplained => false,
    };
    let mut tokens: BTreeMap<RequestId, u32> = BTreeMap::new();
    for work in steps.into_iter().flat_map(|step| &step.work).filter(counts) {
        let own = tokens.entry(work.request).or_default();
        *own = own.saturating_add(work.tokens);
    }
    let mut ran: Vec<(RequestId, u32)> = tokens.into_iter().collect();
    ran.sort_by_key(|(request, tokens)| (Reverse(*tokens), *request));
    ran
}
