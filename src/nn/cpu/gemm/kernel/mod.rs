//! What a kernel, the innermost loop of a matmul, is: the block of C that it computes, the packed operands that it reads,
//! and the constants that all kernels share.

pub mod amx;
pub mod avx512;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

/// Columns of C in a block.
pub const COLS: usize = 32;
/// Rows of C in the largest block of any kernel.
pub const MOST_ROWS: usize = 32;

/// The innermost loop of a matmul; `reference` says in plain loops what it computes.
pub trait Kernel {
    /// Whether operands are rounded to bf16.
    const BF16: bool;
    /// Rows of C in a block.
    const ROWS: usize;

    /// Prepares this thread for blocks.
    ///
    /// # Safety
    /// The CPU has the kernel's instructions.
    unsafe fn begin() {}

    /// Ends what [`Self::begin`] began.
    ///
    /// # Safety
    /// As for [`Self::begin`].
    unsafe fn end() {}

    /// Computes one block of C.
    ///
    /// # Safety
    /// Between [`Self::begin`] and [`Self::end`] on this thread. `block.steps` is not 0, and the addresses of the block
    /// are valid for [`Self::ROWS`] rows and [`COLS`] columns.
    unsafe fn block(block: &Block);
}

/// The rows of A as the kernels read them.
#[derive(Clone, Copy)]
pub struct OperandA {
    /// The first word of the first row.
    pub ptr: *const u32,
    /// Words from one row to the next.
    pub row_words: usize,
    /// The first of the rows that do not fill a block, which need not follow those at `ptr`.
    pub rest: *const u32,
    /// Words from one of these rows to the next.
    pub rest_words: usize,
}
// SAFETY: it is made in `tasks::run` only, which keeps the words valid and unchanged until all tasks have ended.
unsafe impl Send for OperandA {}
// SAFETY: as for `Send`; nothing is written through it.
unsafe impl Sync for OperandA {}

/// The addresses of one block's operands and result; all distances in bytes.
#[derive(Clone, Copy)]
pub struct Block {
    /// How many words of k.
    pub steps: usize,
    /// The first word of A.
    pub a: *const u8,
    /// From one row of A to the next.
    pub a_row: usize,
    /// From one word of A to that of the next step.
    pub a_step: usize,
    /// The first 32 words of B.
    pub b: *const u8,
    /// From them to those of the next step.
    pub b_step: usize,
    /// What the sums start from.
    pub start: *const f32,
    /// From one row of it to the next (0: the same for all rows).
    pub start_row: usize,
    /// Where the result goes; may be `start`.
    pub c: *mut f32,
    /// From one row of it to the next.
    pub c_row: usize,
}

/// 32 zeros for [`Block::start`].
pub static ZEROS: [f32; COLS] = [0.0; COLS];
