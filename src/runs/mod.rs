//! What a run has on disk: its folder, status, checkpoints and metrics; and how a run is found again.
//!
//! | file | |
//! |---|---|
//! | [`folder`] | `LOG_DIR/NAME/version_N`, locked while a process trains in it |
//! | [`status`] | `status.json` |
//! | [`state`] | `state.json`: all that the next step depends on, but for weights and moments |
//! | [`stopping`], [`retention`] | pure policies: when to stop, which checkpoints to keep |
//! | [`checkpoint`] | checkpoints, written whole or not at all |
//! | [`journal`] | what a run writes while it trains |
//! | [`resume`] | which run to resume, with which settings, from where |
//! | [`trained`] | what `--version-path` names |
//! | [`lightning`] | runs of the Python Themo |
//! | [`listing`] | the runs in a folder |
//!
//! It knows students, but neither the trainer nor the optimizer, whose moments are named tensors here.

pub mod checkpoint;
pub mod folder;
pub mod journal;
pub mod lightning;
pub mod listing;
pub mod resume;
pub mod retention;
pub mod state;
pub mod status;
pub mod stopping;
pub mod trained;

pub use folder::RunDir;
pub use journal::Journal;
pub use state::State;
pub use trained::Trained;
