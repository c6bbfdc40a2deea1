use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deadline::{in_one_unit, parse_span};
use crate::limits::nearest;

/// What an objective bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounded {
    /// From the arrival to the first step: one value a request.
    SchedulingDelay,
    /// From the arrival to the first token: one value a request.
    Ttft,
    /// The gap between two tokens: all gaps of finished requests pooled.
    Tbt,
    /// Mean gap of a request.
    Tpot,
    /// From the arrival to the last token.
    EndToEnd,
    /// The same by output token.
    Normalized,
    /// The fluidity-index of a request.
    FluidityIndex,
}

/// Each name, the one that is written first.
const NAMES: [(&str, Bounded); 13] = [
    ("scheduling_delay", Bounded::SchedulingDelay),
    ("ttft", Bounded::Ttft),
    ("tbt", Bounded::Tbt),
    ("itl", Bounded::Tbt),
    ("tpot", Bounded::Tpot),
    ("e2el", Bounded::EndToEnd),
    ("e2e", Bounded::EndToEnd),
    ("e2e_latency", Bounded::EndToEnd),
    ("end_to_end_latency", Bounded::EndToEnd),
    ("normalized_latency", Bounded::Normalized),
    ("normalized", Bounded::Normalized),
    ("fluidity_index", Bounded::FluidityIndex),
    ("fluidity", Bounded::FluidityIndex),
];

impl Bounded {
    fn find(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric)
    }

    /// Whether another is never greater: a request is scheduled before its first token, and that
    /// comes no later than its last.
    fn bounds(self, other: Self) -> bool {
        const IN_ORDER: [Bounded; 3] = [Bounded::SchedulingDelay, Bounded::Ttft, Bounded::EndToEnd];
        let at = |metric: Self| IN_ORDER.iter().position(|known| *known == metric);
        self == other || at(self).zip(at(other)).is_some_and(|(own, other)| own > other)
    }

    fn name(self) -> &'static str {
        NAMES.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }
}

/// The bound itself: a time is bounded from above, an index from below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At most so long.
    AtMost(Duration),
    /// At least so much.
    AtLeast(f64),
}

/// What a run promises: a bound that a share of its requests (of its gaps, for TBT) keeps.
///
/// ```
/// use metron_metrics::Objective;
/// for text in [
///     "fluidity_index >= 0.9 for 99%",
///     "ttft <= 200 ms for 95 % of requests",
///     "P99 TBT <= 0.1 s", // the same as tbt <= 100ms for 99%
///     "class chat: P50 scheduling delay <= 2 s",
/// ] {
///     let objective: Objective = text.parse()?;
///     assert_eq!(objective.to_string().parse(), Ok(objective));
/// }
/// # Ok::<(), metron_metrics::ObjectiveError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Objective {
    /// The class of requests that it is about; `None`: all.
    pub class: Option<String>,
    /// What is bounded.
    pub metric: Bounded,
    /// By what.
    pub bound: Bound,
    /// The share that keeps the bound, above 0 and at most 1.
    pub share: f64,
}

/// Objectives that all have to hold. None of them follows from another.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Objective>")]
pub struct Objectives(Vec<Objective>);

