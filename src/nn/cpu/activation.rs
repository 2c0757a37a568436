//! The activation functions on slices, with their gradients.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::math::{normal_distribution, sigmoid};
use super::memory::copied;
use crate::error::{Error, Result};
use crate::simd::simd;

/// `2 u / x` of [`gelu_tanh`] is this times `1 + CUBIC x^2`.
const TWO_ROOT_TWO_OVER_PI: f32 = 1.595_769_2;
/// The coefficient of the cubic term.
const CUBIC: f32 = 0.044_715;

/// Elements a rayon task works on.
const BLOCK: usize = 16 * 1024;

/// Writes the outputs, and the gradients of the inputs, from the inputs and the gradients of the outputs; all of one
/// length.
type Backward = fn(&mut [MaybeUninit<f32>], &mut [MaybeUninit<f32>], &[f32], &[f32]);

/// A function of single numbers with its derivative. Only this file makes one: plain loops, so that it can be called
/// between the blocks of a matmul, where nothing else may touch the matrix unit.
#[derive(Clone, Copy)]
pub struct Elementwise {
    forward: fn(&mut [f32]),
    backward: Backward,
}

impl Elementwise {
    /// GELU with the error function.
    pub const GELU: Self = Self { forward: gelu, backward: gelu_backward };
    /// Its tanh approximation.
    pub const GELU_TANH: Self = Self { forward: gelu_tanh, backward: gelu_tanh_backward };
    /// CLIP's `x sigmoid(1.702 x)`.
    pub const QUICK_GELU: Self = Self { forward: quick_gelu, backward: quick_gelu_backward };

    /// Replaces every number by the function's value.
    pub fn apply(self, z: &mut [f32]) {
        (self.forward)(z);
    }

    /// [`Self::apply`] on all threads.
    pub fn apply_in_parallel(self, z: &mut [f32]) {
        z.par_chunks_mut(BLOCK).for_each(self.forward);
    }

    /// The function's values.
    pub fn of(self, z: &[f32]) -> Vec<f32> {
        let mut out = Box::new_uninit_slice(z.len());
        out.par_chunks_mut(BLOCK).zip(z.par_chunks(BLOCK)).for_each(|(out, z)| self.apply(copied(out, z)));
        // SAFETY: every block was copied from one of `z`, which is as long.
        unsafe { out.assume_init() }.into_vec()
    }

    /// The function's values of `z`, and the gradient of `z` from that of the values.
    pub fn backward(self, z: &[f32], da: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        if z.len() != da.len() {
            return Err(Error::new("activation: the gradient does not fit the input"));
        }
        let (mut out, mut dz) = (Box::new_uninit_slice(z.len()), Box::new_uninit_slice(z.len()));
        (out.par_chunks_mut(BLOCK), dz.par_chunks_mut(BLOCK), z.par_chunks(BLOCK), da.par_chunks(BLOCK))
            .into_par_iter()
            .for_each(|(out, dz, z, da)| (self.backward)(out, dz, z, da));
        // SAFETY: all four are of one length, and the functions below write both blocks whole.
        Ok(unsafe { (out.assume_init().into_vec(), dz.assume_init().into_vec()) })
    }
}

simd! {
    fn gelu(z: &mut [f32]) {
        for x in z {
            *x *= normal_distribution(*x).1;
        }
    }

    fn gelu_tanh(z: &mut [f32]) {
        for x in z {
            *x *= sigmoid(TWO_ROOT_TWO_OVER_PI * *x * (CUBIC * *x).mul_add(*x, 1.0));
        }
    }

    fn quick_gelu(z: &mut [f32]) {
        for x in z {
            *x *= sigmoid(1.702 * *x);
        }
    }

    /// The function of `z` once more, and the gradient of `z` from `da`, that of the output. The same of the next two.
    fn gelu_backward(out: &mut [MaybeUninit<f32>], dz: &mut [MaybeUninit<f32>], z: &[f32], da: &[f32]) {
        for (((o, dz), &x), &d) in out.iter_mut().zip(dz).zip(z).zip(da) {
            let (density, cumulative) = normal_distribution(x);
            o.write(x * cumulative);
            dz.write(d * x.mul_add(density, cumulative));
        }
    }

    fn gelu_tanh_backward(out: &mut [MaybeUninit<f32>], dz: &mut [MaybeUninit<f32>], z: &[f32], da: &[f32]) {
        for (((o, dz), &x), &d) in out.iter_mut().zip(dz).zip(z).zip(da) {
            let s = sigmoid(TWO_ROOT_TWO_OVER_PI * x * (CUBIC * x).mul_add(x, 1.0));
            let change = TWO_ROOT_TWO_OVER_PI * (3.0 * CUBIC * x).mul_add(x, 1.0);
            o.write(x * s);
            dz.write(d * (x * change * s).mul_add(1.0 - s, s));
        }
    }

    fn quick_gelu_backward(out: &mut [MaybeUninit<f32>], dz: &mut [MaybeUninit<f32>], z: &[f32], da: &[f32]) {
        for (((o, dz), &x), &d) in out.iter_mut().zip(dz).zip(z).zip(da) {
            let s = sigmoid(1.702 * x);
            o.write(x * s);
            dz.write(d * (1.702 * x * s * (1.0 - s) + s));
        }
    }
}
