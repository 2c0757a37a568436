//! Layers in candle tensor algebra, on any device: what CUDA and Metal run, and the reference that [`super::cpu`] is held
//! to. Only operations that candle can differentiate are used, so that its autograd can check the backward passes.

pub(super) mod activation;
pub(super) mod attention;
pub(super) mod layer_norm;
