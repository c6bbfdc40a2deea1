use std::collections::BTreeMap;
use std::time::Duration;

use metron_trace::{RequestId, StepRecord, Trace, WorkKind};
use serde::{Deserialize, Serialize};

use crate::blame::{Blame, blame};
use crate::judgement::{Judgement, Judging};
use crate::summary::{RunSummary, Scoring, summarise};
use crate::timeline::timelines;

/// One run of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct RunOf<'a> {
    /// Label of the policy.
    pub policy: &'a str,
    /// Which repetition, from 0.
    pub replicate: u32,
    /// Its trace.
    pub trace: &'a Trace,
}

impl<'a> RunOf<'a> {
    /// Of a trace, as its header names it.
    pub fn of(trace: &'a Trace) -> Self {
        let header = &trace.header;
        Self { policy: &header.policy.label, replicate: header.replicate, trace }
    }
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Small values.
    Lower,
    /// Large values.
    Higher,
}

impl Better {
    /// The places of the best of some values; none if all are alike or absent.
    pub fn best(self, values: &[Option<f64>]) -> Vec<usize> {
        let present = || values.iter().flatten().copied();
        let best = match self {
            Self::Lower => present().fold(f64::INFINITY, f64::min),
            Self::Higher => present().fold(f64::NEG_INFINITY, f64::max),
        };
        if present().all(|value| value.total_cmp(&best).is_eq()) {
            return Vec::new();
        }
        let is_best = |at: &usize| values[*at].is_some_and(|value| value.total_cmp(&best).is_eq());
        (0..values.len()).filter(is_best).collect()
    }
}

/// Several policies on the same requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// A row for each policy, in the order of the comparison.
    pub policies: Vec<PolicyRow>,
    /// Two or three sentences that say what separates them.
    pub sentences: Vec<String>,
    /// What the replicates say, with confidence; `None` without a whole run.
    pub judgement: Option<Judgement>,
}

/// One policy in a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Its label.
    pub policy: String,
    /// Replicates pooled.
    pub replicates: u32,
    /// All of its runs, pooled.
    pub pooled: RunSummary,
    /// Its longest TBT, and what stood behind it; `None` if no request had two tokens.
    pub longest_stall: Option<StallStory>,
    /// What its missed deadlines were missed for, in all its runs: estimated. `None` where a trace
    /// has no steps, no calibration or no deadlines.
    pub estimated_blame: Option<Blame>,
}

/// A gap between two tokens of a request, and what the engine did meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallStory {
    /// The repetition, from 0; from 1 in JSON.
    #[serde(with = "crate::from_one")]
    pub replicate: u32,
    /// The request that waited.
    pub request: RequestId,
    /// The token it waited for, from 0.
    pub token: u32,
    /// How long, in seconds.
    #[serde(with = "crate::seconds")]
    pub gap: Duration,
    /// Steps that ended meanwhile.
    pub steps: u32,
    /// The longest of them; `None` in a trace without steps.
    pub step: Option<u64>,
    /// Prefills (and recomputations) of other requests meanwhile: request and tokens, the largest
    /// first.
    pub behind: Vec<(RequestId, u32)>,
    /// Whether the request itself had been preempted meanwhile.
    pub was_preempted: bool,
}

