//! What an experiment's defaults are, derived from the calibration: load, deadlines, budget.

use std::time::Duration;

use metron_engine::CostModel;
use metron_trace::{Calibration, RequestId, Work, WorkKind};

/// A decode deadline is so many isolated decode steps (Sarathi-Serve's strict objective,
/// OSDI'24, section 5.1).
const DECODE_DEADLINE_STEPS: u32 = 5;

/// The paper's slack for the first token over its decode deadline: 0.3 s over 25 ms
/// (arXiv 2407.07000, section 5). Kept on every machine, so that the slack scales with its speed.
const SLACK_PER_DECODE_DEADLINE: u32 = 12;

/// What a workload costs on a machine, by its cost model.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The machine.
    pub cost_model: &'a dyn CostModel,
    /// The workload's requests: (prompt tokens, output tokens).
    pub lengths: &'a [(u32, u32)],
}

impl std::fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("requests", &self.lengths.len()).finish_non_exhaustive()
    }
}

impl Load<'_> {
    /// Mean time of an isolated prefill.
    fn prefill_time(&self) -> f64 {
        mean(self.lengths.iter().map(|&(prompt, _)| {
            let work = [prefill(prompt, 0)];
            self.cost_model.step_time(&work).as_secs_f64()
        }))
    }

    fn output_tokens(&self) -> f64 {
        mean(self.lengths.iter().map(|&(_, output)| f64::from(output)))
    }

    /// Positions that a decoding sequence of this workload has in its KV cache, on average.
    pub fn context(&self) -> u32 {
        let context = self.lengths.iter().map(|&(p, n)| u64::from(p) + u64::from(n) / 2);
        (context.sum::<u64>() / self.lengths.len().max(1) as u64) as u32
    }

    /// Time of a step in which `batch` sequences decode.
    pub fn decode_step(&self, batch: u32) -> Duration {
        self.cost_model.step_time(&decodes(batch, self.context()))
    }

    /// The arrival rate, in requests a second, at which `batch` sequences decode on average under
    /// a policy that keeps the machine busy: of each second, prefills take `rate * prefill_time`,
    /// and the rest makes `rate * output_tokens` tokens, `batch` a step.
    pub fn rate_for_batch(&self, batch: u32) -> f64 {
        let step = self.decode_step(batch).as_secs_f64();
        let batch = f64::from(batch);
        batch / self.output_tokens().mul_add(step, batch * self.prefill_time())
    }

    /// The mean decoding batch at an arrival rate: the inverse of [`Self::rate_for_batch`]; at
    /// least 1 and at most `most`.
    pub fn batch_at_rate(&self, requests_per_second: f64, most: u32) -> u32 {
        (1..most).find(|batch| self.rate_for_batch(*batch) >= requests_per_second).unwrap_or(most)
    }

    /// The largest chunk of a prefill, in whole blocks and at least one, that keeps a step of
    /// `batch` decodes within `limit`, as a token budget (the decodes are counted in it).
    pub fn token_budget(&self, batch: u32, limit: Duration, block_size: u32) -> u32 {
        let longest = self.lengths.iter().map(|&(prompt, _)| prompt).max().unwrap_or(1);
        let context = self.context();
        let step_of = |blocks: u32| {
            let mut work = decodes(batch, context);
            // The last chunk of the longest prompt is the costliest: all else stands before it.
            let chunk = blocks * block_size;
            work.push(prefill(chunk, longest.saturating_sub(chunk)));
            self.cost_model.step_time(&work)
        };
        let most = longest.div_ceil(block_size).max(1);
        let blocks = (1..=most).rev().find(|blocks| step_of(*blocks) <= limit).unwrap_or(1);
        blocks * block_size + batch
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

fn prefill(tokens: u32, context: u32) -> Work {
    Work { request: RequestId(0), context, tokens, kind: WorkKind::Prefill }
}

fn decodes(batch: u32, context: u32) -> Vec<Work> {
    (0..batch)
        .map(|id| Work { request: RequestId(id), context, tokens: 1, kind: WorkKind::Decode })
        .collect()
}

/// `D_d`: five isolated decode steps at the batch size that the workload will have.
pub fn decode_deadline(load: &Load<'_>, batch: u32) -> Duration {
    load.decode_step(batch) * DECODE_DEADLINE_STEPS
}

/// The slack of the first token's deadline over its predicted prefill time: 0.3 s, scaled to this
/// machine's speed as `decode_deadline` is to 25 ms.
pub fn first_token_slack(decode_deadline: Duration) -> Duration {
    decode_deadline * SLACK_PER_DECODE_DEADLINE
}

/// The TBT above which a gap is a stall: the greater of `decode_deadline` and ten isolated TBTs.
pub fn stall_limit(calibration: &Calibration, decode_deadline: Duration) -> Duration {
    let isolated = calibration.decode.iter().map(|point| point.step_time).min();
    decode_deadline.max(isolated.unwrap_or_default() * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 ms a step, 1 ms a prefill token, 2 ms a decode token.
    struct Machine;

    impl CostModel for Machine {
        fn step_time(&self, work: &[Work]) -> Duration {
            let ms = |w: &Work| match w.kind {
                WorkKind::Decode => 2 * w.tokens,
                WorkKind::Prefill | WorkKind::Recompute => w.tokens,
            };
            Duration::from_millis(10 + work.iter().map(|w| u64::from(ms(w))).sum::<u64>())
        }
    }

    const LOAD: Load<'_> = Load { cost_model: &Machine, lengths: &[(90, 10), (190, 20)] };

    #[test]
    fn the_rate_keeps_the_machine_busy() {
        // Prefills take 0.15 s a request. Five decode in 20 ms, so 15 tokens take 0.06 s.
        let rate = LOAD.rate_for_batch(5);
        assert!((rate - 1.0 / (0.15 + 0.06)).abs() < 1e-9, "{rate}");
        assert_eq!(LOAD.batch_at_rate(rate, 32), 5);
        assert_eq!(LOAD.batch_at_rate(1e9, 32), 32);
    }

    #[test]
    fn the_token_budget_is_the_largest_chunk_whose_step_stays_within_the_limit() {
        // 10 ms + 5 * 2 ms leave 80 ms, which are five blocks of 16 tokens.
        assert_eq!(LOAD.token_budget(5, Duration::from_millis(100), 16), 80 + 5);
        assert_eq!(LOAD.token_budget(5, Duration::from_millis(1), 16), 16 + 5);
    }

    #[test]
    fn deadlines_scale_with_the_machine() {
        let decode = decode_deadline(&LOAD, 5);
        assert_eq!(decode, Duration::from_millis(100));
        assert_eq!(first_token_slack(decode), Duration::from_millis(1200));
        assert_eq!(first_token_slack(Duration::from_millis(25)), Duration::from_millis(300));
    }
}
