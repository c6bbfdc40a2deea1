use serde::{Deserialize, Serialize};

use crate::fluidity::{Deadlined, FluidityRule, fluidity};
use crate::percentile::{interpolated, order_statistic};

/// The fluidity-index that a stream has to reach.
const INDEX: f64 = 0.9;
/// The share of requests that have to reach it.
const SHARE: f64 = 0.99;

/// The greatest token rate at which 99 % of requests have a fluidity-index of at least 0.9 (arXiv
/// 2407.07000, section 4.2).
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

/// One request's stream, for the rate.
pub(crate) struct Stream<'a> {
    pub(crate) inter_token_ns: &'a [u64],
    /// `D_p`, held fixed.
    pub(crate) first_ns: u64,
    pub(crate) failed: bool,
}

/// `D*_d`: the least decode deadline, in nanoseconds, with which a stream's fluidity-index is at
/// least 0.9, `D_p` held fixed. Found exactly: the index never falls when the deadline grows.
/// `Ok(None)` if no deadline does; `Err` if the stream has no index.
pub fn least_decode_deadline(
    inter_token_ns: &[u64],
    first_ns: u64,
    rule: &FluidityRule,
) -> Result<Option<u64>, NoIndex> {
    let is_fluid = |next_ns: u64| {
        let index = fluidity(inter_token_ns, Deadlined { first_ns, next_ns }, rule).index();
        index.map(|index| index >= INDEX)
    };
    // With the greatest gap as deadline only the first token can be late, and it misses one.
    let greatest = inter_token_ns.iter().copied().max().unwrap_or(0).max(1);
    if !is_fluid(greatest).ok_or(NoIndex)? {
        return Ok(None);
    }
    let (mut below, mut least) = (0, greatest);
    while least - below > 1 {
        let middle = below + (least - below) / 2;
        if is_fluid(middle) == Some(true) { least = middle } else { below = middle }
    }
    Ok(Some(least))
}

/// A stream without any deadline has no fluidity-index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream without any deadline has no fluidity-index")]
pub struct NoIndex;

/// The fluid token generation rate of a system's requests.
pub(crate) fn fluid_rate_of<'a>(
    streams: impl Iterator<Item = Stream<'a>>,
    rule: &FluidityRule,
) -> FluidRate {
    let (mut deadlines, mut excluded) = (Vec::new(), 0);
    for stream in streams {
        if stream.failed {
            deadlines.push(None);
            continue;
        }
        match least_decode_deadline(stream.inter_token_ns, stream.first_ns, rule) {
            Ok(deadline) => deadlines.push(deadline),
            Err(NoIndex) => excluded += 1,
        }
    }
    let unattainable = deadlines.iter().filter(|deadline| deadline.is_none()).count();
    // None is infinite: behind every deadline.
    deadlines.sort_unstable_by_key(|deadline| deadline.unwrap_or(u64::MAX));
    let system = order_statistic(&deadlines, SHARE).flatten();
    FluidRate {
        tokens_per_second: system.map_or(0.0, |ns| 1e9 / ns as f64),
        requests: deadlines.len(),
        unattainable,
        excluded,
    }
}

/// The fluid token generation rate of streams, each its inter-token times and `D_p` in
/// nanoseconds; `None` for one that failed.
pub fn fluid_rate(streams: &[Option<(&[u64], u64)>], rule: &FluidityRule) -> FluidRate {
    let streams = streams.iter().map(|stream| match *stream {
        Some((inter_token_ns, first_ns)) => Stream { inter_token_ns, first_ns, failed: false },
        None => Stream { inter_token_ns: &[], first_ns: 0, failed: true },
    });
    fluid_rate_of(streams, rule)
}

/// The original tool's figure (`metric_utils.py`): first token ignored, `D_d` by bisection of
/// `[0, 1e10]` seconds to a width of 1e-4 with steps of `mid +- 1e-4`, and the interpolated 99th
/// percentile.
pub(crate) fn etalon_rate<'a>(streams: impl Iterator<Item = &'a [u64]>) -> f64 {
    let rule = FluidityRule {
        counting: crate::fluidity::CountingRule::Etalon,
        with_first_token: false,
        max_slack: None,
    };
    let mut deadlines: Vec<f64> = streams.map(|gaps| etalon_least_deadline(gaps, &rule)).collect();
    deadlines.sort_unstable_by(f64::total_cmp);
    interpolated(&deadlines, SHARE).map_or(0.0, |deadline| 1.0 / deadline)
}

fn etalon_least_deadline(gaps: &[u64], rule: &FluidityRule) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1e10);
    let mut least = high;
    while high - low > 1e-4 {
        let middle = f64::midpoint(low, high);
        #[expect(clippy::cast_sign_loss, reason = "a deadline between 0 and 1e10 seconds")]
        let next_ns = ((middle * 1e9) as u64).max(1);
        let result = fluidity(gaps, Deadlined { first_ns: 0, next_ns }, rule);
        if result.index().is_none_or(|index| index >= INDEX) {
            least = middle;
            high = middle - 1e-4;
        } else {
            low = middle + 1e-4;
        }
    }
    least
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exact results are what is tested")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DECODE: FluidityRule = FluidityRule {
        counting: crate::fluidity::CountingRule::Exact,
        with_first_token: false,
        max_slack: None,
    };

    #[test]
    fn a_steady_stream_has_its_own_rate() {
        let gaps = [2_000_000; 50];
        let rate = fluid_rate(&[Some((&gaps, 0))], &DECODE);
        assert_eq!(rate.tokens_per_second, 500.0);
    }

    #[test]
    fn a_first_token_too_late_is_unattainable() {
        let with_first = FluidityRule::default();
        // One miss of five deadlines: 0.8 at best.
        assert_eq!(least_decode_deadline(&[100, 1, 1, 1, 1], 10, &with_first), Ok(None));
        let rate = fluid_rate(&[Some((&[100, 1, 1, 1, 1], 10))], &with_first);
        assert_eq!((rate.tokens_per_second, rate.unattainable), (0.0, 1));
    }

    #[test]
    fn failed_requests_make_the_rate_unattainable_and_empty_ones_are_left_out() {
        let gaps = [2_000_000; 50];
        let rate = fluid_rate(&[Some((&gaps, 0)), None, Some((&[], 0))], &DECODE);
        assert_eq!((rate.requests, rate.unattainable, rate.excluded), (2, 1, 1));
        assert_eq!(rate.tokens_per_second, 0.0);
    }

    proptest! {
        #[test]
        fn the_deadline_is_the_least(gaps in proptest::collection::vec(0_u64..5000, 2..60)) {
            let Ok(Some(least)) = least_decode_deadline(&gaps, 0, &DECODE) else {
                return Err(TestCaseError::fail("without the first token some deadline does"));
            };
            let index = |next_ns| {
                fluidity(&gaps, Deadlined { first_ns: 0, next_ns }, &DECODE).index().unwrap_or(0.0)
            };
            prop_assert!(index(least) >= 0.9);
            prop_assert!(least == 1 || index(least - 1) < 0.9);
        }

        /// The original's steps of `mid +- 1e-4` may pass the least deadline by as much.
        #[test]
        fn the_original_is_within_its_own_granularity(
            gaps in proptest::collection::vec(1_000_000_u64..50_000_000, 2..60),
        ) {
            let exact = least_decode_deadline(&gaps, 0, &DECODE).ok().flatten().unwrap_or(0);
            let original = 1.0 / etalon_rate(std::iter::once(gaps.as_slice()));
            prop_assert!((original - exact as f64 / 1e9).abs() <= 3e-4, "{original} for {exact} ns");
        }
    }
}