/// Why a text is no objective, or why objectives can't stand together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectiveError {
    /// Not of the form.
    #[error(
        "`{text}` is no objective: {cause}; objectives are METRIC <= TIME for SHARE% or \
         P99 METRIC <= TIME, as in `ttft <= 200 ms for 95%`, `P99 tbt <= 0.1 s`, \
         `fluidity_index >= 0.9 for 99%`, `class chat: ttft <= 1 s for 90%`"
    )]
    Malformed {
        /// What was given.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// No such metric.
    #[error(
        "`{name}` can't be an objective{}; objectives are on scheduling_delay, ttft, tbt, tpot, \
         e2el, normalized_latency (times) and fluidity_index",
        nearest(name, NAMES.iter().map(|(name, _)| *name))
    )]
    UnknownMetric {
        /// What was given.
        name: String,
    },
    /// An objective follows from another, and says nothing beside it.
    #[error("`{weaker}` says nothing beside `{stronger}`; keep the one that is meant")]
    Redundant {
        /// The one that follows.
        weaker: String,
        /// From this.
        stronger: String,
    },
    /// No such class in the workload.
    #[error(
        "`{objective}`: there is no class `{class}`{}; {}",
        nearest(class, classes.iter().map(String::as_str)),
        if classes.is_empty() { "the requests have no classes with names".to_owned() }
        else { format!("classes are {}", classes.join(", ")) }
    )]
    UnknownClass {
        /// The objective.
        objective: String,
        /// What was given.
        class: String,
        /// What there is.
        classes: Vec<String>,
    },
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Self, ObjectiveError> {
        let malformed = |cause: String| ObjectiveError::Malformed { text: text.to_owned(), cause };
        let (class, rest) = split_class(text.trim()).map_err(malformed)?;
        let (left, sign, right) = split_comparison(rest).map_err(malformed)?;
        let (percentile, name) = split_percentile(left);
        let name = name.to_lowercase().replace([' ', '-'], "_");
        let metric = Bounded::find(&name)
            .ok_or_else(|| ObjectiveError::UnknownMetric { name: name.clone() })?;
        let (bound, share) = match right.split_once(" for ") {
            Some((bound, share)) => (bound, Some(parse_share(share).map_err(malformed)?)),
            None => (right, None),
        };
        let bound = parse_bound(metric, sign, bound.trim()).map_err(malformed)?;
        let share = match (percentile, share) {
            (Some(_), _) if metric == Bounded::FluidityIndex => {
                Err("a high percentile of an index says little; write `for 99%`".to_owned())
            }
            (Some(_), Some(_)) => Err("it has both a percentile and a share".to_owned()),
            (None, None) => Err("it does not say for how many, as in `for 99%`".to_owned()),
            (Some(percent), None) => checked_share(percent),
            (None, Some(share)) => Ok(share),
        };
        Ok(Self { class, metric, bound, share: share.map_err(malformed)? })
    }
}

/// `class chat: ..`
fn split_class(text: &str) -> Result<(Option<String>, &str), String> {
    let Some(named) = text.strip_prefix("class ") else { return Ok((None, text)) };
    let (class, rest) =
        named.split_once(':').ok_or("a colon is missing behind the class".to_owned())?;
    match class.trim() {
        "" => Err("the class has no name".to_owned()),
        class => Ok((Some(class.to_owned()), rest.trim())),
    }
}

fn split_comparison(text: &str) -> Result<(&str, &str, &str), String> {
    ["<=", ">=", "≤", "≥"]
        .iter()
        .find_map(|sign| {
            let (left, right) = text.split_once(sign)?;
            Some((left.trim(), *sign, right.trim()))
        })
        .ok_or_else(|| "it has no <= or >=".to_owned())
}

/// `P99 ttft` is the 99th percentile, in percent.
fn split_percentile(text: &str) -> (Option<f64>, &str) {
    let of = text.strip_prefix(['P', 'p']).and_then(|rest| rest.split_once(' '));
    match of.and_then(|(percent, name)| Some((percent.parse().ok()?, name.trim()))) {
        Some((percent, name)) => (Some(percent), name),
        None => (None, text),
    }
}

/// `99%`, `99 % of requests`.
fn parse_share(text: &str) -> Result<f64, String> {
    let (number, of) =
        text.split_once('%').ok_or_else(|| format!("`{}` is no share with a %", text.trim()))?;
    if !["", "of requests", "of the requests", "of gaps"].contains(&of.trim()) {
        return Err(format!("`{}` stands behind the share", of.trim()));
    }
    let percent = number.trim().parse();
    checked_share(percent.map_err(|_| format!("`{}` is no number", number.trim()))?)
}

fn checked_share(percent: f64) -> Result<f64, String> {
    if percent > 0.0 && percent <= 100.0 {
        // Shares are written in decimals: 99.9 % is 0.999 and not its neighbour.
        Ok((percent * 1e7).round() / 1e9)
    } else {
        Err(format!("a share of {percent} % can't be; it must be above 0 and at most 100"))
    }
}

