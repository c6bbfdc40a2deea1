//! Tests of the whole: the architecture, and the program as its users run it.

mod bad_input;
mod experiments;
mod layers;
mod metron;
mod queues;
