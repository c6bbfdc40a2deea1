use serde::{Deserialize, Serialize};

/// The confidence of an interval, unless verdicts are held to another level: then it is theirs.
pub const CONFIDENCE: f64 = 0.95;

/// Where a quantity lies, with the confidence of whatever gives it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Of this half-width around a value.
    pub fn around(value: f64, half_width: f64) -> Self {
        Self { low: value - half_width, high: value + half_width }
    }

    /// Whether a value lies in it, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Both ends through an increasing function.
    #[must_use]
    pub fn map(self, increasing: impl Fn(f64) -> f64) -> Self {
        Self { low: increasing(self.low), high: increasing(self.high) }
    }
}
