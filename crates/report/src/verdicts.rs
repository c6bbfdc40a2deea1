use metron_metrics::{
    Difference, EQUIVALENCE_MARGIN, Interval, Judgement, MeasureJudgement, NoInterval,
    PolicyJudgement, RECOMMENDED_REPLICATES, Scale, Verdict,
};
use serde::Serialize;

use crate::units::{milliseconds, percent, three_digits};

/// What the replicates say, as text: below the table of the terminal, and a table of the page.
#[derive(Serialize)]
pub(crate) struct Verdicts {
    /// What the numbers are.
    pub(crate) heading: String,
    /// The measures that the verdicts are on.
    pub(crate) headline: Vec<MeasureRows>,
    /// Others, for those who read on.
    pub(crate) beside: Vec<MeasureRows>,
    /// How to read the verdicts; empty where there are none.
    pub(crate) notes: Vec<String>,
}

/// One measure of every policy.
#[derive(Serialize)]
pub(crate) struct MeasureRows {
    /// What it is, with its unit.
    pub(crate) name: String,
    pub(crate) rows: Vec<PolicyRow>,
}

/// One measure of one policy.
#[derive(Serialize)]
pub(crate) struct PolicyRow {
    pub(crate) policy: String,
    /// The value, with its interval where there is one.
    pub(crate) estimate: String,
    /// The paired difference to the baseline.
    pub(crate) difference: String,
    pub(crate) verdict: String,
    /// Whether the verdict says that the policy is better.
    pub(crate) is_better: bool,
    /// Whether it says that it is worse.
    pub(crate) is_worse: bool,
}

impl Verdicts {
    /// `fluid_from` is the fluidity-index from which a request counts as fluid.
    pub(crate) fn new(judgement: &Judgement, fluid_from: f64) -> Self {
        let of = |is_headline: bool| {
            let measures = judgement.measures.iter();
            let chosen = measures.filter(move |measure| measure.is_headline == is_headline);
            chosen.map(|measure| MeasureRows::new(measure, fluid_from)).collect()
        };
        Self {
            heading: heading(judgement),
            headline: of(true),
            beside: of(false),
            notes: notes(judgement),
        }
    }
}

/// What stands for the replicates: of a [`Scale::Ratio`] the mean is taken of logarithms.
const MEAN: &str = "mean, geometric of times and rates";

fn heading(judgement: &Judgement) -> String {
    let replicates = judgement.replicates;
    let confidence = hundredths(1.0 - judgement.level);
    match (judgement.headline_verdicts().count(), replicates) {
        (0, 1) => "Within this one run (95 % interval by batch means):".to_owned(),
        (0, _) => format!("Over {replicates} replicates ({MEAN}, {confidence} % interval):"),
        (_, 1) => format!(
            "Against {}, one replicate (95 % interval by batch means where it is long enough):",
            judgement.baseline
        ),
        _ => format!(
            "Against {}, {replicates} replicates of the same requests ({MEAN}, {confidence} % \
             interval):",
            judgement.baseline
        ),
    }
}

/// A share in percent, to the hundredth where it has any.
fn hundredths(share: f64) -> f64 {
    (share * 1e4).round() / 100.0
}

fn notes(judgement: &Judgement) -> Vec<String> {
    let verdicts: Vec<Verdict> = judgement.headline_verdicts().collect();
    let left_out = match judgement.left_out {
        0 => None,
        1 => Some("1 run was cut short, and is left out here.".to_owned()),
        several => Some(format!("{several} runs were cut short, and are left out here.")),
    };
    let mut notes = Vec::from_iter(left_out);
    if verdicts.is_empty() {
        return notes;
    }
    notes.push(format!(
        "BETTER and WORSE: at {} % for all {} together (paired t, sign flips, Holm). EQUIVALENT: \
         within {:.0} %.",
        hundredths(judgement.level),
        verdicts.len(),
        EQUIVALENCE_MARGIN * 100.0,
    ));
    let is_few = judgement.replicates < RECOMMENDED_REPLICATES as usize;
    if is_few && verdicts.contains(&Verdict::Undecided) {
        let why = match judgement.replicates {
            1 => "one says nothing of what chance does".to_owned(),
            few => format!("{few} say little of what chance does"),
        };
        notes.push(format!("{RECOMMENDED_REPLICATES} replicates recommended: {why}."));
    }
    let differences = judgement.headline().flat_map(|measure| &measure.policies);
    if differences.filter_map(|policy| policy.difference.as_ref()?.further_replicates).count() > 0 {
        notes.push("UNDECIDED (n more): n further replicates are likely to settle it.".to_owned());
    }
    notes
}

