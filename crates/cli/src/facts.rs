use std::time::Duration;

use metron_lab::Replicates;
use metron_metrics::statistics::Looks;
use metron_metrics::{EQUIVALENCE_MARGIN, Scoring};
use metron_report::{RANDOM_WEIGHTS, differing_inputs};
use metron_trace::{Header, Machine, Origin, PolicyInfo};
use metron_workload::{Arrivals, WorkloadSpec};

use crate::args::ScoringArgs;
use crate::deadline_facts::{Sources, deadlines};
use crate::derive::LoadFacts;
use crate::experiment::Experiment;
use crate::prepare::Prepared;

/// What is said above every result: what ran, on what, and every default that decides what is seen.
/// `asked` are the options on scoring.
pub(crate) fn facts(
    header: &Header,
    prepared: &Prepared,
    asked: &ScoringArgs,
) -> Vec<(String, String)> {
    let mut facts = system_facts(header);
    if let Some(spec) = &prepared.experiment.workload {
        facts.push(fact("workload", workload(spec, header.seed, Some(&prepared.load))));
    }
    facts.extend(setting_facts(
        header,
        &prepared.scoring,
        &Sources::of_run(header, &prepared.load, asked),
    ));
    facts.push(fact("schedulers", schedulers(prepared.contestants.iter().map(|own| &own.info))));
    facts
}

/// The same of saved runs, as far as their headers say it, and as they are scored now.
pub(crate) fn saved_facts(
    headers: &[&Header],
    scoring: &Scoring,
    asked: &ScoringArgs,
) -> Vec<(String, String)> {
    let Some(header) = headers.first() else { return Vec::new() };
    let mut facts = system_facts(header);
    let experiment = header.experiment.get("experiment").cloned().unwrap_or_default();
    if let Ok(Experiment { workload: Some(spec), .. }) = serde_json::from_value(experiment) {
        facts.push(fact("workload", workload(&spec, header.seed, None)));
    }
    facts.extend(setting_facts(header, scoring, &Sources::of_saved_run(asked)));
    let mut policies: Vec<&PolicyInfo> = Vec::new();
    for header in headers {
        if !policies.contains(&&header.policy) {
            policies.push(&header.policy);
        }
    }
    facts.push(fact("schedulers", schedulers(policies.into_iter())));
    let mut differing = differing_inputs(headers);
    // What scorings differ in is said apart, as far as no option decides it.
    differing.retain(|name| !name.starts_with("scoring."));
    if !differing.is_empty() {
        let names = differing.join(", ");
        facts.push(fact("not alike", format!("the runs differ in {names}: this is the first's")));
    }
    facts.extend(origin_facts(header));
    facts
}

/// What ran, on what.
fn system_facts(header: &Header) -> Vec<(String, String)> {
    let mut facts = vec![fact("model", model(header))];
    if header.origin.is_imported() {
        return facts;
    }
    facts.push(fact("computed on", computed_on(header)));
    if header.origin == Origin::Measured {
        facts.extend(machine_facts(&header.machine));
    }
    facts
}

/// How runs are scored, and the engine's limits.
fn setting_facts(header: &Header, scoring: &Scoring, sources: &Sources) -> Vec<(String, String)> {
    let mut facts = vec![fact("deadlines", deadlines(header, scoring, sources))];
    if !header.origin.is_imported() {
        facts.push(fact("engine", engine(header)));
    }
    facts
}

/// How a comparison is judged: fixed before the first run.
pub(crate) fn verdict_facts(prepared: &Prepared) -> Option<(String, String)> {
    match prepared.contestants.as_slice() {
        [first, _, ..] => Some(fact("verdicts", verdicts(prepared, &first.info.label))),
        _ => None,
    }
}

/// What is known of a machine; what could not be read is left out.
pub(crate) fn machine_facts(machine: &Machine) -> Vec<(String, String)> {
    let memory = |bytes: u64| format!("{:.1} GiB of memory", bytes as f64 / f64::from(1 << 30));
    let of_machine = [
        machine.cpu.clone(),
        machine.cores.map(|cores| format!("{cores} cores")),
        machine.memory_bytes.map(memory),
        machine.governor.as_ref().map(|governor| format!("governor {governor}")),
    ];
    let of_machine: Vec<String> = of_machine.into_iter().flatten().collect();
    let driver = machine.gpu_driver.as_ref();
    let driver = driver.map_or_else(String::new, |driver| format!(", driver {driver}"));
    let facts = [
        Some(fact("machine", of_machine.join(", "))),
        machine.gpu.as_ref().map(|gpu| fact("accelerator", format!("{gpu}{driver}"))),
        machine.os.clone().map(|os| fact("system", os)),
    ];
    facts.into_iter().flatten().collect()
}

/// What made it, how it was called, and whose the times are.
pub(crate) fn origin_facts(header: &Header) -> Vec<(String, String)> {
    let date = header.created_at.as_ref().map_or_else(String::new, |date| format!(", {date}"));
    let times = match header.origin {
        Origin::Measured => "measured, by this machine's clock",
        Origin::Simulated => "simulated, by a cost model",
        Origin::Imported | Origin::ImportedWithoutArrivals => match header.said_origin() {
            Some(Origin::Simulated) => "simulated, by another tool's account",
            Some(Origin::Measured) => "measured, by another tool's account",
            _ => "by another tool's account",
        },
    };
    vec![
        fact("version", format!("Metron {}{date}", header.metron_version)),
        fact("command", header.command_line.join(" ")),
        fact("times", format!("{times}; what is estimated says so")),
    ]
}

