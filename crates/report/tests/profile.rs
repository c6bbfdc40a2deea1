//! A profile as a person reads it.

use std::time::Duration;

use metron_report::ProfileReport;
use metron_trace::{
    ExecutorInfo, Machine, ModelInfo, Operator, OperatorProfile, PROFILE_VERSION, Profile, Roofs,
    ShapeProfile,
};

fn shape(text: &str, step_us: u64, operators: &[(Operator, f64, f64, f64)]) -> ShapeProfile {
    let steps = [0, 2, 1].map(|more| Duration::from_micros(step_us + more));
    ShapeProfile {
        shape: text.parse().expect("a shape"),
        steps: steps.to_vec(),
        outside_forward: steps.map(|step| step / 50).to_vec(),
        traced_steps: steps.map(|step| step * 101 / 100).to_vec(),
        operators: operators
            .iter()
            .map(|&(operator, seconds, flops, bytes)| OperatorProfile {
                operator,
                calls: 2,
                seconds,
                flops,
                bytes,
            })
            .collect(),
        counters: None,
    }
}

fn profile() -> Profile {
    let decode = [
        (Operator::Embedding, 0.2e-6, 0.0, 2e3),
        (Operator::GateUp, 900e-6, 18e6, 9e6),
        (Operator::AttentionDecode, 80e-6, 0.4e6, 0.4e6),
    ];
    let prefill = [
        (Operator::GateUp, 5_000e-6, 1e9, 9e6),
        (Operator::AttentionPrefill, 3_000e-6, 0.1e9, 1e6),
    ];
    Profile {
        profile_version: PROFILE_VERSION,
        metron_version: "0.1.0".to_owned(),
        created_at: None,
        command_line: Vec::new(),
        model: ModelInfo {
            id: "<b>toy".to_owned(),
            source: "these tests".to_owned(),
            format: "dummy".to_owned(),
            parameters: 0,
            sha256: None,
            dummy: true,
        },
        executor: ExecutorInfo {
            device: "cpu".to_owned(),
            dtype: Some("f32".to_owned()),
            threads: Some(2),
            batch_invariant: Some(true),
        },
        machine: Machine::default(),
        roofs: Roofs {
            triad_bytes_per_second: 9e9,
            read_bytes_per_second: 10e9,
            flops_per_second: 200e9,
        },
        shapes: vec![
            shape("decode:1x128", 1_000, &decode),
            shape("hybrid:8x128+256@64", 9_000, &prefill),
        ],
    }
}

#[test]
fn operators_stand_beside_what_the_machine_can_do() {
    insta::assert_snapshot!(ProfileReport(&profile()).to_text());
}

#[test]
fn a_profiles_page_has_a_roofline_a_shape_and_asks_no_network() {
    let page = ProfileReport(&profile()).to_html().expect("the template is whole");
    assert_eq!(page.matches("<svg xmlns=").count(), 2);
    assert!(page.contains("default-src 'none'") && !page.contains("<script"));
    assert!(page.contains("Profile of &lt;b&gt;toy") && page.contains("Random weights"));
    assert!(page.contains("attention_decode"), "points are named");
    assert!(!page.contains("#01000"), "every stand-in for a colour was replaced");
}