fn parse_bound(metric: Bounded, sign: &str, text: &str) -> Result<Bound, String> {
    let from_above = ["<=", "≤"].contains(&sign);
    if metric == Bounded::FluidityIndex {
        let index = text.parse().map_err(|_| format!("`{text}` is no fluidity-index"))?;
        return match index {
            _ if from_above => Err("an index is bounded from below, with >=".to_owned()),
            index if index > 0.0 && index <= 1.0 => Ok(Bound::AtLeast(index)),
            _ => Err("a fluidity-index to reach must be above 0 and at most 1".to_owned()),
        };
    }
    let span = parse_span(text).map_err(|cause| format!("`{text}` is no time ({cause})"))?;
    match span {
        _ if !from_above => Err("a time is bounded from above, with <=".to_owned()),
        Duration::ZERO => Err("no time can be at most 0".to_owned()),
        span => Ok(Bound::AtMost(span)),
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(class) = &self.class {
            write!(f, "class {class}: ")?;
        }
        write!(f, "{} ", self.metric.name())?;
        match self.bound {
            Bound::AtMost(span) => write!(f, "<= {}", in_one_unit(span))?,
            Bound::AtLeast(index) => write!(f, ">= {index}")?,
        }
        // As it was read: 0.999 is 99.9 %.
        write!(f, " for {}%", (self.share * 1e9).round() / 1e7)
    }
}

impl TryFrom<String> for Objective {
    type Error = ObjectiveError;

    fn try_from(text: String) -> Result<Self, ObjectiveError> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> Self {
        objective.to_string()
    }
}

impl Objective {
    /// Whether a run that keeps this one keeps the other in any case.
    fn implies(&self, other: &Self) -> bool {
        let is_stricter = match (self.bound, other.bound) {
            (Bound::AtMost(own), Bound::AtMost(other)) => own <= other,
            (Bound::AtLeast(own), Bound::AtLeast(other)) => own >= other,
            _ => false,
        };
        let is_about_it = self.class == other.class && self.metric.bounds(other.metric);
        is_about_it && is_stricter && self.share >= other.share
    }
}

impl Objectives {
    /// Objectives that have to hold together; refused if one follows from another.
    pub fn new(objectives: Vec<Objective>) -> Result<Self, ObjectiveError> {
        for (at, weaker) in objectives.iter().enumerate() {
            let others = objectives.iter().enumerate().filter(|(other, _)| *other != at);
            let stronger = others.map(|(_, other)| other).find(|other| other.implies(weaker));
            if let Some(stronger) = stronger {
                return Err(ObjectiveError::Redundant {
                    weaker: weaker.to_string(),
                    stronger: stronger.to_string(),
                });
            }
        }
        Ok(Self(objectives))
    }

    /// All of them, as they were given.
    pub fn iter(&self) -> std::slice::Iter<'_, Objective> {
        self.0.iter()
    }

    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every class that they name is one of these.
    pub fn check_classes(&self, classes: &[String]) -> Result<(), ObjectiveError> {
        let unknown = |objective: &&Objective| {
            objective.class.as_ref().is_some_and(|class| !classes.contains(class))
        };
        match self.0.iter().find(unknown) {
            Some(objective) => Err(ObjectiveError::UnknownClass {
                objective: objective.to_string(),
                class: objective.class.clone().unwrap_or_default(),
                classes: classes.iter().filter(|name| !name.is_empty()).cloned().collect(),
            }),
            None => Ok(()),
        }
    }
}

impl<'a> IntoIterator for &'a Objectives {
    type Item = &'a Objective;
    type IntoIter = std::slice::Iter<'a, Objective>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl TryFrom<Vec<Objective>> for Objectives {
    type Error = ObjectiveError;

    fn try_from(objectives: Vec<Objective>) -> Result<Self, ObjectiveError> {
        Self::new(objectives)
    }
}

