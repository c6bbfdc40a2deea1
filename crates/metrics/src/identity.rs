use std::hash::{DefaultHasher, Hash, Hasher};

use metron_trace::{Request, Trace};

use crate::comparison::RunOf;

/// Two runs of which one adds nothing to the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunTwice {
    /// They have one policy, one seed and one number.
    #[error(
        "both are replicate {} of {policy} with seed {seed}: one run twice, or two that are no \
         replicates of each other; leave one out, or use `metron diff` to hold one against the \
         other", replicate + 1
    )]
    Replicate {
        /// Where they stand in the list.
        at: [usize; 2],
        /// Label of their policy.
        policy: String,
        /// Their seed.
        seed: u64,
        /// Which repetition, from 0.
        replicate: u32,
    },
    /// They are one result of another tool.
    #[error("both are one result of {policy}; leave one out")]
    Imported {
        /// Where they stand in the list.
        at: [usize; 2],
        /// Label of their policy.
        policy: String,
    },
}

impl RunTwice {
    /// Where the two stand in the list.
    pub fn at(&self) -> [usize; 2] {
        match self {
            Self::Replicate { at, .. } | Self::Imported { at, .. } => *at,
        }
    }
}

/// Refuses runs of which one stands twice: pooled they would pass for replicates.
pub fn check_distinct(runs: &[RunOf<'_>]) -> Result<(), RunTwice> {
    for (second, run) in runs.iter().enumerate() {
        for (first, other) in runs[..second].iter().enumerate() {
            if let Some(twice) = twice([(first, other), (second, run)]) {
                return Err(twice);
            }
        }
    }
    Ok(())
}

fn twice([(first, a), (second, b)]: [(usize, &RunOf<'_>); 2]) -> Option<RunTwice> {
    let at = [first, second];
    let policy = a.policy.to_owned();
    if a.policy != b.policy {
        return None;
    }
    // Another tool's result has no seed and no number; what is told apart is what it holds.
    if a.trace.header.origin.is_imported() && b.trace.header.origin.is_imported() {
        let is_one = a.trace.requests == b.trace.requests && a.trace.tokens == b.trace.tokens;
        return is_one.then_some(RunTwice::Imported { at, policy });
    }
    let seed = a.trace.header.seed;
    let is_one = seed == b.trace.header.seed && a.replicate == b.replicate;
    is_one.then_some(RunTwice::Replicate { at, policy, seed, replicate: a.replicate })
}

/// Whether the runs of two policies are a pair: one replicate, and the same requests.
pub(crate) fn are_paired(a: &RunOf<'_>, b: &RunOf<'_>) -> bool {
    a.replicate == b.replicate
        && a.trace.header.seed == b.trace.header.seed
        && have_the_same_requests(a.trace, b.trace)
}

fn have_the_same_requests(a: &Trace, b: &Trace) -> bool {
    let have_arrivals = arrives_by_itself(a) && arrives_by_itself(b);
    let alike = |(a, b): (&Request, &Request)| {
        a.prompt_tokens == b.prompt_tokens
            && a.most_output_tokens() == b.most_output_tokens()
            && (a.arrived_at == b.arrived_at || !have_arrivals)
    };
    a.requests.len() == b.requests.len() && a.requests.iter().zip(&b.requests).all(alike)
}

/// What makes a policy's run another one in virtual time, where nothing but the requests varies;
/// `None` on a machine.
pub(crate) fn identity_in_virtual_time(trace: &Trace) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    for request in &trace.requests {
        let lengths = (request.prompt_tokens, request.most_output_tokens());
        (request.arrived_at.as_nanos(), lengths, request.class).hash(&mut hasher);
    }
    trace.header.is_simulated().then(|| hasher.finish())
}

/// Whether arrivals are the workload's own: in a closed loop they come when the policy lets them,
/// and another tool has written down when its client sent them.
fn arrives_by_itself(trace: &Trace) -> bool {
    trace.header.max_concurrency.is_none() && !trace.header.origin.is_imported()
}
