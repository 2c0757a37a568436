//! themo
pub mod error;
pub mod nn;
pub mod rng;
