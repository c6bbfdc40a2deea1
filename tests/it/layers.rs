//! The layers of the architecture: which crate may depend on which.

use std::collections::BTreeMap;
use std::process::Command;

/// Each crate with its layer and what it may depend on, as ARCHITECTURE.md has it. `None`: all.
const LAYERS: [(&str, u32, Option<&[&str]>); 10] = [
    ("trace", 0, Some(&[])),
    ("workload", 1, Some(&["trace"])),
    ("engine", 1, Some(&["trace"])),
    ("metrics", 1, Some(&["trace"])),
    ("schedulers", 2, Some(&["engine", "trace"])),
    ("sim", 2, Some(&["engine", "trace"])),
    ("llm", 2, Some(&["engine", "trace"])),
    ("report", 2, Some(&["metrics", "trace"])),
    ("lab", 3, Some(&["workload", "engine", "metrics", "trace"])),
    ("cli", 4, None),
];

/// What only one crate may know.
const CONFINED: [(&str, &[&str]); 5] = [
    ("candle-core", &["llm"]),
    ("candle-nn", &["llm"]),
    ("candle-transformers", &["llm"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
];

struct Edge {
    from: String,
    to: String,
    is_dev: bool,
}

/// The dependencies of the workspace's crates, without the root package, which sees all.
fn edges() -> Vec<Edge> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("it lists packages");
    let mut edges = Vec::new();
    for package in packages {
        let Some(from) = package["name"].as_str().and_then(|n| n.strip_prefix("metron-")) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("it lists dependencies") {
            edges.push(Edge {
                from: from.to_owned(),
                to: dependency["name"].as_str().expect("a dependency has a name").to_owned(),
                is_dev: dependency["kind"] == "dev",
            });
        }
    }
    assert!(edges.len() > 20, "the workspace has dependencies");
    edges
}

#[test]
fn no_crate_depends_on_one_that_it_must_not_see() {
    let layers: BTreeMap<_, _> =
        LAYERS.iter().map(|(name, layer, allowed)| (*name, (*layer, *allowed))).collect();
    for Edge { from, to, is_dev } in edges() {
        let Some(to) = to.strip_prefix("metron-") else { continue };
        let (layer, allowed) = layers.get(from.as_str()).copied().unwrap_or_else(|| {
            panic!("crate `{from}` has no layer: add it to ARCHITECTURE.md and to this table")
        });
        if is_dev {
            assert!(layers[to].0 <= layer, "tests of `{from}` use `{to}`, a layer above it");
        } else {
            let allowed = allowed.is_none_or(|allowed| allowed.contains(&to));
            assert!(allowed, "crate `{from}` must not depend on `{to}`");
        }
    }
}

#[test]
fn what_only_one_crate_may_know_stays_there() {
    for Edge { from, to, is_dev } in edges() {
        if let Some((_, allowed)) = CONFINED.iter().find(|(name, _)| *name == to) {
            assert!(is_dev || allowed.contains(&from.as_str()), "`{from}` must not use `{to}`");
        }
    }
}
