//! What the parts of a step cost: batches of given shapes, run again and again with their operators
//! timed and not timed.

mod counters;
mod device_roofs;
mod roofs;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use metron_engine::{BlockId, Executor};
use metron_trace::{
    BatchShape, OperatorProfile, OperatorSpan, RequestId, Sampling, ShapeProfile, StepCounters,
};

use rayon::prelude::*;

use crate::executor::{CandleExecutor, Cause, Stopwatch, on_host, push_host_operators};
use crate::plan::{BatchError, Share};
use crate::sampler::sample;

use counters::{CounterSet, Reading, difference};
pub use roofs::measure_roofs;
use work::StepWork;

/// Why a shape can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The model or its KV cache can't hold it.
    #[error("the shape {shape} can't run: {cause}")]
    Shape {
        /// The shape.
        shape: BatchShape,
        /// What does not fit.
        cause: BatchError,
    },
    /// The step failed.
    #[error("running the shape {shape}: {cause}")]
    Failed {
        /// The shape.
        shape: BatchShape,
        /// Why.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What one step took.
struct StepTimes {
    forward: Duration,
    outside: Duration,
}

impl CandleExecutor {
    /// Fills the KV cache with numbers, as sequences would that have been computed: memory that was
    /// never written is faster to read than any real cache.
    pub fn fill_cache(&mut self) -> Result<(), candle_core::Error> {
        self.cache.fill()
    }

    /// Measures a shape `repeats` times without and with its operators timed, in turns, after one
    /// turn that does not count. Its sequences' caches hold whatever [`Self::fill_cache`] put there.
    pub fn profile(
        &mut self,
        shape: BatchShape,
        repeats: u32,
    ) -> Result<ShapeProfile, ProfileError> {
        self.plan_shape(shape).map_err(|cause| ProfileError::Shape { shape, cause })?;
        let failed = |cause| ProfileError::Failed { shape, cause };
        let counters = CounterSet::open(&self.threads);
        let mut profile = ShapeProfile {
            shape,
            steps: Vec::new(),
            outside_forward: Vec::new(),
            traced_steps: Vec::new(),
            operators: Vec::new(),
            counters: None,
        };
        let mut traced: Vec<Vec<OperatorSpan>> = Vec::new();
        for turn in 0..=repeats {
            let mut counted = None;
            let plain = self.step(&mut Vec::new(), counters.as_ref(), &mut counted);
            let plain = plain.map_err(failed)?;
            self.times_operators = true;
            let mut spans = Vec::new();
            let timed = self.step(&mut spans, None, &mut None);
            self.times_operators = false;
            let timed = timed.map_err(failed)?;
            if turn > 0 {
                profile.steps.push(plain.forward + plain.outside);
                profile.outside_forward.push(plain.outside);
                profile.traced_steps.push(timed.forward + timed.outside);
                profile.counters = counted;
                traced.push(spans);
            }
        }
        let work = StepWork::new(self.model.config(), &shape, self.model.dtype, &self.model.device);
        profile.operators = by_operator(&traced, &work);
        Ok(profile)
    }

    fn plan_shape(&mut self, shape: BatchShape) -> Result<(), BatchError> {
        let block_size = self.capacity.block_size as u32;
        let vocabulary = self.capacity.vocab_size as u32;
        let ids: Vec<u32> =
            (0..shape.prefill_tokens.max(1)).map(|at| at.wrapping_mul(37) % vocabulary).collect();
        let mut next_block = 0;
        let tables: Vec<Vec<BlockId>> = shape
            .sequences()
            .map(|(tokens, context)| {
                let first = next_block;
                next_block += tokens.saturating_add(context).div_ceil(block_size);
                (first..next_block).map(BlockId).collect()
            })
            .collect();
        let shares =
            shape.sequences().zip(&tables).zip(0..).map(|(((tokens, context), blocks), id)| {
                let token_ids = &ids[..tokens as usize];
                Share { request: RequestId(id), token_ids, context, blocks, samples: true }
            });
        self.plan.refill(shares, &self.capacity)
    }

    /// Runs the planned shape once, and samples.
    fn step(
        &mut self,
        operators: &mut Vec<OperatorSpan>,
        counters: Option<&CounterSet>,
        counted: &mut Option<StepCounters>,
    ) -> Result<StepTimes, Cause> {
        let before = counters.and_then(CounterSet::read);
        let mut stopwatch = Stopwatch::start();
        let logits = self.forward(operators)?;
        let forward = stopwatch.lap();
        let between = counters.and_then(CounterSet::read);
        let _ = stopwatch.lap();
        let after_forward = self.now();
        let (transfer_back, sampling) = on_host(logits.as_ref(), |logits| {
            let transfer_back = stopwatch.lap();
            self.threads.install(|| {
                let rows = logits.par_chunks(self.capacity.vocab_size);
                rows.try_for_each(|row| sample(row, &Sampling::GREEDY, 0).map(drop))
            })?;
            Ok((transfer_back, stopwatch.lap()))
        })?;
        let after = counters.and_then(CounterSet::read);
        if self.times_operators {
            push_host_operators(after_forward, transfer_back, sampling, operators);
        }
        *counted = by_phase(before, between, after);
        Ok(StepTimes { forward, outside: transfer_back + sampling })
    }
}

fn by_phase(
    before: Option<Reading>,
    between: Option<Reading>,
    after: Option<Reading>,
) -> Option<StepCounters> {
    let (before, between, after) = (before?, between?, after?);
    Some(StepCounters {
        forward: difference(&between, &before)?,
        sampling: difference(&after, &between)?,
    })
}

/// Each operator that ran, with the median over the steps of its time in a step.
fn by_operator(steps: &[Vec<OperatorSpan>], work: &StepWork) -> Vec<OperatorProfile> {
    let mut times: BTreeMap<_, Vec<Duration>> = BTreeMap::new();
    let mut calls: BTreeMap<_, u32> = BTreeMap::new();
    for spans in steps {
        let mut of_step: BTreeMap<_, (Duration, u32)> = BTreeMap::new();
        for span in spans {
            let (took, count) = of_step.entry(span.operator).or_default();
            *took += span.took;
            *count += 1;
        }
        for (operator, (took, count)) in of_step {
            times.entry(operator).or_default().push(took);
            calls.insert(operator, count);
        }
    }
    let profile = |(operator, times)| {
        let (flops, bytes) = work.of(operator);
        let seconds = median(times).as_secs_f64();
        // An attention that had no sequence of its kind ran on nothing.
        let ran = flops > 0.0 || bytes > 0.0;
        ran.then(|| OperatorProfile { operator, calls: calls[&operator], seconds, flops, bytes })
    };
    times.into_iter().filter_map(profile).collect()
}

/// The middle one of at least one time, or the mean of the middle two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let upper = times.len() / 2;
    (times[(times.len() - 1) / 2] + times[upper]) / 2
}

#[cfg(test)]
mod tests;
