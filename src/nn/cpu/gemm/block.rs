//! One block of C: what it starts from, and where it goes. The kernel reads and writes C itself where it can. A block that
//! reaches over an edge, starts from two things or is written as bf16 goes by way of spare memory.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::bf16;

use super::kernel::{Block, COLS, Kernel, MOST_ROWS, OperandA, ZEROS};
use super::operands::{CElements, RawC, Start};
use super::pack::{TILE, first, rounded};

/// Room for a block of C, in whole cache lines.
#[repr(align(64))]
struct Spare(#[expect(dead_code, reason = "only its address is used")] [f32; MOST_ROWS * COLS]);

/// The sums over `steps` words for the block (`row`, `panel`) of C `m x n`.
///
/// # Safety
/// Between the kernel's `begin` and `end` on this thread. `steps` is not empty; `a` holds all rows of A and `b` the panel
/// of B, both packed for these steps. C is valid for `m x n`, its `start` fits it ([`Start::C`] only where C is
/// initialised), and nobody else uses this block of C.
pub unsafe fn block<K: Kernel>(
    (m, n): (usize, usize), (row, panel): (usize, usize), steps: std::ops::Range<usize>, a: OperandA, b: *const u32,
    c: RawC,
) {
    let (first_row, first_col) = (row * K::ROWS, panel * COLS);
    let (rows, cols) = (K::ROWS.min(m - first_row), COLS.min(n - first_col));
    let is_whole = (rows, cols) == (K::ROWS, COLS);
    let at = first_row * c.row_stride + first_col;
    let other = |x: &[f32]| (x[first_row * n + first_col..].as_ptr(), n);
    let (bias, from) = match (c.start, c.ptr) {
        (Start::Bias(bias), _) => (Some(bias[first_col..].as_ptr()), None),
        (Start::Other(x), _) => (None, Some(other(x))),
        (Start::BiasAndOther(bias, x), _) => (Some(bias[first_col..].as_ptr()), Some(other(x))),
        (Start::C, CElements::F32(c_ptr)) => (None, Some((c_ptr.wrapping_add(at) as *const f32, c.row_stride))),
        (Start::Zero, _) | (Start::C, CElements::Bf16(..)) => (None, None),
    };
    let mut spare = MaybeUninit::<Spare>::uninit();
    let spare = spare.as_mut_ptr() as *mut f32;
    // SAFETY: the operands and C are as the caller promises. What reaches over the edge of C goes through `spare`, which
    // has room for the largest block and is written before it is read.
    unsafe {
        let (start, start_stride) = match (bias, from) {
            (None, None) => (ZEROS.as_ptr(), 0),
            (Some(bias), None) if is_whole => (bias, 0),
            (None, Some(from)) if is_whole => from,
            _ => {
                if !is_whole {
                    spare.write_bytes(0, MOST_ROWS * COLS);
                }
                gather(spare, (rows, cols), bias, from);
                (spare as *const f32, COLS)
            }
        };
        let (to, to_stride) = match c.ptr {
            CElements::F32(to) if is_whole => (to.add(at), c.row_stride),
            _ => (spare, COLS),
        };
        let (a, row_words) = match rows == K::ROWS {
            true => (a.ptr.add(first_row * a.row_words), a.row_words),
            false => (a.rest, a.rest_words),
        };
        K::block(&Block {
            steps: steps.len(),
            a: a.add(steps.start) as *const u8,
            a_row: row_words * 4,
            a_step: 4,
            b: b as *const u8,
            b_step: COLS * 4,
            start,
            start_row: start_stride * 4,
            c: to,
            c_row: to_stride * 4,
        });
        match c.ptr {
            CElements::F32(_) if is_whole => {}
            CElements::F32(to) => scatter(spare, (rows, cols), to.add(at), c.row_stride),
            CElements::Bf16(to, finish) => {
                if let Some(finish) = finish {
                    finish.apply(std::slice::from_raw_parts_mut(spare, rows * COLS));
                }
                scatter_bf16(spare, (rows, cols), to.add(at), c.row_stride);
            }
        }
    }
}

/// Writes what the block starts from (bias, other rows, or their sum) to spare memory, as rows of 32.
///
/// # Safety
/// The CPU has AVX-512; the operands are valid for `cols` columns, and `spare` for the rows.
#[target_feature(enable = "avx512f")]
unsafe fn gather(
    spare: *mut f32, (rows, cols): (usize, usize), bias: Option<*const f32>, from: Option<(*const f32, usize)>,
) {
    for half in [0, TILE] {
        let mask = first(cols.saturating_sub(half));
        // SAFETY: the masked loads touch the first `cols` columns only, and `spare` has room for 32.
        unsafe {
            let load = |ptr: *const f32| _mm512_maskz_loadu_ps(mask, ptr.wrapping_add(half));
            let bias = bias.map_or(_mm512_setzero_ps(), load);
            for row in 0..rows {
                let sum = match from {
                    Some((from, stride)) => _mm512_add_ps(bias, load(from.wrapping_add(row * stride))),
                    None => bias,
                };
                _mm512_storeu_ps(spare.add(row * COLS + half), sum);
            }
        }
    }
}

/// Rows of 32 sums from spare memory to C.
///
/// # Safety
/// The CPU has AVX-512; `spare` holds the rows, and `to` may be written for `cols` columns of each.
#[target_feature(enable = "avx512f")]
unsafe fn scatter(spare: *const f32, (rows, cols): (usize, usize), to: *mut f32, stride: usize) {
    for row in 0..rows {
        for half in [0, TILE] {
            let to = to.wrapping_add(row * stride + half);
            // SAFETY: the load is of a row of `spare`; the masked store touches the first `cols` columns only.
            unsafe {
                let sums = _mm512_loadu_ps(spare.add(row * COLS + half));
                _mm512_mask_storeu_ps(to, first(cols.saturating_sub(half)), sums);
            }
        }
    }
}

/// Rows of 32 sums from spare memory to C, rounded to bf16.
///
/// # Safety
/// As for [`scatter`], and the CPU has the bf16 instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn scatter_bf16(spare: *const f32, (rows, cols): (usize, usize), to: *mut bf16, stride: usize) {
    let mask = if cols >= COLS { u32::MAX } else { (1 << cols) - 1 };
    for row in 0..rows {
        // SAFETY: as in `scatter`.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(spare.add(row * COLS)), _mm512_loadu_ps(spare.add(row * COLS + TILE)));
            _mm512_mask_storeu_epi16(to.wrapping_add(row * stride) as *mut i16, mask, rounded(low, high));
        }
    }
}
