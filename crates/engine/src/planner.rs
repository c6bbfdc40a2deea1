use std::fmt;
use std::time::Duration;

use metron_trace::{Limits, Preemption, PreemptionCause, RequestId, Timestamp, Work};

use crate::batch::BatchItem;
use crate::blocks::BlockPool;
use crate::executor::CostModel;
use crate::scheduler::View;
use crate::sequence::{Sequence, SequenceState, Sequences};

/// A checked transaction on the next step.
///
/// A policy says what to run; what is impossible is refused with the reason, so an impossible
/// batch can't be built. The engine holds the blocks: a policy may read how many are free, but
/// allocates nothing itself, so it can't leak any.
#[derive(Debug)]
pub struct Planner<'a> {
    pub(crate) now: Timestamp,
    pub(crate) books: &'a mut Books,
    pub(crate) draft: &'a mut Draft,
    pub(crate) cost_model: CostModelRef<'a>,
}

/// The engine's truth: sequences, blocks, and who holds a slot.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) limits: Limits,
    pub(crate) sequences: Sequences,
    pub(crate) pool: BlockPool,
    pub(crate) num_running: u32,
    pub(crate) num_waiting: u32,
}

/// The step being planned; its buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) items: Vec<BatchItem>,
    pub(crate) work: Vec<Work>,
    pub(crate) preemptions: Vec<Preemption>,
    /// Preemptions of this plan alone.
    pub(crate) num_preempted: u32,
    pub(crate) rejected: Vec<Rejected>,
    pub(crate) num_rejected: u32,
    pub(crate) tokens: u32,
    pub(crate) last_refusal: Option<Refused>,
}

impl Draft {
    /// Begins a new plan. Preemptions stay until a step is there to record them: a plan may
    /// preempt and run nothing.
    pub(crate) fn begin(&mut self) {
        self.items.clear();
        self.work.clear();
        self.num_preempted = 0;
        self.num_rejected = 0;
        self.tokens = 0;
        self.last_refusal = None;
    }

    /// Whether the plan took anything away from anybody.
    pub(crate) fn changes_anything(&self) -> bool {
        self.num_preempted > 0 || self.num_rejected > 0
    }
}

/// A sequence that the policy gave up, out of the books.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) sequence: Box<Sequence>,
    pub(crate) reason: String,
}

/// The run's cost model, if it has one.
#[derive(Clone, Copy)]
pub(crate) struct CostModelRef<'a>(pub(crate) Option<&'a dyn CostModel>);

impl fmt::Debug for CostModelRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(cost model)" } else { "None" })
    }
}

/// Why a piece of a plan is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The KV pool is short of blocks. Preempting a sequence frees its blocks.
    #[error(
        "{id} needs {needed} more KV blocks with {keep_free} to be left free, but only {free} are free"
    )]
    Blocks {
        /// Who asked.
        id: RequestId,
        /// Blocks to add to its table.
        needed: u32,
        /// Blocks that the policy wanted left free.
        keep_free: u32,
        /// Blocks that are free.
        free: u32,
    },
    /// All slots are taken.
    #[error("{id} needs a slot, but all {max_num_seqs} (max_num_seqs) are taken")]
    Slots {
        /// Who asked.
        id: RequestId,
        /// The limit.
        max_num_seqs: u32,
    },
    /// Nobody of this name is in progress: it has not arrived, or it has ended.
    #[error("{id} is not in progress: it has not arrived yet, or it has ended")]
    Unknown {
        /// The name.
        id: RequestId,
    },
    /// Only an admitted sequence can run or be preempted.
    #[error("{id} is not admitted; admit it first")]
    NotAdmitted {
        /// Who.
        id: RequestId,
    },
    /// A sequence is admitted once.
    #[error("{id} is admitted already")]
    AlreadyAdmitted {
        /// Who.
        id: RequestId,
    },
    /// It is part of this plan, or of a batch that is being carried out.
    #[error("{id} is in this plan already, or in a batch in flight")]
    InFlight {
        /// Who.
        id: RequestId,
    },
    /// Zero tokens were asked for.
    #[error("{id} was asked to run 0 tokens; leave it out of the plan instead")]
    NothingAsked {
        /// Who.
        id: RequestId,
    },
}

