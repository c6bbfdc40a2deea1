//! The rate that no policy can exceed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use metron_engine::{CostModel, Submission};
use metron_metrics::{Bound, Bounded, CountingRule, Objective, Scoring};
use metron_trace::{Request, Work, WorkKind};

/// The stretches of a run that are looked at begin at no more than so many of its requests.
const MOST_WINDOWS: usize = 2048;

/// What clocks of whole nanoseconds round away of an arrival.
const ROUNDING: f64 = 1e-6;

/// The greatest arrival rate, in requests a second, at which any policy could keep the objectives of
/// `scoring` on these requests, which arrive at `rate`; `None` if there is no such rate, because
/// the objectives bound no time after the arrival.
///
/// `least` prices work: no step is faster than the sum of its parts' prices. Of any requests in
/// succession all but the violations that are allowed have to be served within their bounds, so
/// what the cheapest of them cost has to fit between the first one's arrival and the last of these
/// bounds; and the time between the arrivals shrinks as the rate grows. `classes` are the names of
/// the workload's classes.
pub fn greatest_rate(
    submissions: &[Submission],
    rate: f64,
    scoring: &Scoring,
    classes: &[String],
    least: &dyn CostModel,
) -> Option<f64> {
    let requests = submissions.iter().map(|own| &own.request).collect();
    let demands = Demands { requests, scoring, classes, least };
    scoring
        .objectives
        .iter()
        .flat_map(|objective| [demands.alone(objective), demands.with_pace(objective)])
        .filter_map(|demand| demand?.greatest_rate(rate))
        .min_by(f64::total_cmp)
}

/// What an objective asks of the requests that it is about.
struct Demand {
    /// Requests that may violate it.
    allowed: usize,
    /// The requests, in order of arrival.
    due: Vec<Due>,
}

/// One request's share of a demand.
#[derive(Debug, Clone, Copy)]
struct Due {
    /// Seconds.
    arrived_at: f64,
    /// The least time that its work takes.
    work: Duration,
    /// When the work has to be done: seconds after the arrival.
    within: f64,
}

impl Demand {
    /// The greatest rate at which the requests can be served that arrive between any two, given
    /// that they arrive at `rate`; `None` if any rate will do.
    fn greatest_rate(&self, rate: f64) -> Option<f64> {
        let every = self.due.len().div_ceil(MOST_WINDOWS).max(1);
        let starts = (0..self.due.len()).step_by(every);
        starts
            .filter_map(|start| self.greatest_rate_from(&self.due[start..], rate))
            .min_by(f64::total_cmp)
    }

    /// The same for the requests from one on.
    fn greatest_rate_from(&self, due: &[Due], rate: f64) -> Option<f64> {
        let first = due.first()?.arrived_at;
        let (mut work, mut within) = (Duration::ZERO, 0.0_f64);
        // The costliest requests so far, which may violate the objective; the least on top.
        let mut excused = BinaryHeap::new();
        let mut greatest: Option<f64> = None;
        for due in due {
            within = within.max(due.within);
            excused.push(Reverse(due.work));
            if excused.len() > self.allowed {
                work += excused.pop().map_or(Duration::ZERO, |Reverse(least)| least);
            }
            let beyond = work.as_secs_f64() - within;
            if beyond > 0.0 {
                let most = (due.arrived_at - first) * rate / beyond * (1.0 + ROUNDING);
                greatest = Some(greatest.map_or(most, |before| before.min(most)));
            }
        }
        greatest
    }
}

struct Demands<'a> {
    requests: Vec<&'a Request>,
    scoring: &'a Scoring,
    classes: &'a [String],
    least: &'a dyn CostModel,
}

impl<'a> Demands<'a> {
    /// What an objective asks by itself; `None` if it bounds no time after the arrival, or the
    /// output lengths are not known before the run.
    fn alone(&self, objective: &Objective) -> Option<Demand> {
        let requests = self.about(objective);
        let due = |request: &&Request| {
            let (work, within) = self.due(objective, request)?;
            Some(Due { arrived_at: request.arrived_at.as_secs_f64(), work, within })
        };
        Some(Demand {
            allowed: allowed(objective, requests.len()),
            due: requests.iter().map(due).collect::<Option<_>>()?,
        })
    }

    /// What an objective on the first token asks together with one on the pace of the others: they
    /// bound the last token's time, of all requests but those that may violate either.
    fn with_pace(&self, objective: &Objective) -> Option<Demand> {
        let is_pace = |other: &&Objective| {
            matches!(other.metric, Bounded::Tpot | Bounded::Tbt) && other.class == objective.class
        };
        let first = at_most(objective).filter(|_| objective.metric == Bounded::Ttft)?;
        let pace = self.scoring.objectives.iter().find(is_pace)?;
        let gap = at_most(pace)?;
        let requests = self.about(objective);
        let due = |request: &&Request| {
            let gaps = f64::from(request.output_tokens?.saturating_sub(1));
            Some(Due {
                arrived_at: request.arrived_at.as_secs_f64(),
                work: self.whole_work(request)?,
                within: first + gap * gaps,
            })
        };
        Some(Demand {
            allowed: allowed(objective, requests.len()) + allowed_of_pace(pace, &requests),
            due: requests.iter().map(due).collect::<Option<_>>()?,
        })
    }

