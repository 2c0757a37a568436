//! The towers: one packed encoder with different settings and embeddings, and how checkpoints fill them.

pub mod bert;
pub mod clip;
pub mod clip_text;
pub mod clip_vision;
pub mod encoder;
pub mod folder;
pub mod kinds;
mod layer;
mod load;
pub mod mclip;
pub mod padded;
pub mod student;
pub mod weights;

pub use clip_text::ClipText;
pub use clip_vision::ClipVision;
pub use encoder::{Encoder, Tape};
pub use layer::EncoderConfig;
pub use mclip::{Mclip, MclipConfig};
pub use padded::Padded;
pub use student::{Student, TokenizerFacts};
