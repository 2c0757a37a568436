//! What the tests of the operations share.

use candle_core::{Device, Shape, Tensor};

use super::Backend;
use crate::rng;

pub const BACKENDS: [Backend; 2] = [Backend::Fast, Backend::Plain];

/// Standard normal numbers, a function of `seed`.
pub fn random(seed: u64, shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    let data: Vec<f32> = (0..shape.elem_count()).map(|i| rng::normal(seed, i as u64) as f32).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

pub fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Relative Frobenius distance of `got` from `want`.
pub fn distance(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let (got, want) = (values(got), values(want));
    let error: f64 = got.iter().zip(&want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    (error / size.max(1e-60)).sqrt()
}

#[track_caller]
pub fn assert_close(got: &Tensor, want: &Tensor, tolerance: f64) {
    let distance = distance(got, want);
    assert!(distance <= tolerance, "relative distance {distance:e} > {tolerance:e}");
}
