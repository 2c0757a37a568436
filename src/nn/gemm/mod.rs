//! Matrix products on strided slices, in f32 or with the operands rounded to bf16. Sums are f32 in both; they, or what a
//! function makes of them, may be written as bf16 ([`Packed::matmul_to_bf16`]).
//!
//! With AVX-512 they run through our own kernels (`blocked`): f32, bf16 with AVX512-BF16, or bf16 on Intel's matrix unit
//! AMX, all on one layout of packed operands. Elsewhere they run through the `gemm` crate.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod block;
#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod kernel;
mod operands;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod scratch;

use std::mem::MaybeUninit;

use gemm::Parallelism;
use half::bf16;
use rayon::prelude::*;

pub(super) use operands::{Columns, Elements, RawMat};
pub use operands::{Left, Mat, Start};
use operands::{Out, Target};

use super::elementwise::Elementwise;
use super::math::add;
use super::memory::copied;

/// The instructions through which bf16 products are faster than f32 ones here, if there are any.
pub fn bf16_unit() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
    {
        return Some(if blocked::amx_is_right() { "AMX" } else { "AVX512-BF16" });
    }
    None
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

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
    let to = Out { start, ptr: Target::F32(c), row_stride: n };
    // SAFETY: A and B lie within their slices, the start fits C, and C is the caller's.
    if unsafe { through_kernels((m, n, k), bf16, a.raw(), Columns::As(b.raw()), to, true) } {
        return;
    }
    // SAFETY: the caller's memory, of which nothing is read here.
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
    // SAFETY: A and B lie within their slices, in f32; C is the caller's, and initialised where it is added to.
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

/// Products of f32 with fewer multiplications go through the `gemm` crate when they are part of a larger work: they would
/// mostly be packing.
const SMALL: usize = 1 << 15;

impl Columns {
    /// B `k x n` for products of `m` rows altogether; packed into `memory` where that is of use.
    ///
    /// # Safety
    /// `b` must be valid for its shape (in bf16 only for products in bf16 on a CPU that has a [`bf16_unit`]), and stay so, as
    /// `memory` must unchanged, until the last product with it.
    pub unsafe fn prepare(
        (m, n, k): (usize, usize, usize), bf16: bool, b: RawMat<Elements>, memory: &mut Vec<u32>,
    ) -> Self {
        #[cfg(target_arch = "x86_64")]
        if (m * n * k >= SMALL || k > 0 && matches!(b.ptr, Elements::Bf16(_))) && has_kernels(bf16) {
            let to = room(memory, blocked::packed_words(bf16, n, k));
            // SAFETY: there are kernels and room; B is valid by the caller's word.
            unsafe { pack_columns((n, k), bf16, b, to, false) };
            return Self::Packed(to);
        }
        let _ = (m, n, k, bf16, memory);
        Self::As(b)
    }
}

/// [`gemm()`] by address on the calling thread: `C = A B`, C with columns next to each other. Small products of f32 are f32
/// even with `bf16`.
///
/// # Safety
/// A and B must be valid for their shapes and strides, in bf16 only for products in bf16 on a CPU that has a
/// [`bf16_unit`]; a packed B must come from [`Columns::prepare`] with this `n`, `k` and `bf16`. C must be valid for
/// `m x n` with a `col_stride` of 1 (it need not be initialised), and nobody else may use it meanwhile.
pub(super) unsafe fn gemm_raw(
    (m, n, k): (usize, usize, usize), bf16: bool, a: RawMat<Elements>, b: Columns, c: RawMat<*mut f32>,
) {
    let out = Out { start: Start::Zero, ptr: Target::F32(c.ptr), row_stride: c.row_stride };
    // SAFETY: the caller's, who owes the same to both; without kernels B is in f32.
    unsafe {
        match b {
            Columns::As(b) if m * n * k < SMALL => through_crate((m, n, k), a, b, false, c, Parallelism::None),
            _ if through_kernels((m, n, k), bf16, a, b, out, false) => {}
            Columns::As(b) => through_crate((m, n, k), a, b, false, c, Parallelism::None),
            Columns::Packed(_) => {} // only kernels have packed it
        }
    }
}

/// Room for `words` words in `memory`, from the start of a cache line on.
#[cfg(target_arch = "x86_64")]
fn room(memory: &mut Vec<u32>, words: usize) -> *mut u32 {
    memory.clear();
    memory.reserve(words + 15);
    let ptr = memory.as_mut_ptr();
    ptr.wrapping_add(ptr.align_offset(64).min(15))
}

/// B packed once for many products.
pub struct Packed {
    _memory: Vec<u32>,
    start: *const u32,
    shape: (usize, usize), // n, k
    bf16: bool,
}

// SAFETY: `start` points into its own memory, which moves with it.
unsafe impl Send for Packed {}
// SAFETY: the memory is only read once it is made.
unsafe impl Sync for Packed {}

impl Packed {
    /// Packs B `k x n`; none where products run through the `gemm` crate.
    ///
    /// # Panics
    /// If the matrix does not fit its slice.
    pub fn new((n, k): (usize, usize), bf16: bool, b: Mat) -> Option<Self> {
        assert!(fits(b.data.len(), k, n, b.row_stride, b.col_stride), "B is too short");
        #[cfg(target_arch = "x86_64")]
        if n > 0 && k > 0 && has_kernels(bf16) {
            let mut memory = Vec::new();
            let start = room(&mut memory, blocked::packed_words(bf16, n, k));
            // SAFETY: there are kernels and room, and the matrix lies within its slice.
            unsafe { pack_columns((n, k), bf16, b.raw(), start, true) };
            return Some(Self { _memory: memory, start, shape: (n, k), bf16 });
        }
        let _ = bf16;
        None
    }

