use std::collections::BTreeSet;

use metron_trace::{ExecutorInfo, Header, Machine, ModelInfo, Origin};

use crate::report::Report;

/// Whose times these are, of what, on what: `Simulated: toy (cost model) in virtual time; seed 7;
/// Metron 0.1.0`. A line for each system where runs are of several.
pub(crate) fn labels(report: &Report<'_>) -> Vec<String> {
    let mut systems: Vec<(String, &str, BTreeSet<u64>)> = Vec::new();
    for header in report.runs.iter().map(|run| &run.trace.header) {
        let system = format!("{}: {}", clock(header), computed(header));
        let version = header.metron_version.as_str();
        // Of another tool's seed nothing is known.
        let seed = (!header.origin.is_imported()).then_some(header.seed);
        match systems.iter_mut().find(|known| known.0 == system && known.1 == version) {
            Some((.., seeds)) => seeds.extend(seed),
            None => systems.push((system, version, seed.into_iter().collect())),
        }
    }
    let line = |(system, version, seeds): (String, &str, BTreeSet<u64>)| {
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let seeds = match seeds.as_slice() {
            [] => String::new(),
            [seed] => format!("; seed {seed}"),
            seeds => format!("; seeds {}", seeds.join(", ")),
        };
        format!("{system}{seeds}; Metron {version}")
    };
    systems.into_iter().map(line).collect()
}

/// `smollm2 (GGUF Q4_1) on cpu in f32, 2 threads, AMD EPYC; seed 7; measured`.
pub(crate) fn system(header: &Header) -> String {
    if header.origin.is_imported() {
        return computed(header);
    }
    format!("{}; seed {}; {}", computed(header), header.seed, clock(header).to_lowercase())
}

/// What ran, on what.
fn computed(header: &Header) -> String {
    let Header { model, executor, machine, origin, .. } = header;
    if origin.is_imported() {
        return format!("{}, {}", model.id, model.source);
    }
    computed_by(model, executor, (*origin == Origin::Measured).then_some(machine))
}

/// What ran, on a machine or, without one, in virtual time.
pub(crate) fn computed_by(
    model: &ModelInfo,
    executor: &ExecutorInfo,
    machine: Option<&Machine>,
) -> String {
    let format = if model.dummy { "random weights" } else { &model.format };
    let dtype = executor.dtype.as_ref().map_or_else(String::new, |dtype| format!(" in {dtype}"));
    let threads = executor.threads.map_or_else(String::new, |n| format!(", {n} threads"));
    let processor = machine.and_then(|machine| machine.gpu.as_ref().or(machine.cpu.as_ref()));
    let processor = processor.map_or_else(String::new, |name| format!(", {name}"));
    let on = if machine.is_some() { "on" } else { "in" };
    format!("{} ({format}) {on} {}{dtype}{threads}{processor}", model.id, executor.device)
}

/// Whose times they are.
fn clock(header: &Header) -> &'static str {
    match header.origin {
        Origin::Measured => "Measured",
        Origin::Simulated => "Simulated",
        Origin::Imported | Origin::ImportedWithoutArrivals if header.is_simulated() => {
            "Imported, simulated"
        }
        Origin::Imported | Origin::ImportedWithoutArrivals => "Imported",
    }
}
