//! Queues with known answers: one server, Poisson arrivals, a mean service time of 1.

use rand::Rng;
use rand_distr::{Distribution, Exp1};

/// How long a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Exponentially distributed: M/M/1.
    Exponential,
    /// Always 1: M/D/1.
    Constant,
}

/// A queue; times are in service times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// How long a request is served.
    pub(crate) service: Service,
    /// Arrivals in a service time.
    pub(crate) load: f64,
}

/// Response times (waiting and service) by Lindley's recursion: a request waits for what is left
/// of the work before it. Each item is the gap before a request and its service time.
pub(crate) fn lindley(requests: impl IntoIterator<Item = (f64, f64)>) -> Vec<f64> {
    let mut before = 0.0_f64;
    let respond = |(gap, service): (f64, f64)| {
        before = (before - gap).max(0.0) + service;
        before
    };
    requests.into_iter().map(respond).collect()
}

impl Queue {
    /// Its name in queueing theory.
    pub(crate) fn name(&self) -> &'static str {
        match self.service {
            Service::Exponential => "M/M/1",
            Service::Constant => "M/D/1",
        }
    }

    /// Requests as gap and service time, the queue being empty at first.
    pub(crate) fn requests(&self, rng: &mut impl Rng) -> impl Iterator<Item = (f64, f64)> {
        let Self { service, load } = *self;
        std::iter::repeat_with(move || {
            let gap: f64 = Exp1.sample(rng);
            let service = match service {
                Service::Exponential => Exp1.sample(rng),
                Service::Constant => 1.0,
            };
            (gap / load, service)
        })
    }

    /// The share of response times within a limit in the steady state. M/M/1: they are
    /// exponential. M/D/1: Erlang's series of the waiting time (1909), which Crommelin proved.
    pub(crate) fn share_within(&self, limit: f64) -> f64 {
        match self.service {
            Service::Exponential => -((self.load - 1.0) * limit).exp_m1(),
            Service::Constant => self.share_waiting_within(limit - 1.0),
        }
    }

    fn share_waiting_within(&self, limit: f64) -> f64 {
        if limit < 0.0 {
            return 0.0;
        }
        let term = |served: u32| {
            let left = self.load * (limit - f64::from(served));
            (1..=served).fold(left.exp(), |product, k| -product * left / f64::from(k))
        };
        let terms = (0_u32..).take_while(|served| f64::from(*served) <= limit);
        (1.0 - self.load) * terms.map(term).sum::<f64>()
    }

    /// The p-th percentile of the response time in the steady state, by bisection.
    pub(crate) fn percentile(&self, p: f64) -> f64 {
        // From below: the terms of Erlang's series cancel each other far out in the tail.
        let reaches = |limit: &f64| self.share_within(*limit) >= p;
        let mut above = (1_u32..1_000).map(f64::from).find(reaches).unwrap_or(f64::INFINITY);
        let mut below = above - 1.0;
        for _ in 0..100 {
            let middle = f64::midpoint(below, above);
            if self.share_within(middle) < p { below = middle } else { above = middle }
        }
        above
    }
}
