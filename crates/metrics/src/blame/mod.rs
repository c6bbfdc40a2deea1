//! What made deadlines be missed: the lateness of each late token, divided among causes.
//!
//! `docs/blame.md` is the definition. A token's lateness is the delay that its request gathered
//! since its slack was last zero, against what its own work would have taken alone by the header's
//! calibration. Everything here is an estimate.

mod account;
mod cause;
mod isolated;
mod late;
mod shortage;
mod story;
mod waiting;

use metron_trace::{Header, RequestId, Trace};
use serde::{Deserialize, Serialize};

pub use cause::Cause;
pub use story::{Explanation, LatePart, LateToken, Scored, TokenTime, Where, explain};

use account::{Account, Sum};
use cause::ByCause;
use late::{LateWindow, late_windows};

use crate::due::{DueToken, due_tokens};
use crate::fluidity::{Deadlined, Fluidity, fluidity};
use crate::summary::Scoring;
use crate::timeline::{Timeline, timelines};

/// The lateness and the missed deadlines of one or many requests by cause: estimated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blame {
    /// Tokens that were late.
    pub late_tokens: u64,
    /// Their lateness together: the sum over the causes.
    pub lateness_ns: u64,
    /// Deadlines that they missed, as the fluidity-index counts them: the sum over the causes.
    pub missed: u64,
    /// Every cause, in the order of [`Cause::ALL`].
    pub causes: Vec<CauseShare>,
}

impl Blame {
    /// Deadlines missed for one cause.
    pub fn missed_for(&self, cause: Cause) -> u64 {
        self.causes.iter().filter(|own| own.cause == cause).map(|own| own.missed).sum()
    }
}

/// What one cause has of a [`Blame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CauseShare {
    /// The cause.
    pub cause: Cause,
    /// Nanoseconds of lateness.
    pub lateness_ns: u64,
    /// Missed deadlines, divided by largest remainder.
    pub missed: u64,
}

/// Divides the missed deadlines of these runs together among their causes. `None` where nothing
/// can be said: a trace without steps, without a calibration, or without requests that have
/// deadlines.
pub fn blame(traces: &[&Trace], scoring: &Scoring) -> Option<Blame> {
    let mut tally = Tally::default();
    let mut has_deadlines = false;
    for trace in traces {
        let account = Account::new(trace)?;
        for timeline in timelines(trace) {
            let Some(stream) = DueStream::of(&timeline, &trace.header, scoring) else { continue };
            has_deadlines = true;
            tally.add_stream(&stream, &account, scoring);
        }
    }
    has_deadlines.then(|| tally.blame())
}

/// The request that missed the most deadlines, the first of equals, and how many; `None` if none
/// was missed.
pub fn most_missed(trace: &Trace, scoring: &Scoring) -> Option<(RequestId, u64)> {
    let missed = |timeline: Timeline| {
        let missed = DueStream::of(&timeline, &trace.header, scoring)?.fluidity.missed;
        (missed > 0).then_some((timeline.request, missed))
    };
    let requests = timelines(trace).into_iter().rev().filter_map(missed);
    requests.max_by_key(|(_, missed)| *missed)
}

/// A request's tokens against their deadlines.
struct DueStream<'a> {
    timeline: &'a Timeline,
    deadlines: Deadlined,
    fluidity: Fluidity,
    tokens: Vec<DueToken>,
}

impl<'a> DueStream<'a> {
    /// `None` for a request without deadlines.
    fn of(timeline: &'a Timeline, header: &Header, scoring: &Scoring) -> Option<Self> {
        let deadlines = scoring.deadlines_in(header, timeline)?;
        let gaps = timeline.inter_token_ns();
        Some(Self {
            timeline,
            deadlines,
            fluidity: fluidity(&gaps, deadlines, &scoring.fluidity),
            tokens: due_tokens(&gaps, deadlines, &scoring.fluidity),
        })
    }

    /// The ends of a window of the stream, in nanoseconds of the run.
    fn instants(&self, window: &LateWindow) -> [u64; 2] {
        let arrived_at = self.timeline.arrived_at.as_nanos();
        [window.from, window.ready].map(|after| arrived_at.saturating_add(after))
    }
}

/// One late token's lateness by cause.
struct Division {
    window: LateWindow,
    /// What the window was made of.
    sum: Sum,
    /// The lateness by cause: it adds up to the window's.
    lateness: ByCause<u64>,
}

impl Division {
    /// What the work alone takes beyond what is allowed is the model's; all else is divided in
    /// proportion to the delays of the window.
    fn of(window: LateWindow, sum: Sum) -> Self {
        let late_ns = window.late_ns();
        let too_slow = sum.alone_ns.saturating_sub(window.allowed_ns()).min(late_ns);
        let mut lateness = sum.delays.divide(late_ns - too_slow);
        lateness.add(Cause::Model, too_slow);
        Self { window, sum, lateness }
    }
}

/// Blame in the making.
#[derive(Default)]
struct Tally {
    late_tokens: u64,
    missed: u64,
    lateness: ByCause<u64>,
    deadlines: ByCause<u128>,
}

impl Tally {
    fn add_stream(&mut self, stream: &DueStream<'_>, account: &Account<'_>, scoring: &Scoring) {
        self.missed = self.missed.saturating_add(stream.fluidity.missed);
        let request = stream.timeline.request;
        for window in late_windows(&stream.tokens, &scoring.fluidity) {
            let [from, to] = stream.instants(&window);
            let division = Division::of(window, account.sum(request, from, to));
            self.add(&division, stream.deadlines, scoring);
        }
    }

    fn add(&mut self, division: &Division, deadlines: Deadlined, scoring: &Scoring) {
        let Division { window, lateness, .. } = division;
        let missed = window.missed(deadlines, scoring.fluidity.counting);
        self.late_tokens += 1;
        self.lateness.add_all(lateness);
        self.deadlines.add_missed(missed, lateness, window.late_ns());
    }

    fn blame(&self) -> Blame {
        let missed = self.deadlines.divide(self.missed);
        let share =
            |(cause, lateness_ns)| CauseShare { cause, lateness_ns, missed: missed.of(cause) };
        let causes: Vec<CauseShare> = self.lateness.iter().map(share).collect();
        Blame {
            late_tokens: self.late_tokens,
            lateness_ns: causes.iter().map(|own| own.lateness_ns).fold(0, u64::saturating_add),
            missed: self.missed,
            causes,
        }
    }
}
