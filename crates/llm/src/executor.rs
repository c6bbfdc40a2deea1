use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use metron_engine::{Batch, BatchItem, Executor, ExecutorError, Outcome, SampledToken, Sequence};
use metron_trace::{ExecutorInfo, Operator, OperatorSpan, Phases, Timestamp};
use rayon::prelude::*;

use crate::allocator::keep_memory;
use crate::kv_cache::KvCache;
use crate::linear::with_floats;
use crate::load::LoadedModel;
use crate::operators::OperatorClock;
use crate::plan::{BatchError, Capacity, ForwardPlan, Share};
use crate::sampler::{SampleError, sample};
use crate::text::TextStreams;
use crate::threads;
use crate::weights::LoadError;

/// The size of a paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvPool {
    /// Positions of a block.
    pub block_size: u32,
    /// Blocks.
    pub num_blocks: u32,
}

/// Runs batches through a transformer, at the machine's own clock.
///
/// A batch is run when it is submitted, and the call blocks until its tokens are on the host; the
/// outcome is handed over when it is asked for. All computation on the CPU is done by one pool of
/// threads.
#[derive(Debug)]
pub struct CandleExecutor {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) cache: KvCache,
    pub(crate) capacity: Capacity,
    pub(crate) threads: rayon::ThreadPool,
    started: Instant,
    pub(crate) plan: ForwardPlan,
    text: TextStreams,
    /// The batch that was run and not yet asked for.
    done: Option<Outcome>,
    spare: Outcome,
    pub(crate) times_operators: bool,
}

impl CandleExecutor {
    /// An executor with an empty KV cache. Its clock starts now. `threads` on the CPU: `None` for
    /// the physical cores, as far as the process may use them.
    ///
    /// # Errors
    /// If the pool is empty, or larger than what is free on the device.
    pub fn new(
        model: Arc<LoadedModel>,
        pool: KvPool,
        threads: Option<usize>,
        text: TextStreams,
    ) -> Result<Self, LoadError> {
        keep_memory();
        check_fits(&model, pool)?;
        let (num_blocks, block_size) = (pool.num_blocks as usize, pool.block_size as usize);
        let cache = model.model.new_cache(num_blocks, block_size)?;
        let capacity = model.model.capacity(num_blocks, block_size);
        Ok(Self {
            cache,
            capacity,
            threads: threads::pool(threads)?,
            started: clock(),
            plan: ForwardPlan::default(),
            text,
            done: None,
            spare: Outcome::default(),
            times_operators: false,
            model,
        })
    }

    /// Begins a new run: the clock starts now, and nothing is in flight. The KV cache needs no
    /// clearing: no sequence reads a position that it has not written.
    pub fn restart(&mut self) {
        self.started = clock();
        self.done = None;
        self.text.clear();
    }

    /// Whether every operator of a step is timed from now on. That makes steps longer: a device is
    /// waited for after each operator, and the attention of prefills and of decodes runs in two
    /// passes.
    pub fn time_operators(&mut self, on: bool) {
        self.times_operators = on;
    }

    /// What the trace's header says of it.
    pub fn info(&self) -> ExecutorInfo {
        let device = match self.model.device.location() {
            candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            _ => "cpu".to_owned(),
        };
        let threads = (device == "cpu").then(|| self.threads.current_num_threads() as u32);
        let batch_invariant = Some(self.model.is_batch_invariant());
        ExecutorInfo { device, dtype: Some(self.model.dtype.to_string()), threads, batch_invariant }
    }

    fn run(&mut self, batch: &Batch<'_>, outcome: &mut Outcome) -> Result<(), Cause> {
        let mut stopwatch = Stopwatch::start();
        self.prepare(batch)?;
        let prepare = stopwatch.lap();
        let logits = self.forward(&mut outcome.operators)?;
        let forward = stopwatch.lap();
        let (transfer_back, sample) = on_host(logits.as_ref(), |logits| {
            let transfer_back = stopwatch.lap();
            self.sample(batch, logits, outcome)?;
            Ok((transfer_back, stopwatch.lap()))
        })?;
        if self.times_operators {
            let forwarded_at = outcome.started_at + (prepare + forward);
            push_host_operators(forwarded_at, transfer_back, sample, &mut outcome.operators);
        }
        outcome.ended_at = self.now();
        self.detokenise(batch, outcome)?;
        outcome.phases = Phases {
            schedule: Duration::ZERO,
            prepare: Some(prepare),
            transfer: None, // ids and block tables go with the forward pass
            forward: Some(forward),
            sample: Some(sample),
            transfer_back: Some(transfer_back),
            detokenise: self.text.has_tokenizer().then(|| stopwatch.lap()),
        };
        Ok(())
    }

    fn prepare(&mut self, batch: &Batch<'_>) -> Result<(), BatchError> {
        let shares = batch.items().iter().map(|item| Share {
            request: item.request,
            token_ids: batch.token_ids(item),
            context: item.context,
            blocks: batch.blocks(item),
            samples: item.samples,
        });
        self.plan.refill(shares, &self.capacity)
    }