impl Planner<'_> {
    /// The time of the plan.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The limits to plan within.
    pub fn limits(&self) -> &Limits {
        &self.books.limits
    }

    /// What may be seen of a request in progress; `None` if it has not arrived or has ended.
    pub fn view(&self, id: RequestId) -> Option<View<'_>> {
        self.books.sequences.get(id).map(View)
    }

    /// KV blocks that are free now, with this plan's own admissions counted.
    pub fn free_blocks(&self) -> u32 {
        self.books.pool.num_free()
    }

    /// Tokens planned so far.
    pub fn tokens(&self) -> u32 {
        self.draft.tokens
    }

    /// Sequences planned so far.
    pub fn num_seqs(&self) -> u32 {
        self.draft.items.len() as u32
    }

    /// Sequences that hold a slot.
    pub fn num_running(&self) -> u32 {
        self.books.num_running
    }

    /// Gives a waiting sequence a slot and the blocks for `reserve_tokens` positions (its prompt,
    /// or its whole length), if `keep_free` blocks are left free after that.
    pub fn admit(
        &mut self,
        id: RequestId,
        reserve_tokens: u32,
        keep_free: u32,
    ) -> Result<(), Refused> {
        let answer = self.books.admit(id, reserve_tokens, keep_free);
        self.remember(answer)
    }

    /// Runs up to `tokens` of an admitted sequence's pending positions, adding blocks where it
    /// has too few. Returns how many will run.
    pub fn run(&mut self, id: RequestId, tokens: u32) -> Result<u32, Refused> {
        let answer = self.books.start(id, tokens);
        let item = self.remember(answer)?;
        let sequence = self.books.sequences.get(id).expect("it was just started");
        self.draft.work.extend(sequence.work(item.tokens));
        self.draft.items.push(item);
        self.draft.tokens += item.tokens;
        Ok(item.tokens)
    }

    /// Takes an admitted sequence's slot and blocks away. Its tokens stay; its positions have to
    /// be computed again once it is admitted again. If it is in this plan it leaves it.
    pub fn preempt(&mut self, id: RequestId, cause: PreemptionCause) -> Result<(), Refused> {
        self.take_out(id);
        let answer = self.books.evict(id);
        let tokens_lost = self.remember(answer)?;
        self.draft.preemptions.push(Preemption { request: id, cause, tokens_lost });
        self.draft.num_preempted += 1;
        Ok(())
    }

    /// Gives a request up, whether it waits or runs: it ends as failed, and its slot and blocks are
    /// free at once. The reason is for the user. If it is in this plan it leaves it; the policy is
    /// told of the end as of any other ([`Event::Aborted`](crate::Event::Aborted)).
    pub fn reject(&mut self, id: RequestId, reason: impl fmt::Display) -> Result<(), Refused> {
        self.take_out(id);
        let answer = self.books.idle(id).map(|_| ());
        self.remember(answer)?;
        let sequence = self.books.end(id).expect("it was just looked up");
        self.draft.rejected.push(Rejected { sequence, reason: reason.to_string() });
        self.draft.num_rejected += 1;
        Ok(())
    }

    /// Takes a sequence out of this plan, if it is in it.
    fn take_out(&mut self, id: RequestId) {
        if let Some(at) = self.draft.items.iter().position(|item| item.request == id) {
            self.draft.tokens -= self.draft.items.remove(at).tokens;
            self.draft.work.retain(|work| work.request != id);
            self.books.sequences.get_mut(id).expect("it is in the plan").in_flight = 0;
        }
    }

    /// The time of the step as planned so far, by the run's cost model; `None` without one.
    pub fn predict(&self) -> Option<Duration> {
        self.cost_model.0.map(|model| model.step_time(&self.draft.work))
    }

    fn remember<T>(&mut self, answer: Result<T, Refused>) -> Result<T, Refused> {
        if let Err(refused) = answer {
            self.draft.last_refusal = Some(refused);
        }
        answer
    }
}

