//! Matrix products on strided slices, through the `gemm` crate (AVX-512 is on by its feature `x86-v4`).

use gemm::Parallelism;

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

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}

/// `C = A B`, or `C += A B` if `accumulate`; A is `m x k`, B `k x n`, C `m x n` with rows of `n` elements. Uses all
/// threads of the rayon pool.
///
/// # Panics
/// If a matrix does not fit its slice (a mistake in the calling operation, never in user input).
pub fn gemm((m, n, k): (usize, usize, usize), a: Mat, b: Mat, accumulate: bool, c: &mut [f32]) {
    assert!(fits(a.data.len(), m, k, a.row_stride, a.col_stride), "A is too short");
    assert!(fits(b.data.len(), k, n, b.row_stride, b.col_stride), "B is too short");
    assert!(c.len() == m * n, "C is not {m} x {n}");
    let a = RawMat { ptr: a.data.as_ptr(), row_stride: a.row_stride, col_stride: a.col_stride };
    let b = RawMat { ptr: b.data.as_ptr(), row_stride: b.row_stride, col_stride: b.col_stride };
    let c = RawMat { ptr: c.as_mut_ptr(), row_stride: n, col_stride: 1 };
    // SAFETY: the three matrices lie within their slices, and C is borrowed mutably.
    unsafe { product((m, n, k), a, b, accumulate, c, 1.0, Parallelism::Rayon(0)) };
}

/// [`gemm()`] by address on the calling thread, scaled: `C = scale A B (+ C)`.
///
/// # Safety
/// The operands must be valid for their shapes and strides, and nobody else may use C meanwhile.
pub unsafe fn gemm_raw(
    shape: (usize, usize, usize), a: RawMat<*const f32>, b: RawMat<*const f32>, accumulate: bool, c: RawMat<*mut f32>,
    scale: f32,
) {
    // SAFETY: passed on to the caller.
    unsafe { product(shape, a, b, accumulate, c, scale, Parallelism::None) };
}

unsafe fn product(
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
