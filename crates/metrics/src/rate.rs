use serde::{Deserialize, Serialize};

use crate::fluidity::{Deadlined, FluidityRule, fluidity};
use crate::percentile::order_statistic;

/// The greatest token rate at which enough requests are fluid: 99 % of them with a fluidity-index
/// of at least 0.9, unless a [`RateTarget`] says otherwise (arXiv 2407.07000, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FluidRate {
    /// Tokens a second and request; 0 where no deadline makes enough of the requests fluid.
    pub tokens_per_second: f64,
    /// Requests that count.
    pub requests: usize,
    /// Of them: requests that no deadline makes fluid.
    pub unattainable: usize,
    /// Requests without a fluidity-index, left out.
    pub excluded: usize,
}

/// How fluid how many requests have to be, for the fluid token generation rate and for the share
/// of fluid requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateTarget {
    /// The fluidity-index that a stream has to reach.
    pub index: f64,
    /// The share of requests that have to reach it.
    pub share: f64,
}

impl Default for RateTarget {
    fn default() -> Self {
        Self { index: 0.9, share: 0.99 }
    }
}

/// One request, as the rate sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream<'a> {
    /// It got tokens.
    Served {
        /// `T_0 .. T_{n-1}`, in nanoseconds.
        inter_token_ns: &'a [u64],
        /// `D_p`, held fixed, in nanoseconds.
        first_ns: u64,
    },
    /// It failed, timed out or was cancelled: no deadline makes it fluid.
    Failed,
    /// It has no first deadline to be scored with, and is left out.
    Unscored,
}

/// `D*_d` of a stream that has a fluidity-index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeastDeadline {
    /// So long.
    Nanoseconds(u64),
    /// The first token is so late that no deadline of the others outweighs it.
    Infinite,
}

/// `D*_d`: the least decode deadline with which a stream's fluidity-index is at least `index`, `D_p`
/// held fixed. Found exactly: the index never falls when the deadline grows. `None` if the stream
/// has no index.
pub fn least_decode_deadline(
    inter_token_ns: &[u64],
    first_ns: u64,
    rule: &FluidityRule,
    index: f64,
) -> Option<LeastDeadline> {
    let is_fluid = |next_ns: u64| {
        let reached = fluidity(inter_token_ns, Deadlined { first_ns, next_ns }, rule).index();
        reached.map(|reached| reached >= index)
    };
    // With a deadline above every gap no later token is late, and a first one misses one deadline:
    // a longer one changes nothing.
    let longest = inter_token_ns.iter().copied().max().unwrap_or(0).saturating_add(1);
    if !is_fluid(longest)? {
        return Some(LeastDeadline::Infinite);
    }
    let (mut below, mut least) = (0, longest);
    while least - below > 1 {
        let middle = below + (least - below) / 2;
        if is_fluid(middle)? { least = middle } else { below = middle }
    }
    Some(LeastDeadline::Nanoseconds(least))
}

