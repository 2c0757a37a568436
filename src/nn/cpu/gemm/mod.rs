//! Matmuls on strided slices, in f32 or with the operands rounded to bf16. Sums are f32 in both; they, or what a
//! function makes of them, may be written as bf16 ([`Packed::matmul_to_bf16`]).
//!
//! With AVX-512 they run through our own kernels (`tasks`): f32, bf16 with AVX512-BF16, or bf16 on Intel's matrix unit
//! AMX, all on one layout of packed operands. Elsewhere they run through the `gemm` crate.

mod dispatch;
mod operands;
mod packed;

#[cfg(target_arch = "x86_64")]
mod block;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod scratch;
#[cfg(target_arch = "x86_64")]
mod tasks;

use std::mem::MaybeUninit;

use gemm::Parallelism;
use half::bf16;
use rayon::prelude::*;

pub use dispatch::bf16_unit;
use dispatch::through_kernels;
use operands::{CElements, RawC, fits};
pub(super) use operands::{Elements, OperandB, RawMat};
pub use operands::{Left, Mat, Start};
use packed::LEAST_PACKED;
pub use packed::Packed;

use super::math::add;
use super::memory::copied;

/// `C = start + A B`; A is `m x k`, B `k x n`, C `m x n` with rows of `n` elements. With `bf16`, the elements of A and B
/// are first rounded to bf16. Every element of C is written, and none is read but for [`Start::C`]. Uses all threads of the
/// rayon pool; the result does not depend on their number.
///
/// # Panics
/// If a matrix does not fit its slice (a mistake in the calling operation, never in user input).
pub fn gemm(shape: (usize, usize, usize), bf16: bool, a: Mat, b: Mat, start: Start, c: &mut [f32]) {
    assert!(c.len() == shape.0 * shape.1, "C is not {} x {}", shape.0, shape.1);
    // SAFETY: C is as large as the shape says, initialised and borrowed mutably.
    unsafe { gemm_into(shape, bf16, a, b, start, c.as_mut_ptr()) }
}

/// [`gemm()`] into new memory.
///
/// # Panics
/// As [`gemm()`], and with [`Start::C`]: there is no C yet.
pub fn matmul((m, n, k): (usize, usize, usize), bf16: bool, a: Mat, b: Mat, start: Start) -> Vec<f32> {
    assert!(!matches!(start, Start::C), "new memory holds nothing to start from");
    let mut c = Box::<[f32]>::new_uninit_slice(m * n);
    // SAFETY: C is as large as the shape says and ours alone, it is not read, and `gemm_into` writes all of it.
    unsafe {
        gemm_into((m, n, k), bf16, a, b, start, c.as_mut_ptr().cast());
        c.assume_init().into_vec()
    }
}

