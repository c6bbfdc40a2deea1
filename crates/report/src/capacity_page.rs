use metron_metrics::{Bracket, Capacity, Probed};
use serde::Serialize;

use crate::capacity::CapacityReport;
use crate::doubts::DoubtLine;
use crate::figures::{Figure, Key, bracket_figure, bracket_keys, probe_figures, probe_keys};
use crate::html::{RANDOM_WEIGHTS, SIMULATED, fill};
use crate::label::system;
use crate::units::three_digits;

/// What the template is filled from.
#[derive(Serialize)]
struct Page<'a> {
    title: String,
    system: String,
    version: &'a str,
    created_at: Option<&'a str>,
    replicates: String,
    flags: Vec<&'static str>,
    question: String,
    bracket_keys: [Key; 3],
    brackets: Figure,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    sentences: Vec<String>,
    doubts: Vec<DoubtLine>,
    probe_keys: Vec<Key>,
    probes: Vec<Figure>,
    tried: Vec<Tried<'a>>,
    facts: &'a [(String, String)],
}

/// The rates at which a policy was run.
#[derive(Serialize)]
struct Tried<'a> {
    policy: &'a str,
    rates: Vec<AtRate>,
}

/// The runs at one of them.
#[derive(Serialize)]
struct AtRate {
    rate: String,
    runs: usize,
    kept: usize,
    /// What the replicates say of it together.
    verdict: &'static str,
}

/// The page of a search.
pub(crate) fn render(report: &CapacityReport<'_>) -> Result<String, minijinja::Error> {
    let header = report.header;
    let policies: Vec<&str> = report.capacities.iter().map(|own| own.policy.as_str()).collect();
    let mut rows = report.table();
    let head = rows.remove(0);
    let page = Page {
        title: format!("Metron: capacity of {} on {}", policies.join(", "), header.model.id),
        system: system(header),
        version: &header.metron_version,
        created_at: header.created_at.as_deref(),
        replicates: "the same requests at every rate and under every policy".to_owned(),
        flags: flags(report),
        question: question(report),
        bracket_keys: bracket_keys(),
        brackets: bracket_figure(report.capacities),
        head,
        rows,
        sentences: report.sentences(),
        doubts: report.doubt_lines(),
        probe_keys: probe_keys(),
        probes: probe_figures(report.capacities),
        tried: report.capacities.iter().map(Tried::of).collect(),
        facts: report.facts,
    };
    fill("capacity.html", &page)
}

fn flags(report: &CapacityReport<'_>) -> Vec<&'static str> {
    let flags = [
        (report.is_partial, "Partial: the search was cut short."),
        (report.header.is_simulated(), SIMULATED),
        (report.header.model.dummy, RANDOM_WEIGHTS),
    ];
    flags.into_iter().filter_map(|(applies, flag)| applies.then_some(flag)).collect()
}

fn question(report: &CapacityReport<'_>) -> String {
    format!(
        "The greatest rate at which a run of {} requests, from an empty start, keeps {} with a \
         probability of {}: each bracket holds it with {:.0} % confidence.",
        report.num_requests,
        report.objectives,
        report.probability,
        report.confidence * 100.0
    )
}

impl<'a> Tried<'a> {
    fn of(own: &'a Capacity) -> Self {
        let mut probes: Vec<&Probed> = own.probes.iter().collect();
        probes.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let rates = probes.chunk_by(|a, b| a.rate.total_cmp(&b.rate).is_eq()).map(|runs| {
            let rate = runs.first().map_or(0.0, |probe| probe.rate);
            AtRate {
                rate: three_digits(rate),
                runs: runs.len(),
                kept: runs.iter().filter(|probe| probe.missed.is_empty()).count(),
                verdict: verdict(own.bracket, rate),
            }
        });
        Self { policy: &own.policy, rates: rates.collect() }
    }
}

fn verdict(bracket: Bracket, rate: f64) -> &'static str {
    let (passes, fails) = (
        bracket.passed.is_some_and(|passed| rate <= passed),
        bracket.failed.is_some_and(|failed| rate >= failed),
    );
    match (passes, fails) {
        (true, _) => "PASS",
        (_, true) => "FAIL",
        _ => "UNDECIDED",
    }
}
