use std::collections::VecDeque;
use std::time::Duration;

use metron_engine::{
    CostModel, Engine, Event, Planner, Refused, RunEnd, Scheduler, StepObserver, Submission, Wake,
};
use metron_metrics::{fit_prefill, order_statistic};
use metron_trace::{
    Calibration, DecodePoint, Limits, Request, RequestId, Sampling, StepRecord, Timestamp, Work,
    WorkKind,
};
use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::record::StepRecorder;
use crate::rig::Rig;

/// What to measure in isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationPlan {
    /// Prompt lengths to prefill, each alone in its step.
    pub prefill_lengths: Vec<u32>,
    /// Times each length is measured.
    pub repeats: u32,
    /// Batch sizes to decode.
    pub decode_batches: Vec<u32>,
    /// Positions in each decoding sequence's KV cache.
    pub context: u32,
    /// Decode steps measured at each batch size.
    pub decode_steps: u32,
}

impl CalibrationPlan {
    /// Three repeats over the lengths a workload's prompts and their chunks have, a few batch sizes:
    /// some ten seconds with a small model on a small machine.
    pub fn quick(shortest: u32, longest: u32, limits: &Limits) -> Self {
        Self::over(shortest, longest, limits, 3)
    }

    /// Ten repeats of the same.
    pub fn thorough(shortest: u32, longest: u32, limits: &Limits) -> Self {
        Self::over(shortest, longest, limits, 10)
    }

    fn over(shortest: u32, longest: u32, limits: &Limits, repeats: u32) -> Self {
        let longest = longest.clamp(1, limits.max_model_len.saturating_sub(1).max(1));
        let shortest = shortest.clamp(1, longest);
        // Policies cut prompts into chunks, and one length alone does not say what a token costs.
        let chunk = shortest.min(longest.div_ceil(4));
        let mut prefill_lengths = vec![chunk, u32::midpoint(chunk, longest), longest];
        prefill_lengths.dedup();
        let context = shortest.max(longest / 8).min(limits.max_model_len / 2).max(1);
        // A sequence decodes for as long as the context has room, up to twice the repeats.
        let room = limits.max_model_len.saturating_sub(context + UNCOUNTED);
        let decode_steps = room.min(2 * repeats);
        let blocks = limits.blocks_for(context + UNCOUNTED + decode_steps);
        let fits = |batch: &u32| {
            decode_steps > 0
                && *batch <= limits.max_num_seqs
                && batch.saturating_mul(blocks) < limits.num_blocks
        };
        let decode_batches = [1, 2, 4, 8, 16].into_iter().filter(fits).collect();
        Self { prefill_lengths, repeats, decode_batches, context, decode_steps }
    }
}

/// Tokens of a decoding sequence that are not measured: the prefill's, the first step's, and two
/// beside chunks of another's prefill.
const UNCOUNTED: u32 = 4;

/// What was measured: the fits, and every step, for a cost model to be fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// The prefill curve and the decode steps.
    pub calibration: Calibration,
    /// What ran in each step, and how long it took.
    pub steps: Vec<(Vec<Work>, Duration)>,
}

impl Calibrated {
    /// By how much steps that carry decodes and a prefill chunk exceed their prediction, as a
    /// factor: the 95th percentile, and at least 1. A limit divided by it holds for nearly every
    /// such step.
    pub fn hybrid_excess(&self, cost_model: &dyn CostModel) -> f64 {
        let has = |work: &[Work], kind| work.iter().any(|part| part.kind == kind);
        let hybrid = self
            .steps
            .iter()
            .filter(|(work, _)| has(work, WorkKind::Decode) && has(work, WorkKind::Prefill));
        let ratio = |(work, took): &(Vec<Work>, Duration)| {
            took.as_secs_f64() / cost_model.step_time(work).as_secs_f64()
        };
        let mut ratios: Vec<f64> = hybrid.map(ratio).filter(|ratio| ratio.is_finite()).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        order_statistic(&ratios, 0.95).unwrap_or(1.0).max(1.0)
    }
}