impl Books {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sequences: Sequences::default(),
            pool: BlockPool::new(&limits),
            num_running: 0,
            num_waiting: 0,
        }
    }

    fn idle(&mut self, id: RequestId) -> Result<&mut Sequence, Refused> {
        let sequence = self.sequences.get_mut(id).ok_or(Refused::Unknown { id })?;
        if sequence.in_flight > 0 { Err(Refused::InFlight { id }) } else { Ok(sequence) }
    }

    fn admit(&mut self, id: RequestId, tokens: u32, keep_free: u32) -> Result<(), Refused> {
        let limits = self.limits;
        let (free, num_running) = (self.pool.num_free(), self.num_running);
        if self.idle(id)?.state != SequenceState::Waiting {
            return Err(Refused::AlreadyAdmitted { id });
        }
        if num_running >= limits.max_num_seqs {
            return Err(Refused::Slots { id, max_num_seqs: limits.max_num_seqs });
        }
        let needed = limits.blocks_for(tokens);
        if free < needed.saturating_add(keep_free) {
            return Err(Refused::Blocks { id, needed, keep_free, free });
        }
        let sequence = self.sequences.get_mut(id).expect("it was just looked up");
        sequence.state = SequenceState::Running;
        sequence.reserve(&limits);
        let allocated = self.pool.allocate(needed, &mut sequence.blocks);
        debug_assert!(allocated, "enough blocks were free");
        self.num_running += 1;
        self.num_waiting -= 1;
        Ok(())
    }

    fn start(&mut self, id: RequestId, tokens: u32) -> Result<BatchItem, Refused> {
        let limits = self.limits;
        let free = self.pool.num_free();
        let sequence = self.idle(id)?;
        if sequence.state != SequenceState::Running {
            return Err(Refused::NotAdmitted { id });
        }
        let tokens = tokens.min(sequence.pending());
        if tokens == 0 {
            return Err(Refused::NothingAsked { id });
        }
        let needed = sequence.blocks_short(sequence.computed + tokens, &limits);
        if free < needed {
            return Err(Refused::Blocks { id, needed, keep_free: 0, free });
        }
        sequence.in_flight = tokens;
        let item = BatchItem {
            request: id,
            context: sequence.computed,
            tokens,
            samples: sequence.pending() == 0,
            output_index: sequence.generated,
        };
        let sequence = self.sequences.get_mut(id).expect("it was just looked up");
        let allocated = self.pool.allocate(needed, &mut sequence.blocks);
        debug_assert!(allocated, "enough blocks were free");
        Ok(item)
    }

    /// Back to waiting, without blocks; returns the positions lost.
    fn evict(&mut self, id: RequestId) -> Result<u32, Refused> {
        let sequence = self.idle(id)?;
        if sequence.state != SequenceState::Running {
            return Err(Refused::NotAdmitted { id });
        }
        let lost = std::mem::take(&mut sequence.computed);
        sequence.state = SequenceState::Waiting;
        sequence.preemptions += 1;
        let sequence = self.sequences.get_mut(id).expect("it was just looked up");
        self.pool.release(&mut sequence.blocks);
        self.num_running -= 1;
        self.num_waiting += 1;
        Ok(lost)
    }

    /// A request arrives.
    pub(crate) fn arrive(&mut self, sequence: Sequence) {
        self.num_waiting += 1;
        self.sequences.insert(sequence);
    }

    /// A sequence ends, whatever its state: its slot and blocks are free.
    pub(crate) fn end(&mut self, id: RequestId) -> Option<Box<Sequence>> {
        let mut sequence = self.sequences.remove(id)?;
        match sequence.state {
            SequenceState::Running => self.num_running -= 1,
            SequenceState::Waiting => self.num_waiting -= 1,
            SequenceState::Finished => {}
        }
        sequence.state = SequenceState::Finished;
        self.pool.release(&mut sequence.blocks);
        Some(sequence)
    }

    /// Requests in progress.
    pub(crate) fn num_in_progress(&self) -> u32 {
        self.num_running + self.num_waiting
    }
}
