use metron_engine::{Executor, ExecutorError};
use metron_trace::Limits;

/// The system under test, as an experiment needs it: an executor that can start over.
pub trait Rig {
    /// The executor, with its clock at the start of a run and nothing in flight.
    fn start(&mut self) -> Result<&mut dyn Executor, ExecutorError>;

    /// The limits within which policies plan.
    fn limits(&self) -> Limits;

    /// Token ids that prompts may be made of; empty in virtual time, where a prompt is only a
    /// length.
    fn ordinary_token_ids(&self) -> &[u32];
}
