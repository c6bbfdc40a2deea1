use serde::{Deserialize, Serialize};

use crate::comparison::{Better, RunOf};
use crate::identity::are_paired;
use crate::measure::{MEASURES, Measure, Scale};
use crate::statistics::{Interval, LEVEL, NoInterval, Sample};
use crate::summary::{RunSummary, Scoring, in_order, summarise};
use crate::verdict::{Difference, Pairs, Verdict, judge};

/// How policies are held against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judging {
    /// The policy that the others are compared with; `None`: the first.
    pub baseline: Option<String>,
    /// The chance to call any two equal policies different, of all headline verdicts together.
    pub level: f64,
}

impl Default for Judging {
    fn default() -> Self {
        Self { baseline: None, level: LEVEL }
    }
}

/// What the replicates say: estimates with their intervals, differences with their verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The policy that the others are compared with.
    pub baseline: String,
    /// The level of all headline verdicts together.
    pub level: f64,
    /// The most whole runs of a policy.
    pub replicates: usize,
    /// Runs that were cut short, and left out.
    #[serde(default)]
    pub left_out: usize,
    /// Measure by measure, headline measures first.
    pub measures: Vec<MeasureJudgement>,
}

/// One measure of every policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureJudgement {
    /// Its key.
    pub measure: String,
    /// Whether its verdicts share the level.
    pub is_headline: bool,
    /// Which way it is better.
    pub better: Better,
    /// How its values are compared.
    pub scale: Scale,
    /// The policies, in the order of the comparison.
    pub policies: Vec<PolicyJudgement>,
}

/// One measure of one policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyJudgement {
    /// Its label.
    pub policy: String,
    /// Whole runs with a value.
    pub replicates: usize,
    /// Their mean: geometric of times and rates, arithmetic of shares; `None` of none.
    pub estimate: Option<f64>,
    /// Where the mean over all seeds lies: by Student's t over replicates, at 1 less the level, or by
    /// batch means where there is one run, at 95 %. `None` where neither can say.
    pub interval: Option<Interval>,
    /// Why a single run has no interval.
    pub no_interval: Option<NoInterval>,
    /// Against the baseline; `None` of the baseline itself.
    pub difference: Option<Difference>,
}

/// A whole run, and what it is compared by.
struct WholeRun<'a> {
    run: &'a RunOf<'a>,
    summary: RunSummary,
}

impl<'a> WholeRun<'a> {
    fn all(runs: &'a [RunOf<'a>], scoring: &Scoring) -> Vec<Self> {
        let summarised =
            runs.iter().map(|run| WholeRun { run, summary: summarise(&[run.trace], scoring) });
        summarised
            .filter(|whole| whole.summary.requests.are_whole(whole.run.trace.header.origin))
            .collect()
    }
}

impl Judgement {
    /// Of these policies on these runs; `None` without a whole run. Policies without one are left
    /// out, and so are measures of which no run has a value. A baseline that is not there is the
    /// first policy.
    pub fn new(
        policies: &[&str],
        runs: &[RunOf<'_>],
        scoring: &Scoring,
        judging: &Judging,
    ) -> Option<Self> {
        let whole = WholeRun::all(runs, scoring);
        let of = |policy: &str| -> Vec<&WholeRun<'_>> {
            whole.iter().filter(|whole| whole.run.policy == policy).collect()
        };
        let has_run = |policy: &&str| !of(policy).is_empty();
        let policies: Vec<&str> = policies.iter().copied().filter(has_run).collect();
        let named = judging.baseline.as_deref().filter(|named| policies.contains(named));
        let baseline = named.or(policies.first().copied())?;
        let has_value =
            |measure: &&Measure| whole.iter().any(|whole| (measure.of)(&whole.summary).is_some());
        let measures: Vec<&Measure> = MEASURES.iter().filter(has_value).collect();
        let others = || policies.iter().filter(|own| **own != baseline);
        let compared =
            measures.iter().flat_map(|measure| others().map(move |own| (*measure, *own)));
        let pairs: Vec<Pairs> =
            compared.map(|(measure, own)| pairs(measure, &of(baseline), &of(own))).collect();
        let mut differences = judge(&pairs, judging.level).into_iter();
        let mut policy_judgement = |measure: &Measure, policy: &str| {
            let difference = if policy == baseline { None } else { differences.next() };
            let runs = of(policy);
            PolicyJudgement { difference, ..estimated(measure, policy, &runs, scoring, judging) }
        };
        let judged = |measure: &&Measure| MeasureJudgement {
            measure: measure.key.to_owned(),
            is_headline: measure.is_headline(),
            better: measure.better,
            scale: measure.scale,
            policies: policies.iter().map(|policy| policy_judgement(measure, policy)).collect(),
        };
        Some(Self {
            baseline: baseline.to_owned(),
            level: judging.level,
            replicates: policies.iter().map(|policy| of(policy).len()).max().unwrap_or(0),
            left_out: runs.len() - whole.len(),
            measures: measures.iter().map(judged).collect(),
        })
    }

    /// The headline measures.
    pub fn headline(&self) -> impl Iterator<Item = &MeasureJudgement> {
        self.measures.iter().filter(|measure| measure.is_headline)
    }

    /// The headline verdicts, one for each measure and policy but the baseline.
    pub fn headline_verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.headline()
            .flat_map(|measure| &measure.policies)
            .filter_map(|policy| Some(policy.difference.as_ref()?.verdict))
    }

    /// Whether no headline verdict is open.
    pub fn is_decided(&self) -> bool {
        self.headline_verdicts().all(|verdict| verdict != Verdict::Undecided)
    }
}

/// The values of the replicates that both have, where both served the same requests.
fn pairs(measure: &Measure, baseline: &[&WholeRun<'_>], own: &[&WholeRun<'_>]) -> Pairs {
    let values = baseline.iter().filter_map(|base| {
        let other = own.iter().find(|own| are_paired(base.run, own.run))?;
        Some(((measure.of)(&base.summary), (measure.of)(&other.summary)))
    });
    Pairs {
        is_headline: measure.is_headline(),
        better: measure.better,
        scale: measure.scale,
        values: values.collect(),
    }
}

/// A policy's mean over its replicates, or its one run's value, without the difference.
fn estimated(
    measure: &Measure,
    policy: &str,
    runs: &[&WholeRun<'_>],
    scoring: &Scoring,
    judging: &Judging,
) -> PolicyJudgement {
    let values: Vec<f64> = runs.iter().filter_map(|run| (measure.of)(&run.summary)).collect();
    let inward: Vec<f64> = values.iter().filter_map(|value| measure.scale.inward(*value)).collect();
    let outward = |value| measure.scale.outward(value);
    let sample = Sample::of(&inward).filter(|sample| sample.n == values.len());
    let within = match runs {
        [single] => measure.within.map(|within| within(&in_order(single.run.trace, scoring))),
        _ => None,
    };
    PolicyJudgement {
        policy: policy.to_owned(),
        replicates: values.len(),
        estimate: sample.map(|sample| outward(sample.mean)),
        interval: match within {
            Some(within) => within.ok().map(|steady| steady.interval),
            None => sample.and_then(|s| s.interval(1.0 - judging.level)).map(|i| i.map(outward)),
        },
        no_interval: within.and_then(Result::err),
        difference: None,
    }
}
