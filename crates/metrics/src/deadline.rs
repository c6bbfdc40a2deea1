use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use metron_trace::{Deadlines, PrefillCurve};
use serde::{Deserialize, Serialize};

/// When tokens are due: `D_p` and `D_d` of each request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlineRule {
    /// The first token's.
    pub first_token: FirstTokenRule,
    /// Each later token's; absent: what was in force during the run.
    #[serde(default, with = "optional_deadline", skip_serializing_if = "Option::is_none")]
    pub next_token: Option<Duration>,
}

impl DeadlineRule {
    /// What was in force during the run.
    pub const RECORDED: Self = Self { first_token: FirstTokenRule::Recorded, next_token: None };

    /// The deadlines of a request with a prompt of `prompt_tokens`, for which `recorded` were in
    /// force during the run. `None` if the rule leaves one of them to the run and the run had
    /// none, or to a prediction and there is no curve.
    pub fn of(
        &self,
        prompt_tokens: u32,
        recorded: Option<Deadlines>,
        curve: Option<&PrefillCurve>,
    ) -> Option<Deadlines> {
        let predicted = || curve.map(|curve| curve.predict(prompt_tokens));
        let first_token = match self.first_token {
            FirstTokenRule::Recorded => recorded?.first_token,
            FirstTokenRule::Fixed(deadline) => deadline,
            FirstTokenRule::PredictedPlus(slack) => predicted()?.saturating_add(slack),
            FirstTokenRule::PredictedTimes(factor) => times(predicted()?, factor),
        };
        let next_token = match self.next_token {
            Some(deadline) => deadline,
            None => recorded?.next_token,
        };
        Some(Deadlines { first_token, next_token })
    }

    /// Whether it leaves a deadline to what was in force during the run.
    pub fn needs_recorded(&self) -> bool {
        self.first_token == FirstTokenRule::Recorded || self.next_token.is_none()
    }

    /// Whether it needs a prefill curve.
    pub fn needs_curve(&self) -> bool {
        let rule = self.first_token;
        matches!(rule, FirstTokenRule::PredictedPlus(_) | FirstTokenRule::PredictedTimes(_))
    }
}

/// Deadlines of a class of requests; what is absent is that of all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassDeadlines {
    /// The first token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token: Option<FirstTokenRule>,
    /// Each later token's.
    #[serde(default, with = "optional_deadline", skip_serializing_if = "Option::is_none")]
    pub next_token: Option<Duration>,
}

impl ClassDeadlines {
    /// The class's own deadlines before those of all.
    pub fn before(&self, all: &DeadlineRule) -> DeadlineRule {
        DeadlineRule {
            first_token: self.first_token.unwrap_or(all.first_token),
            next_token: self.next_token.or(all.next_token),
        }
    }
}

/// `span * factor`; a product beyond the longest time is the longest time.
fn times(span: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// The first token's deadline, after the arrival.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FirstTokenRule {
    /// What was in force during the run.
    Recorded,
    /// So long for every request.
    Fixed(Duration),
    /// The predicted prefill time of its prompt, and so much more.
    PredictedPlus(Duration),
    /// So many times the predicted prefill time of its prompt.
    PredictedTimes(f64),
}

/// Why a text is no deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no deadline{}; deadlines are durations with a unit (`500ms`, `0.3s`), and the \
     first token's may be `predicted + 300ms`, `predicted * 2` or `recorded`",
    cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
)]
pub struct DeadlineError {
    /// What was given.
    pub text: String,
    /// What is wrong with it, where that is known.
    pub cause: Option<String>,
}

impl FromStr for FirstTokenRule {
    type Err = DeadlineError;

    fn from_str(text: &str) -> Result<Self, DeadlineError> {
        let text = text.trim();
        if text == "recorded" {
            return Ok(Self::Recorded);
        }
        let Some(rule) = text.strip_prefix("predicted").map(str::trim) else {
            return span(text).map(Self::Fixed);
        };
        if let Some(slack) = rule.strip_prefix('+') {
            return span(slack.trim()).map(Self::PredictedPlus);
        }
        rule.strip_prefix('*')
            .and_then(|factor| factor.trim().parse().ok())
            .filter(|factor: &f64| factor.is_finite() && *factor >= 0.0)
            .map(Self::PredictedTimes)
            .ok_or_else(|| DeadlineError { text: text.to_owned(), cause: None })
    }
}

fn span(text: &str) -> Result<Duration, DeadlineError> {
    parse_span(text).map_err(|cause| DeadlineError { text: text.to_owned(), cause: Some(cause) })
}

/// A duration with a unit; unlike humantime's own, whole parts may have fractions (`0.3s`).
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit.trim() {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    let number: f64 = number.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// A duration as a whole number of its largest unit that loses nothing.
pub(crate) fn in_one_unit(span: Duration) -> String {
    let nanos = span.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];
    let whole = units.into_iter().find(|(unit, _)| nanos.is_multiple_of(*unit));
    whole.map_or_else(String::new, |(unit, name)| format!("{}{name}", nanos / unit))
}

impl fmt::Display for FirstTokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recorded => f.write_str("recorded"),
            Self::Fixed(deadline) => write!(f, "{}", in_one_unit(*deadline)),
            Self::PredictedPlus(slack) => write!(f, "predicted + {}", in_one_unit(*slack)),
            Self::PredictedTimes(factor) => write!(f, "predicted * {factor}"),
        }
    }
}

