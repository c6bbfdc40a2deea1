use metron_trace::{ExecutorInfo, FORMAT_VERSION, Header, Limits, ModelInfo, Origin, PolicyInfo};

use crate::machine::this_machine;

/// The header of a run on this machine or in virtual time, before anything is said of its experiment
/// and its policy.
pub(crate) fn header_of(
    origin: Origin,
    model: ModelInfo,
    executor: ExecutorInfo,
    limits: Limits,
) -> Header {
    Header {
        format_version: FORMAT_VERSION,
        metron_version: env!("CARGO_PKG_VERSION").to_owned(),
        created_at: (origin == Origin::Measured).then(now),
        command_line: std::env::args().collect(),
        origin,
        seed: 0,
        replicate: 0,
        max_concurrency: None,
        policy: PolicyInfo {
            label: String::new(),
            name: String::new(),
            options: serde_json::Value::Null,
        },
        machine: this_machine(&executor.device),
        model,
        executor,
        limits,
        experiment: serde_json::Value::Null,
        classes: Vec::new(),
        dropped_requests: 0,
        truncated_requests: 0,
        calibration: None,
    }
}

/// The date of what is measured now, in seconds and with this machine's offset: RFC 3339.
pub(crate) fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
