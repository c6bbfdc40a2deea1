//! Tests of the whole: the architecture, and the program as its users run it.

mod bad_input;
mod blame;
mod busy;
mod capacity;
mod disks;
mod doubts;
mod experiments;
mod explain;
mod imports;
mod instrumentation;
mod layers;
mod memory;
mod metron;
mod profiles;
#[path = "../../examples/coverage/queue.rs"]
mod queue;
mod queues;
mod repeats;
mod saved;
