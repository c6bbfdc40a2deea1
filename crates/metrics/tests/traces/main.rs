//! Whole traces: what is computed of one run, and of several policies.

mod blame;
mod comparison;
mod script;
mod summary;
