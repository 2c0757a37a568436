//! One file per subcommand: arguments in, library call, text out.

pub mod data;
pub mod embed;
pub mod export;
pub mod generate;
pub mod runs;
pub mod test;
pub mod train;