    /// Its `n`: the columns of C.
    pub fn columns(&self) -> usize {
        self.shape.0
    }

    /// Whether products with this B may be written as bf16.
    pub fn writes_bf16(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.bf16 && blocked::is_one_part(self.bf16, self.shape.1);
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// [`gemm()`] with this B, into new memory `[m, n]`.
    ///
    /// # Panics
    /// If a matrix does not fit its slice or is in bf16 where that cannot be, and with [`Start::C`].
    pub fn matmul(&self, m: usize, a: Left, start: Start) -> Vec<f32> {
        let mut c = Box::<[f32]>::new_uninit_slice(m * self.shape.0);
        // SAFETY: C is as large as it has to be and ours alone, and all of it is written.
        unsafe {
            self.multiply(m, a, start, Target::F32(c.as_mut_ptr().cast()));
            c.assume_init().into_vec()
        }
    }

    /// [`Self::matmul`] and the values of `finish`, if any, rounded to bf16.
    ///
    /// # Panics
    /// As [`Self::matmul`], and unless [`Self::writes_bf16`].
    pub fn matmul_to_bf16(&self, m: usize, a: Left, start: Start, finish: Option<Elementwise>) -> Vec<bf16> {
        assert!(self.writes_bf16(), "bf16 of a sum in parts");
        let mut c = Box::<[bf16]>::new_uninit_slice(m * self.shape.0);
        // SAFETY: as in `matmul`, and k is worked on in one part.
        unsafe {
            self.multiply(m, a, start, Target::Bf16(c.as_mut_ptr().cast(), finish));
            c.assume_init().into_vec()
        }
    }

    /// Writes all `m x n` elements of C.
    ///
    /// # Safety
    /// C may be written for `m x n` elements, and nobody else uses it. It is in bf16 only if [`Self::writes_bf16`].
    unsafe fn multiply(&self, m: usize, a: Left, start: Start, c: Target) {
        let (n, k) = self.shape;
        let (elements, len) = match a {
            Left::F32(a) => (Elements::F32(a.as_ptr()), a.len()),
            Left::Bf16(a) => (Elements::Bf16(a.as_ptr()), a.len()),
        };
        assert!(len == m * k, "A is not of {m} rows");
        assert!(self.bf16 || matches!(elements, Elements::F32(_)), "f32 products of bf16");
        assert!(!matches!(start, Start::C), "new memory holds nothing to start from");
        start.assert_fits(m, n);
        let a = RawMat { ptr: elements, row_stride: k, col_stride: 1 };
        let (b, c) = (Columns::Packed(self.start), Out { start, ptr: c, row_stride: n });
        // SAFETY: A lies within its slice, the start fits C, C is the caller's, and `new` has packed B for this CPU.
        let is_done = unsafe { through_kernels((m, n, k), self.bf16, a, b, c, true) };
        assert!(is_done, "packed where no kernel reads it");
    }
}

/// Whether products run through our own kernels on this CPU.
#[cfg(target_arch = "x86_64")]
fn has_kernels(bf16: bool) -> bool {
    bf16_unit().is_some() || !bf16 && is_x86_feature_detected!("avx512f")
}

/// Packs B `k x n` to `to`.
///
/// # Safety
/// The CPU [`has_kernels`] for `bf16`, B is valid, and `to` has room for what `blocked::packed_words` says.
#[cfg(target_arch = "x86_64")]
unsafe fn pack_columns((n, k): (usize, usize), bf16: bool, b: RawMat<Elements>, to: *mut u32, parallel: bool) {
    let b = pack::Lines::columns(b, n, k);
    // SAFETY: the caller's, who owes the same to both. (AMX reads the same panels.)
    unsafe {
        match bf16 {
            true => blocked::pack::<avx512::Bf16>(b, to, parallel),
            false => blocked::pack::<avx512::F32>(b, to, parallel),
        }
    }
}

/// [`gemm()`] through our own kernels by address, into C with columns next to each other; false if this CPU cannot.
///
/// # Safety
/// A and B as for [`gemm_raw`]. C is valid for `m x n`, its `start` fits it ([`Start::C`] only where C is initialised), it is
/// in bf16 only where k is worked on in one part, and nobody else uses it.
unsafe fn through_kernels(
    shape: (usize, usize, usize), bf16: bool, a: RawMat<Elements>, b: Columns, c: Out, parallel: bool,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if shape.2 > 0 && has_kernels(bf16) {
        use amx::Amx;
        use avx512::{Bf16, F32};
        use blocked::product;
        // SAFETY: the features were found and k is not 0; the rest is the caller's.
        unsafe {
            match bf16 {
                false => product::<F32>(shape, a, b, c, parallel),
                true if blocked::amx_is_right() => product::<Amx>(shape, a, b, c, parallel),
                true => product::<Bf16>(shape, a, b, c, parallel),
            }
        };
        return true;
    }
    let _ = (shape, bf16, a, b, c, parallel);
    false
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
    // SAFETY: the caller's; the crate asks for the same.
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
