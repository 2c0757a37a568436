//! Matmuls through our own kernels: what is packed when, and how the work is cut into tasks.
//!
//! A task is a range of columns of C (and of rows, where the columns alone are too few for the threads). It packs its
//! columns of B, if they are not packed yet, as much as fits in half of a core's L2 cache, and multiplies all rows of A
//! by them. An element of C is summed in the same order whatever the tasks are, so the result does not depend on the
//! number of threads.

use rayon::prelude::*;

use super::super::memory::Shared;
use super::block::block;
use super::kernel::{COLS, Kernel, MOST_ROWS, OperandA};
use super::operands::{Elements, OperandB, RawC, RawMat, Start};
use super::pack::{Lines, MOST_WORDS, TILE, pack_panels, pack_rows, word};
use super::scratch;

/// Words of packed B that a task works with at a time.
const B_WORDS: usize = 128 * 1024;
/// Tiles of rows of A that a task packs.
const GROUP: usize = 8;
/// Matmuls with fewer multiplications than this run on the calling thread.
const LEAST_PARALLEL: usize = 1 << 19;

/// Whether a sum over `k` elements is made in one part.
pub fn is_one_part(bf16: bool, k: usize) -> bool {
    k.div_ceil(word(bf16)) <= MOST_WORDS
}

/// How many words of k are worked on at a time.
fn part(words: usize) -> usize {
    words.div_ceil(words.div_ceil(MOST_WORDS).max(1)).next_multiple_of(TILE)
}

/// Words that [`pack`] writes for `n` columns of `k` elements.
pub fn packed_words(bf16: bool, n: usize, k: usize) -> usize {
    let words = k.div_ceil(word(bf16));
    words.div_ceil(part(words).max(1)) * n.div_ceil(COLS) * part(words) * COLS
}

/// Packs the columns of B, one part of k after another, for any number of matmuls.
///
/// # Safety
/// The CPU has what the kernel needs; B is valid, and `to` has room for [`packed_words`].
pub unsafe fn pack<K: Kernel>(b: Lines, to: *mut u32, parallel: bool) {
    let (words, panels) = (b.k.div_ceil(word(K::BF16)), b.count.div_ceil(COLS));
    let part = part(words);
    let to = Shared(to);
    for start in (0..words).step_by(part) {
        let one = |panel: usize| {
            let to = { to };
            // SAFETY: every panel has its own place within the caller's room, and the caller has the instructions.
            unsafe {
                let to = to.0.add((start / part * panels + panel) * part * COLS);
                pack_panels(K::BF16, to, part * COLS, &b, panel..panel + 1, start..words.min(start + part));
            }
        };
        each(panels, parallel, one);
    }
}

/// `C = start + A B` for the rows of A and the columns of B; every element of C is written.
///
/// # Safety
/// The CPU has what the kernel needs; `k` is not 0. A and B are valid for their shapes, a packed B for this `n`, `k` and
/// kind of word. C is valid for `m x n`, its `start` fits it ([`Start::C`] only where C is initialised), and nobody else
/// uses C. C in bf16 only where [`is_one_part`].
pub unsafe fn run<K: Kernel>(
    (m, n, k): (usize, usize, usize), a: RawMat<Elements>, b: OperandB, c: RawC, parallel: bool,
) {
    let a = Lines::rows(a, m, k);
    let parallel = parallel && m * n * k >= LEAST_PARALLEL;
    let words = k.div_ceil(word(K::BF16));
    let row_words = words.next_multiple_of(TILE);
    // Rows that consist of words already are read where they lie; in bf16 only whole tiles of them, as AMX reads tiles.
    let direct = match (a.from, K::BF16) {
        (Elements::F32(at), false) => Some((at as *const u32, a.line_stride)),
        (Elements::Bf16(at), true) if k.is_multiple_of(2 * TILE) && a.line_stride.is_multiple_of(2) => {
            Some((at as *const u32, a.line_stride / 2))
        }
        _ => None,
    };
    let direct = direct.filter(|_| a.k_stride == 1);
    let packed_rows = if direct.is_some() { 0 } else { m };
    scratch::with(&scratch::A, (packed_rows + MOST_ROWS) * row_words, |packed| {
        // SAFETY: `packed` has room for the rows in whole tiles, and for the kernel to read a block past the last one; all
        // else is in this function's own contract.
        unsafe {
            let rows = if let Some((ptr, direct_words)) = direct {
                let whole = m / K::ROWS * K::ROWS;
                if whole < m {
                    // (`whole` need not be a multiple of 16, so the tiles of the rest start there.)
                    let rest = Lines { from: a.from.at(whole * a.line_stride), count: m - whole, ..a };
                    pack_rows(K::BF16, packed, row_words, &rest, 0..rest.count.div_ceil(TILE));
                }
                OperandA { ptr, row_words: direct_words, rest: packed, rest_words: row_words }
            } else {
                let to = Shared(packed);
                let tiles = m.div_ceil(TILE);
                let one = |group: usize| {
                    let group = group * GROUP..tiles.min((group + 1) * GROUP);
                    let to = { to }.0;
                    pack_rows(K::BF16, to.add(group.start * TILE * row_words), row_words, &a, group);
                };
                each(tiles.div_ceil(GROUP), parallel, one);
                let rest = packed.add(m / K::ROWS * K::ROWS * row_words);
                OperandA { ptr: packed, row_words, rest, rest_words: row_words }
            };
            multiply::<K>((m, n, k), rows, b, c, parallel);
        }
    });
}

