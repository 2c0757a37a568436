//! Training: what one step does, what a run does with steps, and the pure policies it asks.

pub mod checkpoint;
pub mod dataset;
pub mod groups;
pub mod journal;
pub mod lightning;
pub mod loss;
pub mod memory;
pub mod optimizer;
pub mod retention;
pub mod schedule;
pub mod state;
pub mod step;
pub mod stopping;
pub mod trainer;

pub use dataset::Dataset;
pub use journal::Journal;
pub use state::State;
pub use trainer::{Start, Summary, Task, Trainer};
