use std::time::Duration;

use metron_metrics::{
    Better, Distribution, FluidRate, Judged, Objective, ObjectiveVerdict, RateTarget, RunSummary,
    Scoring, served_alike,
};

use crate::blame::{blame_rows, blamed};
use crate::report::Report;
use crate::units::{milliseconds, percent, seconds, three_digits};

/// One metric of every policy.
pub(crate) struct Row {
    /// What it is, with its unit.
    pub(crate) name: String,
    /// The policies' values, in seconds where they are times.
    pub(crate) values: Vec<Option<f64>>,
    /// How a value is written.
    pub(crate) format: fn(f64) -> String,
    /// The policies' values, as text.
    pub(crate) cells: Vec<String>,
    /// The places of the best.
    pub(crate) best: Vec<usize>,
}

/// The rows of a comparison, in the order in which they are read.
pub(crate) fn rows(report: &Report<'_>) -> Vec<Row> {
    let pooled = report.comparison.policies.iter().map(|row| &row.pooled).collect();
    let mut rows = rows_of(pooled, &Shared::of(&[report.scoring]));
    rows.extend(blame_rows(&blamed(report)));
    rows
}

/// What summaries that stand in one table were scored by alike: a row whose definition they do not
/// share is left out.
pub(crate) struct Shared {
    /// A TBT above this is a stall.
    stall_limit: Option<Duration>,
    /// What counts as fluid.
    rate_target: Option<RateTarget>,
    /// Whether goodput has the same limits.
    has_goodput: bool,
}

impl Shared {
    /// Of what was scored by these.
    pub(crate) fn of(scorings: &[&Scoring]) -> Self {
        let stall_limit = in_common(scorings, |scoring| scoring.stall_limit);
        Self {
            stall_limit: stall_limit.filter(|limit| *limit < Duration::MAX),
            rate_target: in_common(scorings, |scoring| scoring.rate_target),
            has_goodput: in_common(scorings, |scoring| scoring.goodput.clone()).is_some(),
        }
    }
}

/// What all of these have alike.
fn in_common<T: PartialEq>(scorings: &[&Scoring], of: impl Fn(&Scoring) -> T) -> Option<T> {
    let mut parts = scorings.iter().map(|scoring| of(scoring));
    let first = parts.next()?;
    parts.all(|part| part == first).then_some(first)
}

/// The rows of some summaries.
pub(crate) fn rows_of(summaries: Vec<&RunSummary>, shared: &Shared) -> Vec<Row> {
    let table = Table(summaries);
    let mut rows = vec![table.requests()];
    rows.push(
        table.numbers("output tokens/s", Better::Higher, three_digits, |s| s.output_throughput),
    );
    if shared.has_goodput && table.0.iter().any(|summary| summary.goodput.is_some()) {
        rows.push(
            table.numbers("goodput, requests/s", Better::Higher, three_digits, |s| s.goodput),
        );
    }
    rows.push(table.numbers("TTFT P50, ms", Better::Lower, milliseconds, |s| s.ttft.p50));
    rows.push(table.tail("TTFT", |s| &s.ttft));
    rows.push(table.numbers("TBT P50, ms", Better::Lower, milliseconds, |s| s.tbt.p50));
    if table.0.iter().all(|summary| summary.tbt.p99.is_some()) {
        rows.push(table.numbers("TBT P99, ms", Better::Lower, milliseconds, |s| s.tbt.p99));
    }
    rows.push(table.numbers("TBT max, ms", Better::Lower, milliseconds, |s| s.tbt.max));
    if let Some(limit) = shared.stall_limit {
        let name = format!("stalls (> {})", seconds(limit.as_secs_f64()));
        rows.push(table.numbers(&name, Better::Lower, whole, |s| Some(s.stalls.count as f64)));
    }
    rows.push(table.lowest_fluidity());
    rows.push(
        table.numbers("fluidity-index P50", Better::Higher, three_digits, |s| s.fluidity.p50),
    );
    if let Some(RateTarget { index, .. }) = shared.rate_target {
        let name = format!("fluid requests (>= {index}), %");
        rows.push(table.numbers(&name, Better::Higher, percent, |s| s.fluidity.share_fluid));
        rows.extend(table.token_rates());
    }
    if table.0.iter().any(|summary| summary.etalon_fluid_rate.is_some()) {
        let name = "fluid token rate (Etalon's), tokens/s";
        rows.push(table.numbers(name, Better::Higher, three_digits, |s| s.etalon_fluid_rate));
    }
    rows.extend(table.objectives());
    rows.push(table.numbers("preemptions", Better::Lower, whole, |s| {
        s.steps.map(|steps| steps.preemptions as f64)
    }));
    rows.push(table.numbers("time per step, ms", Better::Lower, milliseconds, |s| {
        s.steps.map(|steps| steps.mean_s)
    }));
    if table.0.iter().any(|s| s.steps.is_some_and(|steps| steps.outside_forward.is_some())) {
        rows.push(table.numbers("outside the forward, %", Better::Lower, percent, |s| {
            s.steps.and_then(|steps| steps.outside_forward)
        }));
    }
    rows
}

/// Tokens a second. Where the least deadline is the shortest that there is, a nanosecond, the first
/// token's alone left room for all others.
fn token_rate(rate: f64) -> String {
    const FASTEST: f64 = 1e9;
    if rate >= FASTEST { "any".to_owned() } else { three_digits(rate) }
}

pub(crate) fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn verdict_text(verdict: ObjectiveVerdict) -> &'static str {
    match verdict {
        ObjectiveVerdict::Pass => "PASS",
        ObjectiveVerdict::Fail => "FAIL",
        ObjectiveVerdict::Undecided => "UNDECIDED",
    }
}

