//! Layers on slices of the CPU's memory: rayon, vector instructions, and matmuls of our own. They take slices and give
//! vectors; the layers above ([`super`]) have the tensors.

pub(super) mod activation;
pub(super) mod attention;
pub mod gemm;
pub(super) mod layer_norm;
pub(crate) mod math;
pub(super) mod memory;
