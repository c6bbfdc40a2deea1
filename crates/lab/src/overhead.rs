use std::path::Path;
use std::time::Duration;

use metron_engine::StepObserver;
use metron_metrics::Interval;
use metron_metrics::statistics::{CONFIDENCE, Sample};
use metron_trace::{Header, TraceWriter};
use serde::Serialize;

use crate::LabError;
use crate::calibrate::MiniRun;
use crate::record::{DiskRecorder, StepRecorder};
use crate::rig::Rig;

/// Runs with and without the recorder, in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverheadPlan {
    /// Pairs of runs; half of them begin with the recorded one.
    pub pairs: u32,
    /// Sequences, all there from the start.
    pub batch: u32,
    /// Prompt of each.
    pub prompt_tokens: u32,
    /// Output of each: a step a token.
    pub output_tokens: u32,
}

/// What recording costs a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Overhead {
    /// Pairs of runs.
    pub pairs: usize,
    /// Steps of a run.
    pub steps: usize,
    /// Mean time of a step without the recorder.
    pub bare_step_s: f64,
    /// Mean time that recording added to a step; below 0 is chance.
    pub added_s: f64,
    /// The time with the recorder over that without, as the geometric mean of the pairs.
    pub ratio: f64,
    /// Where it lies, at 95 %, by Student's t on the logarithms of the pairs; `None` of one pair.
    pub interval: Option<Interval>,
}

/// Measures what recording costs on a system: the same requests in pairs of runs, one with the
/// recorder writing its trace into `scratch` and one without, the order alternating. `clock` is the
/// real time, also where the rig's is virtual. Opening and closing a trace are in no step, and are
/// not measured. Ends after the pair during which `wants_stop`.
pub fn overhead(
    rig: &mut dyn Rig,
    plan: OverheadPlan,
    header: &Header,
    scratch: &Path,
    clock: &dyn Fn() -> Duration,
    wants_stop: &dyn Fn() -> bool,
) -> Result<Overhead, LabError> {
    let requests = MiniRun::alike(plan.batch, plan.prompt_tokens, plan.output_tokens);
    // The first run warms up, and says how many steps there are.
    let mut steps = StepRecorder::default();
    requests.serve(rig, &mut steps)?;
    let timed = |rig: &mut dyn Rig, observer: &mut dyn StepObserver| {
        let begun = clock();
        requests.serve(rig, observer)?;
        Ok::<_, LabError>(clock().saturating_sub(begun))
    };
    let recorded = |rig: &mut dyn Rig, pair: u32| {
        let mut recorder =
            DiskRecorder(TraceWriter::create(&scratch.join(pair.to_string()), header)?);
        let took = timed(rig, &mut recorder)?;
        // The writing thread has ended before the next run begins.
        recorder.0.finish()?;
        Ok::<_, LabError>(took)
    };
    let mut pairs = Vec::new();
    for pair in 0..plan.pairs.max(1) {
        pairs.push(if pair % 2 == 0 {
            let bare = timed(rig, &mut ())?;
            (bare, recorded(rig, pair)?)
        } else {
            let recorded = recorded(rig, pair)?;
            (timed(rig, &mut ())?, recorded)
        });
        if wants_stop() {
            break;
        }
    }
    Overhead::of(&pairs, steps.0.len()).ok_or(LabError::NothingMeasured)
}

impl Overhead {
    /// Of pairs of times, bare and recorded; `None` where no time passed.
    fn of(pairs: &[(Duration, Duration)], steps: usize) -> Option<Self> {
        let seconds = |of: fn(&(Duration, Duration)) -> Duration| {
            pairs.iter().map(|pair| of(pair).as_secs_f64()).sum::<f64>()
        };
        let (bare, recorded) = (seconds(|pair| pair.0), seconds(|pair| pair.1));
        let logarithms: Vec<f64> = pairs
            .iter()
            .map(|(bare, recorded)| (recorded.as_secs_f64() / bare.as_secs_f64()).ln())
            .collect();
        let sample = Sample::of(&logarithms).filter(|sample| sample.mean.is_finite())?;
        let all_steps = (pairs.len() * steps) as f64;
        Some(Self {
            pairs: pairs.len(),
            steps,
            bare_step_s: bare / all_steps,
            added_s: (recorded - bare) / all_steps,
            ratio: sample.mean.exp(),
            interval: sample.interval(CONFIDENCE).map(|interval| interval.map(f64::exp)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_the_mean_ratio_of_the_pairs_with_its_interval() {
        let ms = Duration::from_millis;
        let pairs = [(ms(100), ms(101)), (ms(100), ms(103)), (ms(100), ms(102)), (ms(100), ms(98))];
        let cost = Overhead::of(&pairs, 10).expect("time passed");
        assert!((cost.bare_step_s - 0.01).abs() < 1e-12 && (cost.added_s - 1e-4).abs() < 1e-12);
        assert!((cost.ratio - 1.0098).abs() < 1e-4, "{}", cost.ratio);
        let interval = cost.interval.expect("of four");
        assert!(interval.contains(1.0) && interval.contains(1.03), "{interval:?}");
        assert_eq!(Overhead::of(&pairs[..1], 10).expect("time passed").interval, None);
        assert_eq!(Overhead::of(&[(ms(0), ms(1))], 10), None);
    }
}