impl MeasureRows {
    fn new(judged: &MeasureJudgement, fluid_from: f64) -> Self {
        let (name, format) = shown(&judged.measure, fluid_from);
        let is = |policy: &PolicyJudgement, verdict| {
            policy.difference.as_ref().is_some_and(|difference| difference.verdict == verdict)
        };
        let row = |policy: &PolicyJudgement| PolicyRow {
            policy: policy.policy.clone(),
            estimate: if judged.policies.len() > 1 {
                estimate(policy, format)
            } else {
                estimate(policy, format) + &no_interval(policy)
            },
            difference: policy
                .difference
                .as_ref()
                .map_or_else(String::new, |difference| difference_text(difference, judged.scale)),
            verdict: policy.difference.as_ref().map_or_else(String::new, verdict),
            is_better: is(policy, Verdict::Better),
            is_worse: is(policy, Verdict::Worse),
        };
        Self { name, rows: judged.policies.iter().map(row).collect() }
    }
}

/// How a measure is called and written.
fn shown(measure: &str, fluid_from: f64) -> (String, fn(f64) -> String) {
    let (name, format): (&str, fn(f64) -> String) = match measure {
        "share_fluid" => return (format!("fluid requests (>= {fluid_from}), %"), percent),
        "ttft_p50_s" => ("TTFT P50, ms", milliseconds),
        "tbt_p99_s" => ("TBT P99, ms", milliseconds),
        "output_tokens_per_s" => ("output tokens/s", three_digits),
        "fluid_tokens_per_s" => ("fluid token rate, tokens/s", three_digits),
        "ttft_mean_s" => ("mean TTFT, ms", milliseconds),
        "tpot_mean_s" => ("mean TPOT, ms", milliseconds),
        "end_to_end_p50_s" => ("end-to-end latency P50, ms", milliseconds),
        key => (key, three_digits),
    };
    (name.to_owned(), format)
}

fn estimate(policy: &PolicyJudgement, format: fn(f64) -> String) -> String {
    let Some(value) = policy.estimate else { return "-".to_owned() };
    let interval = policy.interval.map_or_else(String::new, |Interval { low, high }| {
        if high > UNTOLD * low && low > 0.0 {
            return " [no telling]".to_owned();
        }
        format!(" [{}, {}]", format(low), format(high))
    });
    format!("{}{interval}", format(value))
}

/// An interval whose ends are so many times apart says nothing: two replicates give such.
const UNTOLD: f64 = 1000.0;

/// Why a single run has no interval, and how much longer it would have to be.
fn no_interval(policy: &PolicyJudgement) -> String {
    match policy.no_interval {
        None => String::new(),
        Some(NoInterval::NothingVaries { .. }) => ", no interval: too little varies".to_owned(),
        Some(NoInterval::TooShort { values, needed, .. }) => {
            let times = (needed as f64 / values.max(1) as f64).ceil().max(2.0);
            format!(", run too short for an interval (about {times:.0} times as long would do)")
        }
    }
}

fn difference_text(difference: &Difference, scale: Scale) -> String {
    let Some(estimate) = difference.estimate else {
        return "no pairs".to_owned();
    };
    let unit = match scale {
        Scale::Ratio => "%",
        Scale::Share => "points",
    };
    let interval = difference.interval.map_or_else(String::new, |Interval { low, high }| {
        if high + 1.0 > UNTOLD * (low + 1.0) {
            return " [no telling]".to_owned();
        }
        format!(" [{}, {}]", signed(low), signed(high))
    });
    format!("{} {unit}{interval}", signed(estimate))
}

/// A difference of 0.123 as `+12.3`.
fn signed(difference: f64) -> String {
    let percent = difference * 100.0;
    if percent.abs() < 99.95 { format!("{percent:+.1}") } else { format!("{percent:+.0}") }
}

fn verdict(difference: &Difference) -> String {
    match (difference.verdict, difference.further_replicates) {
        (Verdict::Better, _) => "BETTER".to_owned(),
        (Verdict::Worse, _) => "WORSE".to_owned(),
        (Verdict::Equivalent, _) => "EQUIVALENT".to_owned(),
        (Verdict::Undecided, Some(further)) => format!("UNDECIDED ({further} more)"),
        (Verdict::Undecided, None) => "UNDECIDED".to_owned(),
    }
}