pub(crate) fn fact(name: &str, sentence: String) -> (String, String) {
    (name.to_owned(), sentence)
}

/// A line a fact, names aligned.
pub(crate) fn as_text(facts: &[(String, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, sentence): &(String, String)| format!("{name:<width$}  {sentence}\n");
    facts.iter().map(line).collect::<Vec<_>>().concat()
}

fn model(header: &Header) -> String {
    let model = &header.model;
    if header.origin.is_imported() {
        return format!("{}, by {}", model.id, model.source);
    }
    if header.origin == Origin::Simulated {
        return format!("SIMULATED: {}, by {}", model.id, model.source);
    }
    let dummy = if model.dummy {
        format!(" ({})", RANDOM_WEIGHTS.trim_end_matches('.'))
    } else {
        String::new()
    };
    let sha256 = model.sha256.as_ref().and_then(|sum| sum.get(..12));
    let sha256 = sha256.map_or_else(String::new, |sum| format!(", sha256 {sum}..."));
    format!(
        "{}, {:.0} M parameters, {} from {}{sha256}{dummy}",
        model.id,
        model.parameters as f64 / 1e6,
        model.format,
        model.source
    )
}

fn computed_on(header: &Header) -> String {
    if header.origin == Origin::Simulated {
        return "virtual time".to_owned();
    }
    let executor = &header.executor;
    let dtype = executor.dtype.as_deref().unwrap_or("unknown dtype");
    let threads = executor.threads.map_or_else(String::new, |n| format!(", {n} threads"));
    let features = header.machine.cpu_features.join(" ");
    format!("{} in {dtype}{threads} ({features})", executor.device)
}

fn workload(spec: &WorkloadSpec, seed: u64, load: Option<&LoadFacts>) -> String {
    let arrivals = match &spec.arrivals {
        Arrivals::Gamma { request_rate, burstiness } if (*burstiness - 1.0).abs() < 1e-9 => {
            format!("Poisson arrivals at {request_rate:.3} requests/s")
        }
        Arrivals::Gamma { request_rate, burstiness } => {
            format!("gamma arrivals at {request_rate:.3} requests/s, burstiness {burstiness}")
        }
        Arrivals::Constant { request_rate } => {
            format!("constant arrivals at {request_rate:.3} requests/s")
        }
        Arrivals::AllAtOnce => "all at once".to_owned(),
        Arrivals::Recorded { path, speed } => {
            format!("arrivals of {} at {speed} times their speed", path.display())
        }
    };
    let derived = load.filter(|load| load.derived_rate).map_or_else(String::new, |load| {
        format!(" (from the calibration: about {} sequences decode at a time)", load.batch)
    });
    let closed = spec
        .max_concurrency
        .map_or_else(String::new, |most| format!("; closed loop of {most} clients"));
    format!("{} requests a run, {arrivals}{derived}{closed}; seed {seed}", spec.num_prompts)
}

fn engine(header: &Header) -> String {
    let limits = &header.limits;
    let stops = header.experiment.pointer("/experiment/workload/stop_at_eos");
    let ending = match stops.and_then(serde_json::Value::as_bool) {
        Some(true) => "requests end at end of sequence",
        _ => "every request generates its whole output length",
    };
    format!(
        "max_model_len {}, {} slots, {} KV blocks of {} positions; {ending}",
        limits.max_model_len, limits.max_num_seqs, limits.num_blocks, limits.block_size
    )
}

fn schedulers<'a>(policies: impl Iterator<Item = &'a PolicyInfo>) -> String {
    let with_options = policies.map(|policy| {
        let options = match &policy.options {
            serde_json::Value::Object(options) if !options.is_empty() => {
                let options: Vec<String> =
                    options.iter().map(|(key, value)| format!("{key} = {value}")).collect();
                format!(" ({})", options.join(", "))
            }
            _ => String::new(),
        };
        format!("{}{options}", policy.label)
    });
    with_options.collect::<Vec<_>>().join(", ")
}

/// Fixed before the first run.
fn verdicts(prepared: &Prepared, first: &str) -> String {
    let baseline = prepared.judging.baseline.as_deref().unwrap_or(first);
    let repeated = match prepared.replicates {
        Replicates::Exactly(1) => "one replicate".to_owned(),
        Replicates::Exactly(count) => format!("{count} replicates"),
        Replicates::Within(_) => "as many replicates as the time allows, at least 2".to_owned(),
        Replicates::UntilDecided(limit) => {
            let looks = Looks::up_to(limit);
            let counts: Vec<String> = looks.counts().iter().map(u32::to_string).collect();
            format!("replicates until decided, looking after {}", counts.join(", "))
        }
    };
    format!(
        "against {baseline}, {repeated}; all headline verdicts together at {} %, equivalence \
         within {:.0} %",
        (prepared.judging.level * 1e4).round() / 100.0,
        EQUIVALENCE_MARGIN * 100.0
    )
}

pub(crate) fn milliseconds(span: Duration) -> String {
    let ms = span.as_secs_f64() * 1e3;
    if ms >= 100.0 { format!("{ms:.0} ms") } else { format!("{ms:.1} ms") }
}
