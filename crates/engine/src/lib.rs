//! The step loop, KV blocks, and the contracts between a policy, an executor and the loop.
//!
//! A [`Scheduler`] observes events and plans the next step in a checked transaction, the
//! [`Planner`]; an [`Executor`] carries the plan out and owns the clock; [`Engine::run`] is the
//! loop between them, the same for real and virtual time.

mod arrivals;
mod batch;
mod blocks;
mod engine;
mod error;
mod executor;
mod observer;
mod planner;
mod policy;
mod scheduler;
mod sequence;

pub use arrivals::Submission;
pub use batch::{Batch, BatchItem};
pub use blocks::BlockId;
pub use engine::{Engine, RunEnd};
pub use error::EngineError;
pub use executor::{CostModel, Executor, ExecutorError, Outcome, SampledToken, TextPiece};
pub use observer::{ObserverError, StepObserver};
pub use planner::{Planner, Refused};
pub use scheduler::{Event, Scheduler, View, Wake};
pub use sequence::{Sequence, SequenceState};
