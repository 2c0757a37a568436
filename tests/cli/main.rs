//! The real binary on the bundled demo.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod evaluation;
mod training;