/// Measures isolated prefills, isolated decodes, and decodes with a prefill chunk beside them, on
/// the system under test itself: that is how deadlines adjust to a system.
///
/// The first step of each kind does not count, so that no first use of a buffer is in it. `watch`
/// is told of every step, and may stop the calibration.
pub fn calibrate(
    rig: &mut dyn Rig,
    plan: &CalibrationPlan,
    watch: &mut dyn StepObserver,
) -> Result<Calibrated, LabError> {
    let mut prefills = Vec::new();
    for &length in &plan.prefill_lengths {
        let mini_run = MiniRun::prefills(length, plan.repeats + 1);
        prefills.extend(mini_run.run(rig, watch)?.into_iter().skip(1));
    }
    let points: Vec<(u32, Duration)> =
        prefills.iter().map(|step| (step.tokens(), step.took())).collect();
    let prefill = fit_prefill(&points).ok_or(LabError::NothingMeasured)?;

    let mut steps = prefills;
    let mut decode = Vec::new();
    for &batch in &plan.decode_batches {
        let all = MiniRun::decodes(batch, plan.context, plan.decode_steps).run(rig, watch)?;
        let of_batch: Vec<StepRecord> =
            all.into_iter().filter(|step| is_decode(step, batch)).skip(1).collect();
        let times = of_batch.iter().filter(|step| step.tokens() == batch).map(StepRecord::took);
        if let Some(step_time) = median(times.collect()) {
            decode.push(DecodePoint { batch, context: plan.context, step_time });
        }
        steps.extend(of_batch);
    }
    let steps = steps.into_iter().map(|step| (step.work.clone(), step.took())).collect();
    Ok(Calibrated { calibration: Calibration { prefill, decode }, steps })
}

/// A few steps of the sizes that runs have, so that nothing of a run is a first time.
pub(crate) fn warm_up(rig: &mut dyn Rig) -> Result<(), LabError> {
    let limits = rig.limits();
    let prompt_tokens = (limits.max_model_len / 4).max(1);
    let output_tokens = (limits.max_model_len - prompt_tokens).clamp(1, 6);
    let blocks = limits.blocks_for(prompt_tokens + output_tokens).max(1);
    let sequences = (limits.num_blocks / blocks).min(limits.max_num_seqs / 4).clamp(1, 4);
    MiniRun::alike(sequences, prompt_tokens, output_tokens).serve(rig, &mut ())
}

/// Whether `batch` sequences decode in a step, with or without a prefill chunk beside them.
fn is_decode(step: &StepRecord, batch: u32) -> bool {
    step.tokens_of(WorkKind::Decode) == batch
}

/// Of an even number of times the middle between the two in the middle.
fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    let (lower, upper) = (times.get(times.len().checked_sub(1)? / 2)?, times.get(times.len() / 2)?);
    Some((*lower + *upper) / 2)
}

/// A run of some like sequences, all there at the start.
pub(crate) struct MiniRun {
    sequences: u32,
    prompt_tokens: u32,
    output_tokens: u32,
    /// Prompt of one more, prefilled in two chunks beside the others' last decodes.
    joins: Option<u32>,
}

impl MiniRun {
    pub(crate) fn alike(sequences: u32, prompt_tokens: u32, output_tokens: u32) -> Self {
        Self { sequences, prompt_tokens, output_tokens, joins: None }
    }

    fn prefills(length: u32, repeats: u32) -> Self {
        Self::alike(repeats, length, 1)
    }

    fn decodes(batch: u32, context: u32, decode_steps: u32) -> Self {
        let output_tokens = decode_steps + UNCOUNTED;
        Self { sequences: batch, prompt_tokens: context, output_tokens, joins: Some(2 * context) }
    }

    fn run(
        &self,
        rig: &mut dyn Rig,
        watch: &mut dyn StepObserver,
    ) -> Result<Vec<StepRecord>, LabError> {
        let mut steps = StepRecorder::default();
        self.serve(rig, &mut (&mut steps, watch))?;
        Ok(steps.0)
    }

    /// Serves the requests on a rig that starts over.
    pub(crate) fn serve(
        &self,
        rig: &mut dyn Rig,
        observer: &mut dyn StepObserver,
    ) -> Result<(), LabError> {
        let limits = rig.limits();
        let submissions: Vec<Submission> = self.submissions(rig.ordinary_token_ids(), &limits);
        let engine =
            Engine { policy: "calibration", limits, max_concurrency: None, cost_model: None };
        let mut policy =
            Isolated { joins_from: self.output_tokens.saturating_sub(2), ..Isolated::default() };
        let end = engine.run(rig.start()?, &mut policy, submissions, observer)?;
        if end == RunEnd::Stopped { Err(LabError::Interrupted) } else { Ok(()) }
    }

    fn submissions(&self, ids: &[u32], limits: &Limits) -> Vec<Submission> {
        let joins =
            self.joins.map(|prompt| prompt.min(limits.max_model_len - 1)).filter(|prompt| {
                let others = limits.blocks_for(self.prompt_tokens + self.output_tokens);
                let blocks = self.sequences * others + limits.blocks_for(*prompt);
                self.sequences < limits.max_num_seqs && blocks <= limits.num_blocks
            });
        let alike = std::iter::repeat_n(
            (self.prompt_tokens, self.output_tokens, 0),
            self.sequences as usize,
        );
        alike
            .chain(joins.map(|prompt| (prompt, 1, JOINS)))
            .zip(0..)
            .map(|((prompt_tokens, output_tokens, class), id)| Submission {
                request: Request {
                    id: RequestId(id),
                    arrived_at: Timestamp::ZERO,
                    prompt_tokens,
                    output_tokens: Some(output_tokens),
                    max_tokens: output_tokens,
                    class,
                    priority: 0,
                    deadlines: None,
                    sampling: Sampling::GREEDY,
                },
                prompt: ids
                    .iter()
                    .cycle()
                    .skip(id as usize)
                    .step_by(7)
                    .take(prompt_tokens as usize)
                    .copied()
                    .collect(),
            })
            .collect()
    }
}

