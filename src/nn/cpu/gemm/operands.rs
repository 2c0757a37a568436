//! What is multiplied, what it is added to, and where it goes.

use half::bf16;

use super::super::activation::Elementwise;

/// A read-only strided matrix: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
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

    pub(super) fn raw(self) -> RawMat<Elements> {
        RawMat { ptr: Elements::F32(self.data.as_ptr()), row_stride: self.row_stride, col_stride: self.col_stride }
    }
}

/// A matrix by address, for matmuls on parts of memory of which other threads use other parts.
#[derive(Clone, Copy)]
pub struct RawMat<T> {
    /// Element (0, 0).
    pub ptr: T,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

/// Where the elements of an operand lie.
#[derive(Clone, Copy)]
pub enum Elements {
    /// In f32.
    F32(*const f32),
    /// In bf16, for matmuls in bf16 through our own kernels only.
    Bf16(*const bf16),
}
// SAFETY: only unsafe functions read through the address, whose callers keep the elements valid and unchanged meanwhile.
unsafe impl Send for Elements {}
// SAFETY: as for `Send`; nothing is written through it.
unsafe impl Sync for Elements {}

impl Elements {
    /// `offset` elements further on.
    pub fn at(self, offset: usize) -> Self {
        match self {
            Self::F32(ptr) => Self::F32(ptr.wrapping_add(offset)),
            Self::Bf16(ptr) => Self::Bf16(ptr.wrapping_add(offset)),
        }
    }
}

/// Rows of a left operand `[m, k]`, one after another.
pub enum Left<'a> {
    /// In f32.
    F32(&'a [f32]),
    /// In bf16, for matmuls in bf16 only.
    Bf16(&'a [bf16]),
}

/// B of one or several matmuls: as it lies in memory, or packed.
#[derive(Clone, Copy)]
pub(in super::super) enum OperandB {
    /// As it lies in memory.
    Plain(RawMat<Elements>),
    /// In the order in which the kernels read it.
    Packed(*const u32),
}
// SAFETY: only unsafe functions read through the address, whose callers keep it valid and unchanged meanwhile.
unsafe impl Send for OperandB {}
// SAFETY: as for `Send`; nothing is written through it.
unsafe impl Sync for OperandB {}

/// The result C of a matmul by address; its columns lie next to each other.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for our own kernels"))]
pub(super) struct RawC<'a> {
    /// What the sums start from.
    pub start: Start<'a>,
    /// Element (0, 0).
    pub ptr: CElements,
    /// Elements from one row to the next.
    pub row_stride: usize,
}
// SAFETY: only `block` writes through the address; its callers give each block of C to one task.
unsafe impl Send for RawC<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for RawC<'_> {}

/// What the elements of a result are.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for our own kernels"))]
pub(super) enum CElements {
    F32(*mut f32),
    /// The function's values of the sums, if there is one, rounded; only where the sums are made in one part.
    Bf16(*mut bf16, Option<Elementwise>),
}

/// What the sums of a matmul start from.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Nothing.
    Zero,
    /// What C holds.
    C,
    /// The same `[n]` for every row.
    Bias(&'a [f32]),
    /// Another matrix of C's shape, with rows of `n` elements.
    Other(&'a [f32]),
    /// The sum of a bias `[n]` and another matrix.
    BiasAndOther(&'a [f32], &'a [f32]),
}

impl Start<'_> {
    /// Panics if it does not fit C `m x n`.
    pub(super) fn assert_fits(self, m: usize, n: usize) {
        match self {
            Self::Bias(bias) => assert!(bias.len() == n, "the bias is not {n} long"),
            Self::Other(other) => assert!(other.len() == m * n, "what is added is not {m} x {n}"),
            Self::BiasAndOther(bias, other) => {
                assert!(bias.len() == n && other.len() == m * n, "what is added is not {m} x {n}");
            }
            Self::Zero | Self::C => {}
        }
    }
}

/// Whether a strided matrix lies within a slice of `len` elements.
pub(super) fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> bool {
    rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < len
}
