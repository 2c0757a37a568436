//! A run that is killed, stopped or short of disk continues as if nothing had been: the real binary on the demo.
#![cfg(unix)]

mod kills;
mod runs;
mod settings;
mod trouble;
