//! The greatest arrival rate at which a policy keeps its objectives.

mod bench;
mod bound;
mod grid;
mod policies;
mod search;

pub use bench::saved_dir;
pub use bound::greatest_rate;
pub use policies::{CapacitySetting, Found, capacities};
pub use search::{CapacitySearch, Probe, SearchPlan};
