use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::{Absent, Latencies};

/// What a limit bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Metric {
    Ttft,
    Tpot,
    E2el,
    FluidityIndex,
}

const METRICS: [(&str, Metric); 4] = [
    ("ttft", Metric::Ttft),
    ("tpot", Metric::Tpot),
    ("e2el", Metric::E2el),
    ("fluidity_index", Metric::FluidityIndex),
];

/// A bound on one request: at most so many milliseconds, or at least such a fluidity-index.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestLimit {
    metric: Metric,
    bound: f64,
}

/// The limits that a request has to meet to count as goodput.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestLimits(pub Vec<RequestLimit>);

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not of the form `KEY:VALUE`.
    #[error("`{0}` is not a limit: limits are KEY:VALUE, as in ttft:200 (milliseconds)")]
    NotALimit(String),
    /// No such metric.
    #[error(
        "`{key}` can't be limited{}; limits are on ttft, tpot, e2el (milliseconds) and \
         fluidity_index",
        nearest(key, METRICS.iter().map(|(name, _)| *name))
    )]
    UnknownMetric {
        /// What was given.
        key: String,
    },
    /// Not a number that can be.
    #[error("`{value}` is no limit for {key}: it must be {allowed}")]
    BadValue {
        /// The metric.
        key: String,
        /// What was given.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

/// The known name that is nearest to an unknown one, as a question behind it.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, name)| format!(" (did you mean `{name}`?)"))
}

impl FromStr for RequestLimit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let (key, value) =
            text.split_once(':').ok_or_else(|| LimitError::NotALimit(text.to_owned()))?;
        let metric = METRICS
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, metric)| *metric)
            .ok_or_else(|| LimitError::UnknownMetric { key: key.to_owned() })?;
        let (allowed, most) = match metric {
            Metric::FluidityIndex => ("a number from 0 to 1", 1.0),
            _ => ("a number of milliseconds, 0 or more", f64::MAX),
        };
        value
            .parse()
            .ok()
            .filter(|bound: &f64| (0.0..=most).contains(bound))
            .map(|bound| Self { metric, bound })
            .ok_or_else(|| LimitError::BadValue {
                key: key.to_owned(),
                value: value.to_owned(),
                allowed,
            })
    }
}

impl TryFrom<String> for RequestLimit {
    type Error = LimitError;

    fn try_from(text: String) -> Result<Self, LimitError> {
        text.parse()
    }
}

impl From<RequestLimit> for String {
    fn from(limit: RequestLimit) -> Self {
        limit.to_string()
    }
}

impl fmt::Display for RequestLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = METRICS.iter().find(|(_, metric)| *metric == self.metric);
        write!(f, "{}:{}", name.map_or("", |(name, _)| name), self.bound)
    }
}

impl RequestLimits {
    /// Whether a request meets every limit. One that failed meets none; a limit that cannot apply
    /// to it (the TPOT of a single token) is met.
    pub fn are_met(&self, latencies: &Latencies, fluidity_index: Option<f64>) -> bool {
        let within = |value: Result<Duration, Absent>, bound: f64| match value {
            Ok(value) => value.as_secs_f64() * 1e3 <= bound,
            Err(Absent::Inapplicable) => true,
            Err(Absent::Failed) => false,
        };
        latencies.end_to_end.is_ok()
            && self.0.iter().all(|limit| match limit.metric {
                Metric::Ttft => within(latencies.ttft, limit.bound),
                Metric::Tpot => within(latencies.tpot, limit.bound),
                Metric::E2el => within(latencies.end_to_end, limit.bound),
                Metric::FluidityIndex => fluidity_index.is_none_or(|index| index >= limit.bound),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = text.parse::<RequestLimit>().expect_err("it is no limit");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn bad_limits_say_what_is_allowed() {
        check("ttft", "`ttft` is not a limit: limits are KEY:VALUE, as in ttft:200 (milliseconds)");
        check(
            "ttfd:1",
            "`ttfd` can't be limited (did you mean `ttft`?); limits are on ttft, tpot, e2el \
             (milliseconds) and fluidity_index",
        );
        check(
            "tpot:-1",
            "`-1` is no limit for tpot: it must be a number of milliseconds, 0 or more",
        );
        check(
            "tpot:NaN",
            "`NaN` is no limit for tpot: it must be a number of milliseconds, 0 or more",
        );
        check(
            "fluidity_index:2",
            "`2` is no limit for fluidity_index: it must be a number from 0 to 1",
        );
    }

    #[test]
    fn a_failed_request_meets_no_limit_and_a_short_one_those_that_apply() {
        let limits = RequestLimits(vec!["tpot:50".parse().expect("a limit")]);
        let absent = |absent| Latencies {
            scheduling_delay: Ok(Duration::ZERO),
            ttft: Ok(Duration::ZERO),
            prefill_time: Ok(Duration::ZERO),
            tpot: Err(absent),
            end_to_end: if absent == Absent::Failed { Err(absent) } else { Ok(Duration::ZERO) },
            normalized: Err(absent),
        };
        assert!(!limits.are_met(&absent(Absent::Failed), None));
        assert!(limits.are_met(&absent(Absent::Inapplicable), None));
    }
}
