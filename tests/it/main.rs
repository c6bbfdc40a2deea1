//! Tests of the whole: the architecture, and the program as its users run it.

mod bad_input;
mod capacity;
mod experiments;
mod layers;
mod metron;
