//! Executors in virtual time: the same scheduler and step loop, on a clock that a cost model
//! moves.

mod affine;
mod executor;
mod fit;
mod prices;

pub use affine::{AffineCost, CostFile, CostFileError, Piece};
pub use executor::SimExecutor;
pub use fit::{StepSample, fit};
