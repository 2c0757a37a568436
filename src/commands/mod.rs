//! One file a subcommand: turns arguments into a configuration, builds the objects, calls the library.

pub mod baseline;
pub mod embed;
mod resume;
pub mod test;
pub mod train;
