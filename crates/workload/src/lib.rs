//! Who asks for what and when.
//!
//! A [`WorkloadSpec`] and a seed make the requests of a run: arrivals, lengths, prompts, sampling.
//! Each has a random stream of its own, so changing one does not change the others; and the same
//! seed gives the same requests under every scheduler, at every arrival rate with the gaps scaled.

mod arrivals;
mod error;
mod files;
mod fit;
mod generate;
mod lengths;
mod prompts;
mod recorded;
mod spec;
mod streams;

pub use error::WorkloadError;
pub use fit::TooLong;
pub use generate::{Workload, generate, longest_possible};
pub use prompts::Vocabulary;
pub use recorded::{RecordedRequest, read_recorded};
pub use spec::{Arrivals, Class, Lengths, Prompts, WorkloadSpec};
pub use streams::{Stream, stream};