impl TryFrom<String> for FirstTokenRule {
    type Error = DeadlineError;

    fn try_from(text: String) -> Result<Self, DeadlineError> {
        text.parse()
    }
}

impl From<FirstTokenRule> for String {
    fn from(rule: FirstTokenRule) -> Self {
        rule.to_string()
    }
}

impl DeadlineRule {
    /// A later token's deadline from text: a duration with a unit, at least 1 ns.
    pub fn parse_next_token(text: &str) -> Result<Duration, DeadlineError> {
        let deadline = span(text.trim())?;
        if deadline.is_zero() {
            let cause = Some("a later token's deadline must be at least 1 ns".to_owned());
            return Err(DeadlineError { text: text.to_owned(), cause });
        }
        Ok(deadline)
    }
}

/// Optional durations as text in files, for serde's `with`.
pub mod optional_span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes a duration in one unit.
    pub fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => serializer.collect_str(&super::in_one_unit(*span)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a duration with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refused = |cause| de::Error::custom(format!("`{text}` is no duration ({cause})"));
        super::parse_span(text.trim()).map(Some).map_err(refused)
    }
}

/// Optional deadlines of later tokens as text in files: durations of at least 1 ns.
pub mod optional_deadline {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de};

    use super::DeadlineRule;
    pub use super::optional_span::serialize;

    /// Reads a later token's deadline.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        DeadlineRule::parse_next_token(&text).map(Some).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: FirstTokenRule) {
        assert_eq!(text.parse(), Ok(expected));
        assert_eq!(expected.to_string().parse(), Ok(expected), "{expected}");
    }

    #[test]
    fn deadlines_are_read_as_they_are_written() {
        check("500ms", FirstTokenRule::Fixed(Duration::from_millis(500)));
        check("0.3s", FirstTokenRule::Fixed(Duration::from_millis(300)));
        check("predicted + 300ms", FirstTokenRule::PredictedPlus(Duration::from_millis(300)));
        check("predicted*2.5", FirstTokenRule::PredictedTimes(2.5));
        check("recorded", FirstTokenRule::Recorded);
    }

    #[test]
    fn a_rule_takes_the_prediction_the_record_or_neither() {
        let ms = Duration::from_millis;
        let curve = PrefillCurve { a: 0.1, b: 0.001, c: 0.0 };
        let recorded = Deadlines { first_token: ms(7), next_token: ms(9) };
        let first = |text: &str, recorded, curve| {
            let first_token = text.parse().expect("a rule");
            let rule = DeadlineRule { first_token, next_token: Some(ms(50)) };
            rule.of(400, recorded, curve).map(|deadlines| deadlines.first_token)
        };
        assert_eq!(first("200ms", None, None), Some(ms(200)));
        assert_eq!(first("predicted + 300ms", None, Some(&curve)), Some(ms(800)));
        assert_eq!(first("predicted * 3", None, Some(&curve)), Some(ms(1500)));
        assert_eq!(first("predicted * 3", Some(recorded), None), None);
        assert_eq!(first("recorded", Some(recorded), Some(&curve)), Some(ms(7)));
        assert_eq!(first("recorded", None, Some(&curve)), None);
        assert_eq!(DeadlineRule::RECORDED.of(400, Some(recorded), None), Some(recorded));
    }

    #[test]
    fn a_deadline_beyond_all_time_is_the_longest_time() {
        let curve = PrefillCurve { a: 1.0, b: 1.0, c: 0.0 };
        for text in ["predicted * 1e300", "predicted + 18446744073709549000s"] {
            let first_token = text.parse().expect("a rule");
            let rule = DeadlineRule { first_token, next_token: Some(Duration::from_secs(1)) };
            let deadlines = rule.of(9, None, Some(&curve)).expect("there is a curve");
            assert!(deadlines.first_token > Duration::from_secs(1 << 62), "{text}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Spans {
        #[serde(with = "optional_span")]
        span: Option<Duration>,
        #[serde(with = "optional_deadline")]
        deadline: Option<Duration>,
    }

    #[test]
    fn a_span_may_be_nothing_and_a_deadline_may_not() {
        let spans = Spans { span: Some(Duration::ZERO), deadline: Some(Duration::from_nanos(1)) };
        let text = serde_json::to_string(&spans).expect("it is text");
        assert_eq!(text, r#"{"span":"0s","deadline":"1ns"}"#);
        assert_eq!(serde_json::from_str::<Spans>(&text).expect("it is read back"), spans);
        let refused = |text: &str| serde_json::from_str::<Spans>(text).expect_err(text).to_string();
        let error = refused(r#"{"span":"0s","deadline":"0s"}"#);
        assert!(error.contains("a later token's deadline must be at least 1 ns"), "{error}");
        let error = refused(r#"{"span":"soon","deadline":"1s"}"#);
        assert!(error.contains("`soon` is no duration"), "{error}");
    }

    #[test]
    fn a_deadline_without_a_unit_is_refused() {
        let error = "500".parse::<FirstTokenRule>().expect_err("it has no unit");
        assert!(error.to_string().starts_with("`500` is no deadline (time unit needed"), "{error}");
        assert!("predicted - 1s".parse::<FirstTokenRule>().is_err());
        assert!("-1s".parse::<FirstTokenRule>().is_err());
        assert!(DeadlineRule::parse_next_token("0ms").is_err());
    }
}
