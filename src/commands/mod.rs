//! One file a subcommand: turns arguments into a configuration, builds the objects, calls the library. (`baseline` and
//! `evaluation` are parts of `test`.)

pub mod baseline;
pub mod embed;
pub mod evaluation;
mod probe;
pub mod runs;
pub mod test;
pub mod train;
