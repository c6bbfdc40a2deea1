//! Searches for a capacity, made by hand.

use metron_metrics::{
    Basis, Bracket, Capacity, Doubt, Judged, Objective, ObjectiveVerdict, Objectives, Probed,
    RaisedDoubt, SearchEnd,
};
use metron_report::CapacityReport;
use metron_trace::{Header, Origin};

pub(crate) fn objective() -> Objective {
    "ttft <= 1 s for 95%".parse().expect("an objective")
}

pub(crate) fn capacity(
    policy: &str,
    passed: Option<f64>,
    failed: Option<f64>,
    end: SearchEnd,
) -> Capacity {
    let estimate = passed.zip(failed).map(|(passed, failed)| (passed * failed).sqrt());
    Capacity {
        policy: policy.to_owned(),
        bracket: Bracket { passed, failed },
        estimate,
        replicates: 20,
        end,
        binding: failed.map(|_| objective()),
        upper_bound: Some(4.0),
        not_monotone: 0,
        range: Some([0.1, 8.0]),
        probes: Vec::new(),
    }
}

/// A run of 100 requests at a rate, of which a share had its first token in time.
pub(crate) fn probe(rate: f64, share: f64, verdict: ObjectiveVerdict) -> Probed {
    let objective = objective();
    let missed = if share < objective.share { vec![objective.clone()] } else { Vec::new() };
    let judged = Judged {
        objective,
        verdict,
        n: 100,
        violations: 0,
        absent: 0,
        share: Some(share),
        bounds: Some([share - 0.1, (share + 0.1).min(1.0)]),
        effective: 50.0,
        basis: Basis::Values,
    };
    Probed { rate, replicate: 0, missed, judged: vec![judged] }
}

/// Two policies with their runs, the first of which has a label that has to be escaped.
pub(crate) fn brackets() -> Vec<Capacity> {
    use ObjectiveVerdict::{Fail, Pass, Undecided};
    let probes = vec![probe(1.0, 1.0, Pass), probe(2.2, 0.94, Undecided), probe(3.0, 0.5, Fail)];
    let narrow = capacity("<b>mine</b>", Some(2.0), Some(2.1), SearchEnd::Narrow);
    let open = capacity("orca", Some(1.0), None, SearchEnd::OutOfReplicates);
    vec![Capacity { probes: probes.clone(), ..narrow }, Capacity { probes, ..open }]
}

fn header(origin: Origin) -> Header {
    let json = serde_json::json!({
        "format_version": 2, "metron_version": "0.1.0", "command_line": [], "origin": origin, "replicate": 0,
        "seed": 7, "policy": { "label": "", "name": "", "options": null },
        "model": {
            "id": "tiny", "source": "a test", "format": "dummy", "parameters": 1, "dummy": false,
        },
        "executor": { "device": "cpu" }, "machine": { "cpu_features": [] },
        "limits": { "block_size": 16, "num_blocks": 8, "max_num_seqs": 2, "max_model_len": 64 },
        "experiment": null, "classes": [], "dropped_requests": 0, "truncated_requests": 0,
    });
    serde_json::from_value(json).expect("a header")
}

/// Calls `with` with the report of a search that raised a doubt.
pub(crate) fn with_search<T>(
    origin: Origin,
    capacities: &[Capacity],
    with: impl FnOnce(&CapacityReport<'_>) -> T,
) -> T {
    let header = header(origin);
    let too_few = Doubt::TooFewRequests { share: 0.95, have: 20, need: 72 };
    let too_few = RaisedDoubt { doubt: too_few, policies: Vec::new(), runs: 60, of: 60 };
    with(&CapacityReport {
        header: &header,
        facts: &[("model".to_owned(), "tiny & small".to_owned())],
        capacities,
        doubts: &[too_few],
        objectives: &Objectives::new(vec![objective()]).expect("there is one"),
        num_requests: 512,
        probability: 0.5,
        confidence: 0.95,
        is_partial: false,
    })
}
