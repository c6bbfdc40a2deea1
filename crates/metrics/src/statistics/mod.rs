//! What a number is worth: intervals, tests and the rules by which they may be used.
//!
//! The unit of replication is the seed: requests of one run wait for each other, so they are never
//! taken as independent. Several runs are compared pair by pair ([`Sample`], [`sign_flip_p`],
//! [`bootstrap_mean`], [`holm`], [`Looks`]); one long run is judged by batch means, and refused
//! where it is too short for them ([`steady_mean`], [`steady_percentile`], [`steady_share`]).

mod bootstrap;
mod holm;
mod interval;
mod looks;
mod permutation;
mod sample;
mod steady;

pub use bootstrap::bootstrap_mean;
pub use holm::holm;
pub use interval::{CONFIDENCE, Interval};
pub use looks::{LEVEL, Looks};
pub use permutation::sign_flip_p;
pub use sample::Sample;
pub use steady::{NoInterval, Steady, steady_mean, steady_percentile, steady_share};
