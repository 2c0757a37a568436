//! Matrix products on strided slices, in f32 or with the operands rounded to bf16 (sums are f32 in both).
//!
//! With AVX-512 they run through our own kernels (`blocked`): f32, bf16 with AVX512-BF16, or bf16 on Intel's matrix unit
//! AMX, all on one layout of packed operands. Elsewhere they run through the `gemm` crate.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod blocked;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod scratch;

use gemm::Parallelism;
use rayon::prelude::*;

/// A read-only strided matrix: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows of `row_stride` elements, one after another.
    pub fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// The transposed matrix.
    pub fn t(self) -> Self {
        Self { row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn raw(self) -> RawMat<*const f32> {
        RawMat { ptr: self.data.as_ptr(), row_stride: self.row_stride, col_stride: self.col_stride }
    }
}

/// One matrix operand by address, for products on parts that other threads work beside.
#[derive(Clone, Copy)]
pub struct RawMat<T> {
    /// Element (0, 0).
    pub ptr: T,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

/// What the products are added to.
#[derive(Clone, Copy)]
pub enum Init<'a> {
    /// Nothing.
    Zero,
    /// What C holds.
    C,
    /// The same `[n]` for every row.
    Bias(&'a [f32]),
    /// Another matrix of C's shape, with rows of `n` elements.
    Other(&'a [f32]),
}

/// The instructions through which bf16 products are faster than f32 ones here, if there are any.
pub fn bf16_unit() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
    {
        return Some(if amx_is_right() { "AMX" } else { "AVX512-BF16" });
    }
    None
}

/// Whether AMX is there and gives what AVX512-BF16 gives; asked once. Its loop could only be developed on a machine
/// without it, so it has to show first that it is right: on small whole numbers, whose sums are exact in any order.
#[cfg(target_arch = "x86_64")]
fn amx_is_right() -> bool {
    static RIGHT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *RIGHT.get_or_init(|| {
        if !amx::is_supported() {
            return false;
        }
        let (m, n, k) = (45, 70, 75);
        let whole = |len: usize| (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<f32>>();
        let (a, b, bias) = (whole(m * k), whole(k * n), whole(n));
        let lines = |ptr, count, line_stride, k_stride| pack::Lines { ptr, count, k, line_stride, k_stride };
        let [by_amx, by_avx] = [true, false].map(|by_amx| {
            let mut c = vec![0.0; m * n];
            let out = blocked::Out { ptr: c.as_mut_ptr(), row_stride: n };
            let (a, b) = (lines(a.as_ptr(), m, k, 1), lines(b.as_ptr(), n, 1, n));
            // SAFETY: both features were found, the operands lie within their vectors, and C is ours.
            unsafe {
                match by_amx {
                    true => blocked::product::<blocked::Amx>((m, n, k), a, b, Init::Bias(&bias), out, false),
                    false => blocked::product::<blocked::Bf16>((m, n, k), a, b, Init::Bias(&bias), out, false),
                }
            }
            c
        });
        if by_amx != by_avx {
            tracing::warn!("this CPU's AMX gives other products than its AVX512-BF16, so it is not used");
        }
        by_amx == by_avx
    })
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

/// `C = init + A B`; A is `m x k`, B `k x n`, C `m x n` with rows of `n` elements. With `bf16`, the elements of A and B
/// are first rounded to bf16. Uses all threads of the rayon pool; the result does not depend on their number.
///
/// # Panics
/// If a matrix does not fit its slice (a mistake in the calling operation, never in user input).
pub fn gemm((m, n, k): (usize, usize, usize), bf16: bool, a: Mat, b: Mat, init: Init, c: &mut [f32]) {
    assert!(fits(a.data.len(), m, k, a.row_stride, a.col_stride), "A is too short");
    assert!(fits(b.data.len(), k, n, b.row_stride, b.col_stride), "B is too short");
    assert!(c.len() == m * n, "C is not {m} x {n}");
    match init {
        Init::Bias(bias) => assert!(bias.len() == n, "the bias is not {n} long"),
        Init::Other(other) => assert!(other.len() == m * n, "what is added is not {m} x {n}"),
        Init::Zero | Init::C => {}
    }
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 && matches!(init, Init::Zero) {
        return c.fill(0.0);
    }
    #[cfg(target_arch = "x86_64")]
    if k > 0 && (bf16_unit().is_some() || !bf16 && is_x86_feature_detected!("avx512f")) {
        use pack::Lines;
        let c = blocked::Out { ptr: c.as_mut_ptr(), row_stride: n };
        let lines = |count: usize, m: Mat| Lines {
            ptr: m.data.as_ptr(),
            count,
            k,
            line_stride: m.row_stride,
            k_stride: m.col_stride,
        };
        let (shape, a, b) = ((m, n, k), lines(m, a), lines(n, b.t()));
        // SAFETY: the features were found, the matrices lie within their slices, and C is borrowed mutably.
        return unsafe {
            match bf16 {
                false => blocked::product::<blocked::F32>(shape, a, b, init, c, true),
                true if amx_is_right() => blocked::product::<blocked::Amx>(shape, a, b, init, c, true),
                true => blocked::product::<blocked::Bf16>(shape, a, b, init, c, true),
            }
        };
    }
    let accumulate = match init {
        Init::Zero => false,
        Init::C => true,
        Init::Bias(bias) => {
            c.par_chunks_mut(n).for_each(|row| row.copy_from_slice(bias));
            true
        }
        Init::Other(other) => {
            c.copy_from_slice(other);
            true
        }
    };
    let (rounded_a, rounded_b) = if bf16 { (rounded(a.data), rounded(b.data)) } else { (Vec::new(), Vec::new()) };
    let (a, b) = if bf16 { (Mat { data: &rounded_a, ..a }, Mat { data: &rounded_b, ..b }) } else { (a, b) };
    let c = RawMat { ptr: c.as_mut_ptr(), row_stride: n, col_stride: 1 };
    // SAFETY: the three matrices lie within their slices, and C is borrowed mutably.
    unsafe { through_crate((m, n, k), a.raw(), b.raw(), accumulate, c, 1.0, Parallelism::Rayon(0)) };
}

/// Every element rounded to bf16 (to nearest, ties to even), as f32.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.par_iter().with_min_len(4096).map(|x| round_to_bf16(*x)).collect()
}

/// `x` rounded to bf16: to nearest, ties to even.
pub fn round_to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return x;
    }
    f32::from_bits(bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// [`gemm()`] in f32 by address on the calling thread, scaled: `C = scale A B (+ C)`.
///
/// # Safety
/// The operands must be valid for their shapes and strides, and nobody else may use C meanwhile.
pub unsafe fn gemm_raw(
    shape: (usize, usize, usize), a: RawMat<*const f32>, b: RawMat<*const f32>, accumulate: bool, c: RawMat<*mut f32>,
    scale: f32,
) {
    // SAFETY: passed on to the caller.
    unsafe { through_crate(shape, a, b, accumulate, c, scale, Parallelism::None) };
}

unsafe fn through_crate(
    (m, n, k): (usize, usize, usize), a: RawMat<*const f32>, b: RawMat<*const f32>, accumulate: bool,
    c: RawMat<*mut f32>, scale: f32, parallelism: Parallelism,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.ptr,
            c.col_stride as isize,
            c.row_stride as isize,
            accumulate,
            a.ptr,
            a.col_stride as isize,
            a.row_stride as isize,
            b.ptr,
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests;