/// The fluid token generation rate of a system's requests: `1 / x`, where `x` is the
/// `ceil(share * R)`-th smallest of the R requests' least decode deadlines.
pub fn fluid_rate<'a>(
    streams: impl IntoIterator<Item = Stream<'a>>,
    rule: &FluidityRule,
    target: RateTarget,
) -> FluidRate {
    let (mut deadlines, mut excluded) = (Vec::new(), 0);
    for stream in streams {
        let least = match stream {
            Stream::Served { inter_token_ns, first_ns } => {
                least_decode_deadline(inter_token_ns, first_ns, rule, target.index)
            }
            Stream::Failed => Some(LeastDeadline::Infinite),
            Stream::Unscored => None,
        };
        match least {
            Some(least) => deadlines.push(least),
            None => excluded += 1,
        }
    }
    deadlines.sort_unstable();
    let attainable = deadlines.partition_point(|least| *least < LeastDeadline::Infinite);
    FluidRate {
        tokens_per_second: match order_statistic(&deadlines, target.share) {
            Some(LeastDeadline::Nanoseconds(ns)) => 1e9 / ns as f64,
            Some(LeastDeadline::Infinite) | None => 0.0,
        },
        requests: deadlines.len(),
        unattainable: deadlines.len() - attainable,
        excluded,
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rates of whole nanoseconds are exact")]
mod tests {
    use super::*;
    use crate::fluidity::CountingRule;
    use proptest::prelude::*;

    const WITH_FIRST: FluidityRule =
        FluidityRule { counting: CountingRule::Exact, with_first_token: true, max_slack: None };
    const DECODE: FluidityRule = FluidityRule { with_first_token: false, ..WITH_FIRST };

    fn served(inter_token_ns: &[u64], first_ns: u64) -> Stream<'_> {
        Stream::Served { inter_token_ns, first_ns }
    }

    fn rate<'a>(
        streams: impl IntoIterator<Item = Stream<'a>>,
        rule: &FluidityRule,
    ) -> (f64, usize, usize, usize) {
        let rate = fluid_rate(streams, rule, RateTarget::default());
        (rate.tokens_per_second, rate.requests, rate.unattainable, rate.excluded)
    }

    #[test]
    fn a_steady_stream_has_its_own_rate() {
        let gaps = [2_000_000; 50];
        assert_eq!(rate([served(&gaps, 0)], &DECODE), (500.0, 1, 0, 0));
    }

    #[test]
    fn a_first_token_too_late_is_unattainable() {
        // One miss of five deadlines: 0.8 at best.
        let late = [100, 1, 1, 1, 1];
        assert_eq!(
            least_decode_deadline(&late, 10, &WITH_FIRST, 0.9),
            Some(LeastDeadline::Infinite)
        );
        assert_eq!(rate([served(&late, 10)], &WITH_FIRST), (0.0, 1, 1, 0));
        assert_eq!(rate([served(&late, 10)], &DECODE), (1e9, 1, 0, 0));
    }

    #[test]
    fn a_late_first_token_is_outweighed_by_the_tenth_that_is_not() {
        // One miss of ten deadlines is 0.9, if D_d is so long that the first misses only one: from
        // 100 on by the exact rule, from 101 on by the papers'.
        let mut gaps = [1; 10];
        gaps[0] = 100;
        let least = |counting| {
            least_decode_deadline(&gaps, 0, &FluidityRule { counting, ..WITH_FIRST }, 0.9)
        };
        assert_eq!(least(CountingRule::Exact), Some(LeastDeadline::Nanoseconds(100)));
        assert_eq!(least(CountingRule::Paper), Some(LeastDeadline::Nanoseconds(101)));
    }

    #[test]
    fn failed_requests_are_infinite_and_those_without_an_index_are_left_out() {
        let gaps = [2_000_000; 50];
        let streams = [served(&gaps, 0), Stream::Failed, served(&[], 0), Stream::Unscored];
        assert_eq!(rate(streams, &DECODE), (0.0, 2, 1, 2));
        // One failure in a hundred leaves 99 % of the requests.
        let hundred = std::iter::repeat_n(served(&gaps, 0), 99).chain([Stream::Failed]);
        assert_eq!(rate(hundred, &DECODE), (500.0, 100, 1, 0));
    }

    #[test]
    fn no_request_is_no_rate() {
        assert_eq!(rate([], &DECODE), (0.0, 0, 0, 0));
    }

    #[test]
    fn the_target_is_a_parameter() {
        let streams: Vec<[u64; 3]> = (1..=10).map(|ms| [0, ms * 1_000_000, 0]).collect();
        let half = RateTarget { index: 1.0, share: 0.5 };
        let served = streams.iter().map(|gaps| served(gaps, 0));
        assert_eq!(fluid_rate(served, &DECODE, half).tokens_per_second, 200.0);
    }

    proptest! {
        #[test]
        fn the_deadline_is_the_least(
            gaps in proptest::collection::vec(0_u64..5000, 2..60),
            first_ns in 0_u64..5000,
            counting in prop::sample::select(
                vec![CountingRule::Exact, CountingRule::Paper, CountingRule::PerToken],
            ),
            with_first_token: bool,
        ) {
            let rule = FluidityRule { counting, with_first_token, max_slack: None };
            let index = |next_ns| {
                fluidity(&gaps, Deadlined { first_ns, next_ns }, &rule).index().unwrap_or(0.0)
            };
            match least_decode_deadline(&gaps, first_ns, &rule, 0.9) {
                Some(LeastDeadline::Nanoseconds(least)) => {
                    prop_assert!(index(least) >= 0.9);
                    prop_assert!(least == 1 || index(least - 1) < 0.9);
                }
                Some(LeastDeadline::Infinite) => prop_assert!(index(u64::MAX) < 0.9),
                None => prop_assert!(false, "two tokens have an index"),
            }
        }
    }
}