impl Comparison {
    /// Pools each policy's runs and finds what separates the policies. Runs of a policy that are
    /// not in `policies` are left out.
    pub fn new(policies: &[&str], runs: &[RunOf<'_>], scoring: &Scoring) -> Self {
        Self::judged(policies, runs, scoring, &Judging::default())
    }

    /// The same, held against the baseline and at the level of `judging`.
    pub fn judged(
        policies: &[&str],
        runs: &[RunOf<'_>],
        scoring: &Scoring,
        judging: &Judging,
    ) -> Self {
        let judgement = Judgement::new(policies, runs, scoring, judging);
        let policies: Vec<PolicyRow> = policies
            .iter()
            .map(|policy| {
                let own: Vec<&RunOf<'_>> =
                    runs.iter().filter(|run| run.policy == *policy).collect();
                let traces: Vec<&Trace> = own.iter().map(|run| run.trace).collect();
                PolicyRow {
                    policy: (*policy).to_owned(),
                    replicates: own.len() as u32,
                    pooled: summarise(&traces, scoring),
                    estimated_blame: blame(&traces, scoring),
                    longest_stall: own
                        .iter()
                        .rev() // the first of equals
                        .filter_map(|run| longest_stall(run))
                        .max_by_key(|story| story.gap),
                }
            })
            .filter(|row| row.replicates > 0)
            .collect();
        let pooled: Vec<&RunSummary> = policies.iter().map(|row| &row.pooled).collect();
        let can_be_told = policies.len() > 1 && served_alike(&pooled);
        let sentences = if can_be_told { sentences(&policies) } else { Vec::new() };
        Self { policies, sentences, judgement }
    }
}

/// Whether all policies served their requests to the end: of an interrupted comparison the last one
/// has the fewest stalls, since it has the fewest tokens.
pub fn served_alike(pooled: &[&RunSummary]) -> bool {
    pooled.iter().all(|summary| summary.requests.num_cut_off() == 0)
}

/// The longest gap of a run, the first of equals.
fn longest_stall(run: &RunOf<'_>) -> Option<StallStory> {
    let (timeline, token) = timelines(run.trace)
        .into_iter()
        .rev()
        .filter_map(|timeline| {
            let gaps = timeline.inter_token_ns();
            let later = gaps.iter().enumerate().skip(1);
            let (token, gap) = later.rev().max_by_key(|(_, gap)| **gap)?;
            Some((*gap, (timeline, token)))
        })
        .max_by_key(|(gap, _)| *gap)?
        .1;
    let (from, to) = (timeline.tokens_at[token - 1], timeline.tokens_at[token]);
    let meanwhile: Vec<&StepRecord> =
        run.trace.steps.iter().filter(|s| s.ended_at > from && s.ended_at <= to).collect();
    let mut prefills: BTreeMap<RequestId, u32> = BTreeMap::new();
    for work in meanwhile.iter().flat_map(|step| &step.work) {
        if work.kind != WorkKind::Decode && work.request != timeline.request {
            let tokens = prefills.entry(work.request).or_default();
            *tokens = tokens.saturating_add(work.tokens);
        }
    }
    let mut behind: Vec<(RequestId, u32)> = prefills.into_iter().collect();
    behind.sort_by_key(|(request, tokens)| (std::cmp::Reverse(*tokens), *request));
    Some(StallStory {
        replicate: run.replicate,
        request: timeline.request,
        token: token as u32,
        gap: to - from,
        steps: meanwhile.len() as u32,
        step: meanwhile.iter().rev().max_by_key(|step| step.took()).map(|step| step.index),
        behind,
        was_preempted: meanwhile
            .iter()
            .flat_map(|step| &step.preemptions)
            .any(|preemption| preemption.request == timeline.request),
    })
}

/// What separates the policies: the longest stalls, the waits for the first token, fluidity.
fn sentences(policies: &[PolicyRow]) -> Vec<String> {
    [stall_sentence(policies), wait_sentence(policies), fluidity_sentence(policies)]
        .into_iter()
        .flatten()
        .collect()
}

/// The policies with the smallest and the largest value; `None` if those read alike.
fn extremes(
    policies: &[PolicyRow],
    of: impl Fn(&PolicyRow) -> Option<f64>,
    text: fn(f64) -> String,
) -> Option<[(&PolicyRow, f64); 2]> {
    let mut valued: Vec<(&PolicyRow, f64)> =
        policies.iter().filter_map(|row| Some((row, of(row)?))).collect();
    valued.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (least, most) = (*valued.first()?, *valued.last()?);
    (text(least.1) != text(most.1)).then_some([least, most])
}

fn stall_sentence(policies: &[PolicyRow]) -> Option<String> {
    let longest = |row: &PolicyRow| Some(row.longest_stall.as_ref()?.gap.as_secs_f64());
    let [(best, shortest), (worst, gap)] = extremes(policies, longest, seconds)?;
    let story = worst.longest_stall.as_ref()?;
    Some(format!(
        "The longest stall was {}'s: {} waited {} for its {} token, {}{}; {}'s longest was {}.",
        worst.policy,
        story.request,
        seconds(gap),
        ordinal(story.token.saturating_add(1)),
        story.place(),
        story.why(),
        best.policy,
        seconds(shortest),
    ))
}

impl StallStory {
    /// The replicate, and the step; of several the longest. A trace without steps has none.
    fn place(&self) -> String {
        let replicate = self.replicate + 1;
        match (self.steps, self.step) {
            (_, None) => format!("in replicate {replicate}"),
            (1, Some(step)) => format!("in step {step} of replicate {replicate}"),
            (steps, Some(step)) => {
                format!("over {steps} steps of replicate {replicate} (longest: step {step})")
            }
        }
    }

    /// What it waited for.
    fn why(&self) -> String {
        match (self.was_preempted, self.behind.as_slice()) {
            (true, _) => ", preempted and computed again".to_owned(),
            (false, []) => String::new(),
            (false, [(other, tokens)]) => {
                format!(", behind the prefill of {other} ({tokens} tokens)")
            }
            (false, [(other, tokens), ..]) => format!(
                ", behind {} prefills (the largest {other}'s, {tokens} tokens)",
                self.behind.len()
            ),
        }
    }
}

/// As people count: 1st, 2nd, 3rd, 4th, 11th, 21st.
fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
}

fn wait_sentence(policies: &[PolicyRow]) -> Option<String> {
    let [(best, shortest), (worst, longest)] =
        extremes(policies, |row| row.pooled.ttft.p50, seconds)?;
    let waiting = worst.pooled.scheduling_delay.p50;
    let queued = waiting.filter(|delay| *delay > longest / 2.0).map_or_else(String::new, |delay| {
        format!(", of which {} were spent waiting to be scheduled", seconds(delay))
    });
    Some(format!(
        "Half of the requests had their first token within {} under {}, and within {} under {}{queued}.",
        seconds(shortest),
        best.policy,
        seconds(longest),
        worst.policy,
    ))
}

fn fluidity_sentence(policies: &[PolicyRow]) -> Option<String> {
    let [(worst, least), (best, most)] =
        extremes(policies, |row| row.pooled.fluidity.share_fluid, percent)?;
    Some(format!(
        "{} kept {} of the requests fluid, {} {}.",
        best.policy,
        percent(most),
        worst.policy,
        percent(least),
    ))
}

/// Only a whole is 100 %, and only nothing is 0.
fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p >= 99.5 && share < 1.0 => format!("{:.1} %", p.min(99.9)),
        p if p < 0.5 && share > 0.0 => format!("{:.1} %", p.max(0.1)),
        p => format!("{p:.0} %"),
    }
}

/// A time with three digits and a unit that suits it.
fn seconds(value: f64) -> String {
    match value {
        v if v >= 10.0 => format!("{v:.1} s"),
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 0.1 => format!("{:.0} ms", v * 1e3),
        v => format!("{:.1} ms", v * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_as_people_count() {
        let counted = [1, 2, 3, 4, 11, 12, 13, 21, 22, 111, 112, 123].map(ordinal);
        let expected = [
            "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "111th", "112th",
            "123rd",
        ];
        assert_eq!(counted, expected);
    }
}
