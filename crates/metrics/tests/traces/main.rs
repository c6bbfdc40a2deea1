//! Whole traces: what is computed of one run, and of several policies.

mod comparison;
mod objectives;
mod script;
mod summary;