/// Runs tasks `0..count`, on all threads or on this one.
fn each(count: usize, parallel: bool, task: impl Fn(usize) + Sync + Send) {
    if parallel {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    } else {
        (0..count).for_each(task);
    }
}

/// The part of [`run`] that follows the packing of A.
///
/// # Safety
/// As for [`run`]; `a` holds the `m` rows, and may be read to the end of a block of rows.
unsafe fn multiply<K: Kernel>((m, n, k): (usize, usize, usize), a: OperandA, b: OperandB, c: RawC, parallel: bool) {
    let words = k.div_ceil(word(K::BF16));
    let (row_blocks, panels, part) = (m.div_ceil(K::ROWS), n.div_ceil(COLS), part(words));
    let chunk = (B_WORDS / (part * COLS)).clamp(1, panels);
    // All tasks take about the same time: their number is a multiple of the threads, and several for each, so that at the
    // end a thread waits for a part of one task only.
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let few = if parallel { (4 * threads).min(panels.div_ceil(3)) } else { 1 };
    let across = panels.div_ceil(chunk).max(few).next_multiple_of(threads).min(panels);
    let down = (2 * threads).div_ceil(across).min(row_blocks.div_ceil(4)).max(1);
    let b = &b; // as a whole it may go to other threads
    let one = |task: usize| {
        let range = |i: usize, of: usize, all: usize| i * all / of..(i + 1) * all / of;
        let columns = range(task % across, across, panels);
        let rows = range(task / across, down, row_blocks);
        let room = if matches!(b, OperandB::Plain(_)) { chunk * part * COLS } else { 0 };
        scratch::with(&scratch::B, room, |memory| {
            for start in (0..words).step_by(part) {
                let steps = start..words.min(start + part);
                let c = if start == 0 { c } else { RawC { start: Start::C, ..c } };
                let packed = match *b {
                    // SAFETY: there is room for a chunk of panels; B is valid, and the CPU has the instructions.
                    OperandB::Plain(b) => unsafe {
                        let b = Lines::columns(b, n, k);
                        pack_panels(K::BF16, memory, part * COLS, &b, columns.clone(), steps.clone());
                        memory as *const u32
                    },
                    OperandB::Packed(all) => all.wrapping_add((start / part * panels + columns.start) * part * COLS),
                };
                // SAFETY: the caller found the instructions; up to `end` only blocks and the elementwise
                // functions on their sums run on this thread.
                unsafe { K::begin() };
                for row in rows.clone() {
                    for (i, panel) in columns.clone().enumerate() {
                        // SAFETY: the block lies within C and is this task's alone; its operands were packed for it,
                        // and from the second part on C holds the sums of the parts before.
                        unsafe {
                            let b = packed.add(i * part * COLS);
                            block::<K>((m, n), (row, panel), steps.clone(), a, b, c);
                        }
                    }
                }
                // SAFETY: as for `begin`.
                unsafe { K::end() };
            }
        });
    };
    each(across * down, parallel, one);
}
