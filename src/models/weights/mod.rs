//! Files of weights. [`Weights`] reads a model's, of safetensors or of PyTorch ([`pickle`]), and sees through what
//! wrappers put before the names ([`names`], which also knows where each kind of model has its layers); [`save()`]
//! writes safetensors.

mod file;
pub mod names;
pub mod pickle;
mod read;
mod save;

pub use read::{Leftover, Weights};
pub use save::{save, tensors, write_model, write_tensors};
