//! Durations as seconds in results, for serde's `with`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Exact to the nanosecond below a month.
pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_secs_f64())
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    f64::deserialize(deserializer).map(of_seconds)
}

/// What no duration holds is the longest.
fn of_seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The same of what may be absent.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, of_seconds};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(crate) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(|span| span.as_secs_f64()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(of_seconds))
    }
}

#[cfg(test)]
mod tests {
    use crate::latency::Stalls;
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_they_are_written() {
        let spans = [Duration::ZERO, Duration::from_nanos(2_592_000_123_456_789), Duration::MAX];
        for longest in spans {
            let stalls = Stalls { count: 1, total: Duration::from_millis(1500), longest };
            let text = serde_json::to_string(&stalls).expect("it is JSON");
            assert!(text.contains(r#""total":1.5"#), "{text}");
            assert_eq!(serde_json::from_str::<Stalls>(&text).expect("it is its own"), stalls);
        }
    }
}