/// The class of the request that joins decodes.
const JOINS: u32 = 1;

/// Prefills one request a step, whole and alone; then decodes all together; the one that joins
/// is prefilled in two chunks beside the last decodes.
#[derive(Default)]
struct Isolated {
    waiting: VecDeque<RequestId>,
    decoding: Vec<RequestId>,
    joining: Option<RequestId>,
    /// The one that joins starts when the others have so many tokens.
    joins_from: u32,
}

impl Scheduler for Isolated {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(view) if view.class() == JOINS => self.joining = Some(view.id()),
            Event::Arrived(view) => self.waiting.push_back(view.id()),
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => {
                self.decoding.retain(|decoding| *decoding != id);
                self.joining = self.joining.filter(|joining| *joining != id);
            }
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        if let Some(id) = self.waiting.pop_front() {
            plan.admit(id, 0, 0)?;
            plan.run(id, u32::MAX)?;
            self.decoding.push(id);
            return Ok(Wake::OnEvent);
        }
        for &id in &self.decoding {
            plan.run(id, 1)?;
        }
        let others_are_due = self
            .decoding
            .iter()
            .filter_map(|id| plan.view(*id))
            .all(|view| view.generated() >= self.joins_from);
        if let Some(id) = self.joining.filter(|_| others_are_due) {
            // Admitted already when its second chunk comes: the refusal changes nothing.
            let _ = plan.admit(id, 0, 0);
            let half = plan.view(id).map_or(1, |view| view.prompt_tokens().div_ceil(2));
            plan.run(id, half)?;
        }
        Ok(Wake::OnEvent)
    }
}

#[cfg(test)]
mod tests {
    use metron_trace::PrefillFit;

    use super::*;

    /// 10 ms a step, whatever is in it.
    struct Flat;

    impl CostModel for Flat {
        fn step_time(&self, _work: &[Work]) -> Duration {
            Duration::from_millis(10)
        }
    }

    fn step(kinds: &[WorkKind], ms: u64) -> (Vec<Work>, Duration) {
        let part = |&kind| Work { request: RequestId(0), context: 1, tokens: 1, kind };
        (kinds.iter().map(part).collect(), Duration::from_millis(ms))
    }

    #[test]
    fn prompts_that_are_all_alike_are_calibrated_at_three_lengths() {
        let limits =
            Limits { block_size: 16, num_blocks: 100, max_num_seqs: 8, max_model_len: 1024 };
        let lengths =
            |shortest, longest| CalibrationPlan::quick(shortest, longest, &limits).prefill_lengths;
        assert_eq!(lengths(128, 128), [32, 80, 128]);
        assert_eq!(lengths(500, 1000), [250, 625, 1000]);
        assert_eq!(lengths(20, 1000), [20, 510, 1000], "the workload's own, where it has both");
        assert_eq!(lengths(1, 1), [1]);
    }

    #[test]
    fn the_excess_is_that_of_hybrid_steps_and_never_a_bonus() {
        let prefill = PrefillFit {
            curve: metron_trace::PrefillCurve { a: 0.0, b: 0.0, c: 0.0 },
            points: Vec::new(),
            relative_residual: 0.0,
        };
        let excess_of = |steps| {
            let calibration = Calibration { prefill: prefill.clone(), decode: Vec::new() };
            format!("{:.2}", Calibrated { calibration, steps }.hybrid_excess(&Flat))
        };
        let hybrid = [WorkKind::Prefill, WorkKind::Decode];
        let slow_decode = step(&[WorkKind::Decode], 50);
        assert_eq!(excess_of(vec![slow_decode.clone()]), "1.00");
        assert_eq!(excess_of(vec![slow_decode.clone(), step(&hybrid, 8)]), "1.00");
        assert_eq!(excess_of(vec![slow_decode, step(&hybrid, 12), step(&hybrid, 11)]), "1.20");
        // Of twenty the 95th percentile is the nineteenth, and not the largest.
        assert_eq!(excess_of((11..=30).map(|ms| step(&hybrid, ms)).collect()), "2.90");
    }

    #[test]
    fn the_median_of_an_even_number_of_times_is_between_the_two_in_the_middle() {
        let of = |ms: &[u64]| median(ms.iter().copied().map(Duration::from_millis).collect());
        assert_eq!(of(&[40, 10, 20, 30]), Some(Duration::from_millis(25)));
        assert_eq!(of(&[30, 10, 20]), Some(Duration::from_millis(20)));
        assert_eq!(of(&[]), None);
    }
}