/// Several at once, as they stand in a sentence.
impl fmt::Display for Objectives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads_as(text: &str, written: &str) {
        let objective: Objective = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(objective.to_string(), written);
        assert_eq!(written.parse(), Ok(objective));
    }

    fn refused(text: &str, cause: &str) {
        let error = text.parse::<Objective>().expect_err("it is no objective").to_string();
        assert!(error.contains(cause), "{error}\ndoes not say\n{cause}");
    }

    #[test]
    fn objectives_are_read_as_people_write_them() {
        reads_as("fluidity_index >= 0.9 for 99%", "fluidity_index >= 0.9 for 99%");
        reads_as("TTFT <= 200 ms for 95 % of requests", "ttft <= 200ms for 95%");
        reads_as("P99 TBT <= 0.1 s", "tbt <= 100ms for 99%");
        reads_as("P99.9 e2e ≤ 1min", "e2el <= 60s for 99.9%");
        reads_as("p50 scheduling delay <= 2s", "scheduling_delay <= 2s for 50%");
        reads_as("class chat: ttft <= 1s for 90%", "class chat: ttft <= 1s for 90%");
    }

    #[test]
    fn what_is_no_objective_says_what_is_missing() {
        refused("ttft <= 200 for 95%", "`200` is no time (time unit needed");
        refused("ttft <= 200 ms", "it does not say for how many, as in `for 99%`");
        refused("ttft for 95%", "it has no <= or >=");
        refused("ttft >= 200 ms for 95%", "a time is bounded from above");
        refused("ttft <= 0 ms for 95%", "no time can be at most 0");
        refused("ttft <= 1 s for 0%", "a share of 0 % can't be");
        refused("ttft <= 1 s for 101%", "a share of 101 % can't be");
        refused("ttft <= 1 s for most", "`most` is no share with a %");
        refused("P99 ttft <= 1 s for 99%", "it has both a percentile and a share");
        refused("fluidity_index >= 1.2 for 99%", "above 0 and at most 1");
        refused("fluidity_index <= 0.9 for 99%", "bounded from below");
        refused("class chat ttft <= 1 s for 9%", "a colon is missing behind the class");
        refused("ttfd <= 1 s for 99%", "`ttfd` can't be an objective (did you mean `ttft`?)");
    }

    #[test]
    fn an_objective_that_follows_from_another_contradicts_it() {
        let check = |texts: &[&str]| {
            Objectives::new(texts.iter().map(|text| text.parse().expect("an objective")).collect())
        };
        assert!(check(&["ttft <= 1s for 99%", "ttft <= 200ms for 50%"]).is_ok());
        assert!(check(&["ttft <= 1s for 99%", "class a: ttft <= 2s for 99%"]).is_ok());
        let error = check(&["ttft <= 1s for 99%", "ttft <= 2s for 95%"]).expect_err("it follows");
        assert_eq!(
            error.to_string(),
            "`ttft <= 2s for 95%` says nothing beside `ttft <= 1s for 99%`; keep the one that is \
             meant"
        );
        assert!(check(&["ttft <= 1s for 99%", "ttft <= 1s for 99%"]).is_err());
        assert!(check(&["ttft <= 1s for 99%", "e2el <= 1s for 99%"]).is_err(), "no later than it");
        assert!(check(&["ttft <= 1s for 99%", "e2el <= 5s for 99%"]).is_ok());
        assert!(check(&["tpot <= 1s for 99%", "e2el <= 1s for 99%"]).is_ok());
    }

    #[test]
    fn a_class_that_is_not_there_is_named_with_the_nearest() {
        let objective = "class chad: ttft <= 1s for 90%".parse().expect("an objective");
        let objectives = Objectives::new(vec![objective]).expect("there is one");
        let error = objectives.check_classes(&["chat".to_owned(), "document".to_owned()]);
        assert_eq!(
            error.expect_err("there is no such class").to_string(),
            "`class chad: ttft <= 1s for 90%`: there is no class `chad` (did you mean `chat`?); \
             classes are chat, document"
        );
    }
}
