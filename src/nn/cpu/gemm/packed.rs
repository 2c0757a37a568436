//! B packed for several matmuls: for a frozen layer as long as it lives ([`Packed`]), or within one task ([`OperandB`]).

use half::bf16;

use super::super::activation::Elementwise;
use super::dispatch::through_kernels;
#[cfg(target_arch = "x86_64")]
use super::dispatch::{has_kernels, pack_columns};
use super::operands::{CElements, Elements, Left, Mat, OperandB, RawC, RawMat, Start, fits};
#[cfg(target_arch = "x86_64")]
use super::tasks;

/// Matmuls of f32 with fewer multiplications than this go through the `gemm` crate where they are part of a larger task:
/// they would spend most of their time packing.
pub const LEAST_PACKED: usize = 1 << 15;

impl OperandB {
    /// B `k x n` for matmuls with `m` rows of A altogether; packed into `memory` where that saves time.
    ///
    /// # Safety
    /// Until the last matmul with the result, `b` is valid for its shape, and `memory` is neither changed nor dropped. `b` is
    /// in bf16 only with `bf16`, on a CPU that has a [`bf16_unit`](super::bf16_unit).
    pub unsafe fn prepare(
        (m, n, k): (usize, usize, usize), bf16: bool, b: RawMat<Elements>, memory: &mut Vec<u32>,
    ) -> Self {
        #[cfg(target_arch = "x86_64")]
        if (m * n * k >= LEAST_PACKED || k > 0 && matches!(b.ptr, Elements::Bf16(_))) && has_kernels(bf16) {
            let to = room(memory, tasks::packed_words(bf16, n, k));
            // SAFETY: this CPU has the kernels, `to` has the room, and the caller promises that B is valid.
            unsafe { pack_columns((n, k), bf16, b, to, false) };
            return Self::Packed(to);
        }
        let _ = (m, n, k, bf16, memory);
        Self::Plain(b)
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

/// B packed once for many matmuls.
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
    /// Packs B `k x n`; none where matmuls run through the `gemm` crate.
    ///
    /// # Panics
    /// If the matrix does not fit its slice.
    pub fn new((n, k): (usize, usize), bf16: bool, b: Mat) -> Option<Self> {
        assert!(fits(b.data.len(), k, n, b.row_stride, b.col_stride), "B is too short");
        #[cfg(target_arch = "x86_64")]
        if n > 0 && k > 0 && has_kernels(bf16) {
            let mut memory = Vec::new();
            let start = room(&mut memory, tasks::packed_words(bf16, n, k));
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

    /// Whether the results of matmuls with this B may be written as bf16.
    pub fn writes_bf16(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.bf16 && tasks::is_one_part(self.bf16, self.shape.1);
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// [`matmul()`](super::matmul()) with this B, into new memory `[m, n]`.
    ///
    /// # Panics
    /// If a matrix does not fit its slice, if A is in bf16 and B is not packed for bf16, and with [`Start::C`].
    pub fn matmul(&self, m: usize, a: Left, start: Start) -> Vec<f32> {
        let mut c = Box::<[f32]>::new_uninit_slice(m * self.shape.0);
        // SAFETY: C is as large as it has to be and ours alone, and all of it is written.
        unsafe {
            self.multiply(m, a, start, CElements::F32(c.as_mut_ptr().cast()));
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
            self.multiply(m, a, start, CElements::Bf16(c.as_mut_ptr().cast(), finish));
            c.assume_init().into_vec()
        }
    }

    /// Writes all `m x n` elements of C.
    ///
    /// # Safety
    /// C may be written for `m x n` elements, and nobody else uses it. It is in bf16 only if [`Self::writes_bf16`].
    unsafe fn multiply(&self, m: usize, a: Left, start: Start, c: CElements) {
        let (n, k) = self.shape;
        let (elements, len) = match a {
            Left::F32(a) => (Elements::F32(a.as_ptr()), a.len()),
            Left::Bf16(a) => (Elements::Bf16(a.as_ptr()), a.len()),
        };
        assert!(len == m * k, "A is not of {m} rows");
        assert!(self.bf16 || matches!(elements, Elements::F32(_)), "an f32 matmul of bf16");
        assert!(!matches!(start, Start::C), "new memory holds nothing to start from");
        start.assert_fits(m, n);
        let a = RawMat { ptr: elements, row_stride: k, col_stride: 1 };
        let (b, c) = (OperandB::Packed(self.start), RawC { start, ptr: c, row_stride: n });
        // SAFETY: A lies within its slice, the start fits C, the caller has C, and `new` has packed B for this CPU.
        let is_done = unsafe { through_kernels((m, n, k), self.bf16, a, b, c, true) };
        assert!(is_done, "packed where no kernel reads it");
    }
}