    pub(crate) fn forward(
        &mut self,
        operators: &mut Vec<OperatorSpan>,
    ) -> Result<Option<Tensor>, Cause> {
        let Self { model, cache, threads, plan, .. } = self;
        let mut clock = if self.times_operators {
            OperatorClock::new(self.started, &model.device, operators)
        } else {
            OperatorClock::off()
        };
        let logits = threads.install(|| model.model.forward(plan, cache, &mut clock))?;
        // A device runs behind the host: the phase ends when it is done.
        model.device.synchronize()?;
        Ok(logits)
    }

    fn sample(
        &self,
        batch: &Batch<'_>,
        logits: &[f32],
        outcome: &mut Outcome,
    ) -> Result<(), Cause> {
        let items: Vec<&BatchItem> = sampling_items(batch).collect();
        let vocabulary = self.capacity.vocab_size;
        let choose = |(item, logits): (&&BatchItem, &[f32])| {
            let id = sample(logits, batch.sampling(item), item.output_index)?;
            let is_end_of_sequence = self.model.eos_ids.contains(&id);
            Ok(SampledToken { request: item.request, id: Some(id), is_end_of_sequence })
        };
        outcome.tokens = self.threads.install(|| {
            let rows = items.par_iter().zip(logits.par_chunks(vocabulary));
            rows.map(choose).collect::<Result<_, SampleError>>()
        })?;
        Ok(())
    }

    fn detokenise(&mut self, batch: &Batch<'_>, outcome: &mut Outcome) -> Result<(), Cause> {
        for (item, token) in sampling_items(batch).zip(&outcome.tokens) {
            let is_last = batch.ends(item, token.is_end_of_sequence);
            self.text.push(token, is_last, &mut outcome.text)?;
        }
        Ok(())
    }
}

/// So often a loop that waits for the next arrival can see that it is to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// What follows the forward pass, as operators.
pub(crate) fn push_host_operators(
    forwarded_at: Timestamp,
    transfer_back: Duration,
    sampling: Duration,
    operators: &mut Vec<OperatorSpan>,
) {
    let span =
        |operator, started_at, took| OperatorSpan { operator, layer: None, started_at, took };
    operators.push(span(Operator::TransferBack, forwarded_at, transfer_back));
    operators.push(span(Operator::Sampling, forwarded_at + transfer_back, sampling));
}

fn sampling_items<'a>(batch: &Batch<'a>) -> impl Iterator<Item = &'a BatchItem> {
    batch.items().iter().filter(|item| item.samples)
}

/// Refuses a pool that is larger than what is free: the system would only notice when it is full.
fn check_fits(model: &LoadedModel, pool: KvPool) -> Result<(), LoadError> {
    let KvPool { block_size, num_blocks } = pool;
    if block_size == 0 || num_blocks == 0 {
        return Err(LoadError::EmptyKvPool);
    }
    let per_block = model.kv_bytes_per_block(block_size);
    let bytes = per_block.saturating_mul(u64::from(num_blocks));
    match model.free_memory() {
        Some(free) if bytes > free => {
            let most_blocks = free / per_block.max(1);
            Err(LoadError::KvPool { num_blocks, bytes, free, most_blocks })
        }
        _ => Ok(()),
    }
}

pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Executor for CandleExecutor {
    fn now(&self) -> Timestamp {
        let elapsed = clock().saturating_duration_since(self.started);
        Timestamp::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    fn submit(&mut self, batch: &Batch<'_>) -> Result<(), ExecutorError> {
        let mut outcome = std::mem::take(&mut self.spare);
        outcome.clear();
        outcome.started_at = self.now();
        self.run(batch, &mut outcome).map_err(|cause| ExecutorError { step: batch.step, cause })?;
        self.done = Some(outcome);
        Ok(())
    }

    fn next_outcome(
        &mut self,
        until: Option<Timestamp>,
        outcome: &mut Outcome,
    ) -> Result<bool, ExecutorError> {
        if let Some(mut done) = self.done.take() {
            std::mem::swap(&mut done, outcome);
            self.spare = done;
            return Ok(true);
        }
        if let Some(until) = until {
            std::thread::sleep(until.since(self.now()).min(LONGEST_SLEEP));
        }
        Ok(false)
    }

    fn ended(&mut self, sequence: &Sequence) {
        self.text.end(sequence.id());
    }
}

/// Reads the numbers of a `[rows, vocabulary]` tensor, row by row: where they lie on the CPU, copied
/// to the host elsewhere.
pub(crate) fn on_host<T>(
    logits: Option<&Tensor>,
    read: impl FnOnce(&[f32]) -> Result<T, Cause>,
) -> Result<T, Cause> {
    match logits {
        None => read(&[]),
        Some(logits) if logits.device().is_cpu() => with_floats(logits, |logits| Ok(read(logits)))?,
        Some(logits) => read(&logits.flatten_all()?.to_vec1()?),
    }
}

#[expect(clippy::disallowed_methods, reason = "executors own the clock")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(clock())
    }

    /// The time since the last lap.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = clock();
        now.saturating_duration_since(std::mem::replace(&mut self.0, now))
    }
}

#[cfg(test)]
mod tests;
