//! Batching policies, one a file, and the parts they share.
//!
//! A policy is an order, an admission rule, a packing and a choice of victims; each file says
//! which, names its source, and says where it departs from it.

mod orca;
mod queues;
mod registry;
mod sarathi;
mod static_batching;
mod vllm_v0;

pub use orca::Orca;
pub use queues::Queues;
pub use registry::{Defaults, PolicyError, PolicySpec, Registry};
pub use sarathi::{Sarathi, SarathiOptions};
pub use static_batching::StaticBatching;
pub use vllm_v0::{VllmV0, VllmV0Options};