/// [`gemm()`] into memory that need not be initialised; when it returns, all of it is.
///
/// # Safety
/// C may be written for `m x n` elements, nobody else uses it, and for [`Start::C`] it is initialised.
///
/// # Panics
/// If A, B or what C starts from does not fit its slice.
unsafe fn gemm_into((m, n, k): (usize, usize, usize), bf16: bool, a: Mat, b: Mat, start: Start, c: *mut f32) {
    assert!(fits(a.data.len(), m, k, a.row_stride, a.col_stride), "A is too short");
    assert!(fits(b.data.len(), k, n, b.row_stride, b.col_stride), "B is too short");
    start.assert_fits(m, n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 && matches!(start, Start::Zero) {
        // SAFETY: the caller has the memory; zeros are numbers.
        return unsafe { c.write_bytes(0, m * n) };
    }
    let to = RawC { start, ptr: CElements::F32(c), row_stride: n };
    // SAFETY: A and B lie within their slices, the start fits C, and the caller has C.
    if unsafe { through_kernels((m, n, k), bf16, a.raw(), OperandB::Plain(b.raw()), to, true) } {
        return;
    }
    // SAFETY: the caller has this memory; nothing of it is read here.
    let filled = unsafe { std::slice::from_raw_parts_mut(c.cast::<MaybeUninit<f32>>(), m * n) };
    let accumulate = match start {
        Start::Zero => false,
        Start::C => true,
        Start::Bias(bias) => {
            filled.par_chunks_mut(n).for_each(|row| {
                copied(row, bias);
            });
            true
        }
        Start::Other(other) => {
            copied(filled, other);
            true
        }
        Start::BiasAndOther(bias, other) => {
            let rows = filled.par_chunks_mut(n).zip(other.par_chunks(n));
            rows.for_each(|(row, other)| add(row, other, bias));
            true
        }
    };
    let (rounded_a, rounded_b) = if bf16 { (rounded(a.data), rounded(b.data)) } else { (Vec::new(), Vec::new()) };
    let (a, b) = if bf16 { (Mat { data: &rounded_a, ..a }, Mat { data: &rounded_b, ..b }) } else { (a, b) };
    let c = RawMat { ptr: c, row_stride: n, col_stride: 1 };
    // SAFETY: A and B lie within their slices, in f32; the caller has C, initialised where it is added to.
    unsafe { through_crate((m, n, k), a.raw(), b.raw(), accumulate, c, Parallelism::Rayon(0)) };
}

/// Every element rounded to bf16 (to nearest, ties to even), as f32.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.par_iter().with_min_len(4096).map(|x| round_to_bf16(*x)).collect()
}

/// `x` rounded to bf16: to nearest, ties to even.
pub fn round_to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// [`gemm()`] by address on the calling thread: `C = A B`, with the columns of C next to each other. Small matmuls of f32
/// are computed in f32 even with `bf16`.
///
/// # Safety
/// A and B must be valid for their shapes and strides, in bf16 only with `bf16`, on a CPU that has a
/// [`bf16_unit`]; a packed B must come from [`OperandB::prepare`] with this `n`, `k` and `bf16`. C must be valid for
/// `m x n` with a `col_stride` of 1 (it need not be initialised), and nobody else may use it meanwhile.
pub(super) unsafe fn gemm_raw(
    (m, n, k): (usize, usize, usize), bf16: bool, a: RawMat<Elements>, b: OperandB, c: RawMat<*mut f32>,
) {
    let out = RawC { start: Start::Zero, ptr: CElements::F32(c.ptr), row_stride: c.row_stride };
    // SAFETY: the contract of both is this function's own; where there are no kernels B is in f32.
    unsafe {
        match b {
            OperandB::Plain(b) if m * n * k < LEAST_PACKED => {
                through_crate((m, n, k), a, b, false, c, Parallelism::None)
            }
            _ if through_kernels((m, n, k), bf16, a, b, out, false) => {}
            OperandB::Plain(b) => through_crate((m, n, k), a, b, false, c, Parallelism::None),
            OperandB::Packed(_) => {} // only kernels have packed it
        }
    }
}

/// `C = A B`, or `C += A B` with `accumulate`, through the `gemm` crate.
///
/// # Safety
/// A (`m x k`), B (`k x n`) and C (`m x n`) are valid for their strides, C initialised if `accumulate`, and nobody else
/// uses C.
///
/// # Panics
/// If A or B is in bf16.
unsafe fn through_crate(
    (m, n, k): (usize, usize, usize), a: RawMat<Elements>, b: RawMat<Elements>, accumulate: bool, c: RawMat<*mut f32>,
    parallelism: Parallelism,
) {
    let (Elements::F32(a_ptr), Elements::F32(b_ptr)) = (a.ptr, b.ptr) else {
        unreachable!("only our own kernels read bf16");
    };
    // SAFETY: what the crate asks for is this function's own contract.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.ptr,
            c.col_stride as isize,
            c.row_stride as isize,
            accumulate,
            a_ptr,
            a.col_stride as isize,
            a.row_stride as isize,
            b_ptr,
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests;
