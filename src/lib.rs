//! themo
pub mod data;
pub mod error;
pub mod models;
pub mod nn;
pub mod rng;
pub mod train;
