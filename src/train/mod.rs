//! Training: a run, its epochs and steps, and the pure policies that they follow.

pub mod dataset;
pub mod groups;
pub mod loss;
pub mod memory;
pub mod optimizer;
pub mod pairs;
pub mod probe;
pub mod run;
pub mod schedule;
pub mod step;
pub mod teacher;
pub mod trainer;

pub use dataset::Dataset;
pub use trainer::{Setup, Start, Summary, Trainer};
