//! Training: what one step does, what a run does with steps, and the pure policies it asks.

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
pub use trainer::{Start, Summary, Task, Trainer};
