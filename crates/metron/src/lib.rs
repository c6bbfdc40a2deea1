//! Metron: a testbed for LLM serving in one process.
//!
//! It runs a real transformer under a batching scheduler that you can swap, records every step at
//! the machine's own clock, and computes from the record what a user of the stream would feel: the
//! fluidity-index and the fluid token generation rate (arXiv 2407.07000), beside TTFT, TBT and
//! TPOT. The same scheduler also runs in virtual time against a cost model.
//!
//! This crate re-exports the layers. To try a policy of your own, implement
//! [`Scheduler`](engine::Scheduler) and hand it to [`cli::main_with`]; `examples/my_scheduler.rs`
//! is the whole of it.

pub use metron_cli as cli;
pub use metron_engine as engine;
pub use metron_lab as lab;
pub use metron_llm as llm;
pub use metron_metrics as metrics;
pub use metron_report as report;
pub use metron_schedulers as schedulers;
pub use metron_sim as sim;
pub use metron_trace as trace;
pub use metron_workload as workload;

/// What a policy of your own needs.
pub mod prelude {
    pub use metron_engine::{Event, Planner, Refused, Scheduler, View, Wake};
    pub use metron_schedulers::{Defaults, Queues, Registry};
    pub use metron_trace::{PreemptionCause, RequestId, Timestamp};
}