struct Table<'a>(Vec<&'a RunSummary>);

impl Table<'_> {
    fn numbers(
        &self,
        name: &str,
        better: Better,
        format: fn(f64) -> String,
        of: impl Fn(&RunSummary) -> Option<f64>,
    ) -> Row {
        let values: Vec<Option<f64>> = self.0.iter().map(|summary| of(summary)).collect();
        let cells: Vec<String> =
            values.iter().map(|value| value.map_or_else(|| "-".to_owned(), format)).collect();
        // What reads alike is alike: a mark on the 0.1 % better would be noise.
        let best = better.best(&values);
        let reads_best = |at: &usize| best.iter().any(|best| cells[*best] == cells[*at]);
        let best: Vec<usize> = (0..cells.len()).filter(reads_best).collect();
        let tells = best.len() < cells.len() && served_alike(&self.0);
        let best = if tells { best } else { Vec::new() };
        Row { name: name.to_owned(), values, format, cells, best }
    }

    fn requests(&self) -> Row {
        let cell = |summary: &&RunSummary| {
            let counts = summary.requests;
            if counts.finished == counts.scheduled {
                counts.finished.to_string()
            } else {
                format!("{} of {}", counts.finished, counts.scheduled)
            }
        };
        let values = self.0.iter().map(|summary| Some(summary.requests.finished as f64)).collect();
        let cells = self.0.iter().map(cell).collect();
        Row { name: "requests done".to_owned(), values, format: whole, cells, best: Vec::new() }
    }

    /// The fluid token generation rate, and what it is compared with.
    fn token_rates(&self) -> [Row; 4] {
        let rate = |name, of: &dyn Fn(&RunSummary) -> Option<f64>| {
            self.numbers(name, Better::Higher, token_rate, of)
        };
        let known = |rate: FluidRate| (rate.requests > 0).then_some(rate.tokens_per_second);
        [
            rate("fluid token rate, tokens/s", &|s| known(s.fluid_rate)),
            rate("  with the first token", &|s| known(s.fluid_rate_with_first_token)),
            rate("  1 / mean TPOT", &|s| s.tpot_rate),
            rate("  1 / P99 TBT", &|s| s.tail_tbt_rate),
        ]
    }

    /// P99 where every policy's sample supports it, else the maximum with the sample's size.
    fn tail(&self, name: &str, of: impl Fn(&RunSummary) -> &Distribution) -> Row {
        if self.0.iter().all(|summary| of(summary).p99.is_some()) {
            let name = format!("{name} P99, ms");
            return self.numbers(&name, Better::Lower, milliseconds, |s| of(s).p99);
        }
        let name = format!("{name} max of {}, ms", self.sizes(|summary| of(summary).n));
        self.numbers(&name, Better::Lower, milliseconds, |s| of(s).max)
    }

    /// Each objective's verdict with the share that keeps it, and their conjunction where all are
    /// judged by the same.
    fn objectives(&self) -> Vec<Row> {
        let mut objectives: Vec<&Objective> = Vec::new();
        for judged in self.0.iter().flat_map(|summary| &summary.objectives) {
            if !objectives.contains(&&judged.objective) {
                objectives.push(&judged.objective);
            }
        }
        let mut rows: Vec<Row> =
            objectives.iter().map(|objective| self.objective(objective)).collect();
        let is_shared = |summary: &&RunSummary| summary.objectives.len() == objectives.len();
        if objectives.len() > 1 && self.0.iter().all(is_shared) {
            let all = |summary: &&RunSummary| {
                verdict_text(ObjectiveVerdict::of_all(&summary.objectives)).to_owned()
            };
            let cells = self.0.iter().map(all).collect();
            let (name, values) = ("all objectives".to_owned(), vec![None; self.0.len()]);
            rows.push(Row { name, values, format: percent, cells, best: Vec::new() });
        }
        rows
    }

    fn objective(&self, objective: &Objective) -> Row {
        let of = |summary: &&RunSummary| {
            summary.objectives.iter().find(|judged| judged.objective == *objective).cloned()
        };
        let judged: Vec<Option<Judged>> = self.0.iter().map(of).collect();
        let cell = |judged: &Option<Judged>| {
            judged.as_ref().map_or_else(
                || "-".to_owned(),
                |judged| {
                    let share = judged.share.map(|share| format!(" {} %", percent(share)));
                    verdict_text(judged.verdict).to_owned() + &share.unwrap_or_default()
                },
            )
        };
        let cells = judged.iter().map(cell).collect();
        let values = judged.iter().map(|judged| judged.as_ref()?.share).collect();
        Row { name: objective.to_string(), values, format: percent, cells, best: Vec::new() }
    }

    /// The policies' sample sizes: one number if they are alike, else from the least to the greatest.
    fn sizes(&self, of: impl Fn(&RunSummary) -> usize) -> String {
        let sizes = || self.0.iter().map(|summary| of(summary));
        match (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0)) {
            (least, most) if least == most => most.to_string(),
            (least, most) => format!("{least} to {most}"),
        }
    }

    fn lowest_fluidity(&self) -> Row {
        if self.0.iter().all(|summary| summary.fluidity.p1.is_some()) {
            return self
                .numbers("fluidity-index P1", Better::Higher, three_digits, |s| s.fluidity.p1);
        }
        let name = format!("fluidity-index min of {}", self.sizes(|summary| summary.fluidity.n));
        self.numbers(&name, Better::Higher, three_digits, |s| s.fluidity.min)
    }
}
