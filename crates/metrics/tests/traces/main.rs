//! Whole traces: what is computed of one run, and of several policies.

mod blame;
mod comparison;
mod judgement;
mod objectives;
mod script;
mod summary;
