//! What the tests share.

use metron_trace::{Header, Limits};

/// Of a run in virtual time.
pub(crate) fn header(limits: Limits, classes: &[String]) -> Header {
    let json = serde_json::json!({
        "format_version": 2, "metron_version": "", "command_line": [], "origin": "simulated", "replicate": 0,
        "seed": 0, "policy": { "label": "", "name": "", "options": null },
        "model": { "id": "", "source": "", "format": "", "parameters": 0, "dummy": true },
        "executor": { "device": "" }, "machine": { "cpu_features": [] },
        "limits": limits, "experiment": null, "classes": classes,
        "dropped_requests": 0, "truncated_requests": 0,
    });
    serde_json::from_value(json).expect("a header")
}
