//! data
pub mod targets;
pub mod tokens;
