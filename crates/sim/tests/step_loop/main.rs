//! The step loop under policies that do everything a policy may do, and some that it may not.

mod books;
mod door;
mod misbehaviour;
mod served;
mod support;