    /// The requests of an objective's class.
    fn about(&self, objective: &Objective) -> Vec<&'a Request> {
        let is_about = |request: &&&Request| {
            objective.class.is_none() || objective.class.as_deref() == self.class_of(request)
        };
        self.requests.iter().filter(is_about).copied().collect()
    }

    fn class_of(&self, request: &Request) -> Option<&str> {
        self.classes.get(request.class as usize).map(String::as_str)
    }

    /// A request's work, and the seconds after its arrival within which it has to be done.
    fn due(&self, objective: &Objective, request: &Request) -> Option<(Duration, f64)> {
        match objective.metric {
            Bounded::Ttft => Some((self.prefill(request), at_most(objective)?)),
            Bounded::EndToEnd => Some((self.whole_work(request)?, at_most(objective)?)),
            Bounded::Normalized => {
                let tokens = f64::from(request.output_tokens?);
                Some((self.whole_work(request)?, at_most(objective)? * tokens))
            }
            Bounded::FluidityIndex => {
                Some((self.whole_work(request)?, self.last_fluid_token(objective, request)?))
            }
            Bounded::SchedulingDelay | Bounded::Tbt | Bounded::Tpot => None,
        }
    }

    /// How long after its arrival a request may end that reaches a fluidity-index. A token that
    /// misses `k` deadlines is late by at most `k D_d`, and slack only moves time from token to
    /// token: the last is at most `D_p + (n - 1 + missed) D_d` after the arrival, and an index of
    /// `f` with at most `n` deadlines met allows `n (1 - f) / f` missed.
    fn last_fluid_token(&self, objective: &Objective, request: &Request) -> Option<f64> {
        let Bound::AtLeast(index) = objective.bound else { return None };
        let rule = &self.scoring.fluidity;
        let misses_every_deadline =
            matches!(rule.counting, CountingRule::Exact | CountingRule::Paper);
        if !(misses_every_deadline && rule.with_first_token) {
            return None;
        }
        let class = self.class_of(request);
        let deadlines =
            self.scoring.deadlines_of(class, request.prompt_tokens, request.deadlines)?;
        let n = f64::from(request.output_tokens?);
        let missed = (n * (1.0 - index) / index + 1e-9).floor();
        let later = (n - 1.0 + missed) * deadlines.next_token.as_secs_f64();
        Some(deadlines.first_token.as_secs_f64() + later)
    }

    fn prefill(&self, request: &Request) -> Duration {
        self.price(&[prefill(request)])
    }

    /// The prefill, which gives the first token, and the decodes of the others; `None` if their
    /// number is not known before the run.
    fn whole_work(&self, request: &Request) -> Option<Duration> {
        let decodes = (0..request.output_tokens?.saturating_sub(1)).map(|before| Work {
            request: request.id,
            context: request.prompt_tokens + before,
            tokens: 1,
            kind: WorkKind::Decode,
        });
        let work: Vec<Work> = std::iter::once(prefill(request)).chain(decodes).collect();
        Some(self.price(&work))
    }

    /// The price of work. Each step that it may be put into may be rounded down by a nanosecond,
    /// and it is put into no more steps than it has tokens.
    fn price(&self, work: &[Work]) -> Duration {
        let tokens: u64 = work.iter().map(|work| u64::from(work.tokens)).sum();
        self.least.step_time(work).saturating_sub(Duration::from_nanos(tokens))
    }
}

fn prefill(request: &Request) -> Work {
    let tokens = request.prompt_tokens;
    Work { request: request.id, context: 0, tokens, kind: WorkKind::Prefill }
}

fn at_most(objective: &Objective) -> Option<f64> {
    match objective.bound {
        Bound::AtMost(span) => Some(span.as_secs_f64()),
        Bound::AtLeast(_) => None,
    }
}

/// How many of `n` may violate an objective.
fn allowed(objective: &Objective, n: usize) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "a share of a count, clamped from below")]
    let needed = (objective.share * n as f64 - 1e-9).ceil().max(0.0) as usize;
    n.saturating_sub(needed)
}

/// How many requests may violate an objective on the pace: of those on gaps, each that does has
/// at least one gap above it.
fn allowed_of_pace(pace: &Objective, requests: &[&Request]) -> usize {
    let gaps =
        requests.iter().map(|request| request.most_output_tokens().saturating_sub(1) as usize);
    match pace.metric {
        Bounded::Tbt => allowed(pace, gaps.sum()),
        _ => allowed(pace, gaps.filter(|gaps| *gaps > 0).count()),
    }
}
