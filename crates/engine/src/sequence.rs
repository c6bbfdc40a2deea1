use metron_trace::{Limits, Request, RequestId, Timestamp, Work, WorkKind};

use crate::blocks::BlockId;

/// A request in progress: its tokens, its KV blocks, and how far it has been computed.
///
/// Its state follows vLLM v1: `computed` chases [`target`](Self::target), so that prefill, chunked
/// prefill and recomputation are all the same gap, and no phase flag exists.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub(crate) request: Request,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) blocks: Vec<BlockId>,
    pub(crate) state: SequenceState,
    pub(crate) computed: u32,
    pub(crate) generated: u32,
    pub(crate) most_computed: u32,
    pub(crate) in_flight: u32,
    pub(crate) preemptions: u32,
    pub(crate) first_token_at: Option<Timestamp>,
    pub(crate) last_token_at: Option<Timestamp>,
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceState {
    /// It holds no blocks: new, or preempted.
    Waiting,
    /// Admitted: it holds a slot and blocks.
    Running,
    /// It has ended.
    Finished,
}

impl Sequence {
    pub(crate) fn new(request: Request, prompt: Vec<u32>) -> Self {
        Self {
            request,
            token_ids: prompt,
            blocks: Vec::new(),
            state: SequenceState::Waiting,
            computed: 0,
            generated: 0,
            most_computed: 0,
            in_flight: 0,
            preemptions: 0,
            first_token_at: None,
            last_token_at: None,
        }
    }

    /// The request's name.
    pub fn id(&self) -> RequestId {
        self.request.id
    }

    /// What the executor needs to know of the request; a policy sees [`crate::View`] instead.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Where it stands.
    pub fn state(&self) -> SequenceState {
        self.state
    }

    /// Positions whose keys and values are in the cache.
    pub fn computed(&self) -> u32 {
        self.computed
    }

    /// Output tokens generated so far; they survive a preemption.
    pub fn generated(&self) -> u32 {
        self.generated
    }

    /// Positions to compute before the next token: prompt and generated tokens.
    pub fn target(&self) -> u32 {
        self.request.prompt_tokens + self.generated
    }

    /// The gap between computed and target, less what is in flight.
    pub fn pending(&self) -> u32 {
        self.target() - self.computed - self.in_flight
    }

    /// Times it lost its blocks.
    pub fn preemptions(&self) -> u32 {
        self.preemptions
    }

    /// The work of running its next `tokens` positions: one part, or two where it recomputes
    /// some positions and goes on to new ones.
    pub(crate) fn work(&self, tokens: u32) -> impl Iterator<Item = Work> + use<> {
        let (request, start, end) = (self.id(), self.computed, self.computed + tokens);
        let seen = self.most_computed.clamp(start, end);
        let fresh =
            if seen < self.request.prompt_tokens { WorkKind::Prefill } else { WorkKind::Decode };
        [(start, seen, WorkKind::Recompute), (seen, end, fresh)]
            .into_iter()
            .filter(|(from, to, _)| from < to)
            .map(move |(from, to, kind)| Work { request, context: from, tokens: to - from, kind })
    }

    /// Adds a sampled token; returns its place in the output.
    pub(crate) fn take_token(&mut self, id: Option<u32>, at: Timestamp) -> u32 {
        self.token_ids.extend(id);
        self.generated += 1;
        self.first_token_at.get_or_insert(at);
        self.last_token_at = Some(at);
        self.generated - 1
    }

    /// Whether it ends with its `generated`-th token.
    pub(crate) fn ends_with(&self, generated: u32, is_end_of_sequence: bool) -> bool {
        match self.request.output_tokens {
            Some(length) => generated >= length,
            None => is_end_of_sequence || generated >= self.request.max_tokens,
        }
    }

    /// Makes room for the blocks and tokens that it may come to, so that no step has to.
    pub(crate) fn reserve(&mut self, limits: &Limits) {
        let longest = self.request.total_tokens();
        let more = |longest: u32, len: usize| (longest as usize).saturating_sub(len);
        self.blocks.reserve_exact(more(limits.blocks_for(longest), self.blocks.len()));
        // In virtual time there are no token ids.
        if !self.token_ids.is_empty() {
            self.token_ids.reserve_exact(more(longest, self.token_ids.len()));
        }
    }

    /// Blocks to add so that `positions` fit.
    pub(crate) fn blocks_short(&self, positions: u32, limits: &Limits) -> u32 {
        limits.blocks_for(positions).saturating_sub(self.blocks.len() as u32)
    }
}

/// Every sequence of a run, by request id.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Vec<Option<Box<Sequence>>>);

impl Sequences {
    pub(crate) fn insert(&mut self, sequence: Sequence) {
        let at = sequence.id().index();
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(Box::new(sequence));
    }

    /// The sequence of a request that has arrived and not ended.
    pub(crate) fn get(&self, id: RequestId) -> Option<&Sequence> {
        self.0.get(id.index())?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: RequestId) -> Option<&mut Sequence> {
        self.0.get_mut(id.index())?.as_deref_mut()
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Box<Sequence>> {
        self.0.get_mut(id.index())?.take()
    }

    /// Every sequence in progress, in order of request id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.0.iter().flatten().map(AsRef::as_ref)
    }
}
