//! Operations of the packed encoder, each a forward and a backward function; nothing is recorded behind the scenes.
//!
//! Every operation has two implementations behind one signature, chosen by [`Backend`]: *fast* (on the CPU: rayon, vector
//! instructions, in-place gradients; its matmuls in f32 or bf16) and *plain* (candle tensor algebra, what CUDA and Metal
//! run). Plain is also the reference: the tests hold fast to it on the CPU, in value and gradient.
//!
//! | where | what |
//! |---|---|
//! | [`activation`], [`attention`], [`dropout`], [`embedding`], [`layer_norm`], [`linear`], [`pooling`] | the layers: tensors in and out, and the choice of an implementation |
//! | [`cpu`] | the fast implementations of activation, attention and layer norm, on slices, and the matmul |
//! | `plain` | the plain implementations of the same three |
//! | [`rows`], `batch`, [`params`], `heads`, [`storage`] | what they work on: the packed layout, parameters and gradients, tensors as slices |
//! | `module` | the layers as candle modules |
//!
//! In embedding, linear, pooling and dropout both implementations are a few lines each, which stand side by side in the
//! layer's file.
//!
//! Tensors are f32. Only frozen layers on a CPU with bf16 instructions hand on bf16 (`forward_halves`; fast, and forward
//! only). Tokens are packed: `[total_tokens, hidden]`, with [`Rows`] saying which sequence and position each row is.

pub mod activation;
pub mod attention;
mod batch;
pub mod cpu;
pub mod dropout;
pub mod embedding;
mod heads;
pub mod init;
pub mod layer_norm;
pub mod linear;
mod module;
pub mod params;
mod plain;
pub mod pooling;
pub mod rows;
pub mod storage;

pub use activation::{Activate, Activation};
pub use batch::Batch;
pub use dropout::{Dropout, Site};
pub use embedding::Embedding;
pub use init::Init;
pub use layer_norm::LayerNorm;
pub use linear::{FrozenLinear, Linear};
pub use params::{Gradients, Param, Params};
pub use pooling::Pooling;
pub use rows::{Rows, Tokens};

/// Which implementation of the operations runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Slices on the CPU.
    #[default]
    Fast,
    /// The same, with the operands of matmuls rounded to bf16.
    Bf16,
    /// candle tensor operations, on any device.
    Plain,
}

/// Runs `work` on a thread of rayon's pool. Started from any other thread, every parallel loop in it would hand its work
/// to the pool and sleep until it is done.
pub fn on_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

#[cfg(test)]
pub(crate) mod testing;
