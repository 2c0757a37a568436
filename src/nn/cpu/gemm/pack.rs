//! Operands as the kernels read them.
//!
//! A is rows of words that follow each other along k. B is panels of 32 columns: for each word of k, its 32 words side
//! by side. A word is an f32, or a pair of bf16 (rounded to nearest, ties to even) of two neighbours along k; what lies
//! beyond the edges is zero. Both are made of square tiles of 16 x 16 words, one the transpose of the other.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::kernel::COLS;
use super::operands::{Elements, RawMat};

/// One operand as a set of lines along k: the rows of A, or the columns of B.
#[derive(Clone, Copy)]
pub struct Lines {
    /// The first element of the first line.
    pub from: Elements,
    /// How many lines.
    pub count: usize,
    /// Elements of a line.
    pub k: usize,
    /// Elements from one line to the next.
    pub line_stride: usize,
    /// Elements from one k to the next.
    pub k_stride: usize,
}
impl Lines {
    /// The rows of A `m x k`.
    pub fn rows(a: RawMat<Elements>, m: usize, k: usize) -> Self {
        Self { from: a.ptr, count: m, k, line_stride: a.row_stride, k_stride: a.col_stride }
    }

    /// The columns of B `k x n`.
    pub fn columns(b: RawMat<Elements>, n: usize, k: usize) -> Self {
        Self { from: b.ptr, count: n, k, line_stride: b.col_stride, k_stride: b.row_stride }
    }
}

/// Lines and words of a tile.
pub const TILE: usize = 16;

/// How many elements of k a word holds.
pub const fn word(bf16: bool) -> usize {
    if bf16 { 2 } else { 1 }
}

/// Words of k that [`pack_panels`] takes at most.
pub const MOST_WORDS: usize = 1024;

/// Packs the panels `panels` (32 columns each) and the words `words` (`words.start` a multiple of 16, at most
/// [`MOST_WORDS`]) of B to `to`, with 32 words a step and `panel_words` from one panel to the next.
///
/// # Safety
/// The CPU has AVX-512 (and its bf16 instructions, if asked for). The lines are valid for their `count` and `k`, and `to`
/// has room for the panels with their words, rounded up to 16.
pub unsafe fn pack_panels(
    bf16: bool, to: *mut u32, panel_words: usize, lines: &Lines, panels: Range<usize>, words: Range<usize>,
) {
    let words = words.start..words.end.next_multiple_of(TILE);
    // SAFETY: the contract of each of these is this function's own.
    unsafe {
        match (bf16, lines.from) {
            (true, Elements::Bf16(from)) => bf16_panels(to, panel_words, (lines, from), panels, words),
            (true, Elements::F32(from)) => rounded_panels(to, panel_words, (lines, from), panels, words),
            (false, Elements::F32(from)) => f32_panels(to, panel_words, (lines, from), panels, words),
            (false, Elements::Bf16(_)) => unreachable!("f32 matmuls read f32"),
        }
    }
}

/// Writes the lines of the tiles `tiles` (16 lines each) as rows of `row_words` (a multiple of 16) words; `to` is where
/// the first of these rows goes.
///
/// # Safety
/// As for [`pack_panels`]; `to` has room for the rows of whole tiles.
pub unsafe fn pack_rows(bf16: bool, to: *mut u32, row_words: usize, lines: &Lines, tiles: Range<usize>) {
    let range = tiles.start * TILE..tiles.end * TILE;
    // SAFETY: the contract of each of these is this function's own.
    unsafe {
        match (bf16, lines.from) {
            (true, Elements::Bf16(from)) => bf16_rows(to, row_words, (lines, from), range, 0..row_words),
            (true, Elements::F32(from)) => rounded_rows(to, row_words, (lines, from), range, 0..row_words),
            (false, Elements::F32(from)) => f32_rows(to, row_words, (lines, from), range, 0..row_words),
            (false, Elements::Bf16(_)) => unreachable!("f32 matmuls read f32"),
        }
    }
}

/// Words from one to the next of the 16 rows that wait to be transposed; a little apart, so that they do not share cache
/// sets.
const SPARE_ROW: usize = MOST_WORDS + TILE;

macro_rules! packing {
    ($rows:ident, $panels:ident, $element:ty, $features:literal, $line:ident, $word:ident, $per_word:literal) => {
        /// Lines as rows of words.
        ///
        /// # Safety
        /// The CPU has the instructions; `at` is valid for the lines, and `to` has room for the rows of `range`.
        #[target_feature(enable = $features)]
        unsafe fn $rows(
            to: *mut u32, row_words: usize, (lines, at): (&Lines, *const $element), range: Range<usize>,
            words: Range<usize>,
        ) {
            let row = |line: usize| to.wrapping_add((line - range.start) * row_words);
            let from = |line: usize, word: usize| {
                at.wrapping_add(line * lines.line_stride + word * $per_word * lines.k_stride)
            };
            let left = |word: usize| lines.k.saturating_sub(word * $per_word);
            // SAFETY: only elements of the `count` lines and of their `k` are read; `to` has room for what is written.
            unsafe {
                if lines.k_stride == 1 {
                    let ahead = (AHEAD / lines.k.max(1)).max(1);
                    for line in range.clone() {
                        for word in words.clone().step_by(TILE) {
                            let left = if line < lines.count { left(word) } else { 0 };
                            for k in 0..$per_word {
                                prefetch(from(line + ahead, word).wrapping_add(k * TILE));
                            }
                            store(row(line).wrapping_add(word - words.start), $line(from(line, word), left));
                        }
                    }
                    return;
                }
                for word in words.clone().step_by(TILE) {
                    for first in range.clone().step_by(TILE) {
                        let count = lines.count.saturating_sub(first).min(TILE);
                        let mut tile = [_mm512_setzero_si512(); TILE];
                        if lines.line_stride == 1 {
                            for (i, tile) in tile.iter_mut().enumerate() {
                                let from = from(first, word + i);
                                for k in TILE * $per_word..(TILE + 1) * $per_word {
                                    prefetch(from.wrapping_add(k * lines.k_stride));
                                }
                                *tile = $word(from, lines.k_stride, count, left(word + i));
                            }
                            transpose(&mut tile);
                        } else {
                            let mut copy = [<$element>::default(); TILE * $per_word];
                            for (i, tile) in tile.iter_mut().enumerate().take(count) {
                                let there = left(word).min(copy.len());
                                for (k, copy) in copy.iter_mut().enumerate().take(there) {
                                    *copy = *from(first + i, word).wrapping_add(k * lines.k_stride);
                                }
                                *tile = $line(copy.as_ptr(), there);
                            }
                        }
                        for (i, tile) in tile.iter().enumerate() {
                            store(row(first + i).wrapping_add(word - words.start), *tile);
                        }
                    }
                }
            }
        }

        /// Lines as panels.
        ///
        /// # Safety
        /// The CPU has the instructions; `at` is valid for the lines, and `to` has room for the panels. At most
        /// [`MOST_WORDS`] words.
        #[target_feature(enable = $features)]
        unsafe fn $panels(
            to: *mut u32, panel_words: usize, (lines, at): (&Lines, *const $element), panels: Range<usize>,
            words: Range<usize>,
        ) {
            // SAFETY: only elements of the `count` lines and of their `k` are read; `to` has room for what is written, and
            // `spare` for 16 rows of `MOST_WORDS` words, of which those are read that were written.
            unsafe {
                if lines.line_stride == 1 {
                    // All panels of a step before the next step: as the elements lie in memory.
                    let ahead = 1 + 16 / panels.len().max(1);
                    for word in words.clone() {
                        let from = at.wrapping_add(word * $per_word * lines.k_stride);
                        let left = lines.k.saturating_sub(word * $per_word);
                        for half in 2 * panels.start..2 * panels.end {
                            let first = half * TILE;
                            let count = lines.count.saturating_sub(first).min(TILE);
                            let from = from.wrapping_add(first);
                            for k in ahead * $per_word..(ahead + 1) * $per_word {
                                prefetch(from.wrapping_add(k * lines.k_stride));
                            }
                            let place = (half / 2 - panels.start) * panel_words + (word - words.start) * COLS;
                            let to = to.wrapping_add(place + half % 2 * TILE);
                            store(to, $word(from, lines.k_stride, count, left));
                        }
                    }
                    return;
                }
                let mut spare = [const { MaybeUninit::<u32>::uninit() }; TILE * SPARE_ROW];
                let spare = spare.as_mut_ptr() as *mut u32;
                debug_assert!(words.len() <= MOST_WORDS);
                for half in 2 * panels.start..2 * panels.end {
                    let first = half * TILE;
                    $rows(spare, SPARE_ROW, (lines, at), first..first + TILE, words.clone());
                    let to = to.wrapping_add((half / 2 - panels.start) * panel_words + half % 2 * TILE);
                    for word in (0..words.len()).step_by(TILE) {
                        let mut tile = [_mm512_setzero_si512(); TILE];
                        for (i, tile) in tile.iter_mut().enumerate() {
                            *tile = _mm512_loadu_si512(spare.add(i * SPARE_ROW + word) as *const __m512i);
                        }
                        transpose(&mut tile);
                        for (i, tile) in tile.iter().enumerate() {
                            store(to.wrapping_add((word + i) * COLS), *tile);
                        }
                    }
                }
            }
        }
    };
}

packing!(f32_rows, f32_panels, f32, "avx512f", f32_line, f32_word, 1);
packing!(rounded_rows, rounded_panels, f32, "avx512f,avx512bw,avx512bf16", rounded_line, rounded_word, 2);
packing!(bf16_rows, bf16_panels, bf16, "avx512f,avx512bw", bf16_line, bf16_word, 2);

/// How many elements ahead of the reads the prefetches are. The hardware's own prefetching ends with each 4 KiB page.
const AHEAD: usize = 1024;

/// Asks the cache for what will be read soon. Any address is allowed, also one that is not readable.
#[inline(always)]
fn prefetch<T>(address: *const T) {
    // SAFETY: SSE is part of x86-64; nothing is read.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) }
}

/// 16 words to memory of any alignment.
///
/// # Safety
/// The CPU has AVX-512, and 16 words may be written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store(to: *mut u32, words: __m512i) {
    // SAFETY: the caller has the 16 words; the store needs no alignment.
    unsafe { _mm512_storeu_si512(to as *mut __m512i, words) }
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
pub fn first(n: usize) -> u16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

/// The next 16 words of a line that has `left` elements left; zeros after its end.
///
/// # Safety
/// The CPU has AVX-512, and `left` elements may be read, or as many as 16 words hold.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn f32_line(from: *const f32, left: usize) -> __m512i {
    // SAFETY: the masked load touches the first `left` elements only.
    _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(first(left), from) })
}

/// As [`f32_line`], rounded to pairs of bf16.
///
/// # Safety
/// As for [`f32_line`], and the CPU has the bf16 instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rounded_line(from: *const f32, left: usize) -> __m512i {
    let (low, high) = (first(left), first(left.saturating_sub(16)));
    // SAFETY: the masked loads touch the first `left` elements only.
    unsafe { rounded(_mm512_maskz_loadu_ps(low, from), _mm512_maskz_loadu_ps(high, from.wrapping_add(16))) }
}

/// One word of each of `count` (at most 16) lines that lie side by side and have `left` elements left; zeros beyond.
///
/// # Safety
/// The CPU has AVX-512, and `count` elements may be read at each of the `left` k, or as many k as a word holds.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn f32_word(from: *const f32, _: usize, count: usize, left: usize) -> __m512i {
    // SAFETY: the masked load touches the first `count` elements, and none without an element of k left.
    _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(if left > 0 { first(count) } else { 0 }, from) })
}

/// As [`f32_word`], rounded to pairs of bf16.
///
/// # Safety
/// As for [`f32_word`], and the CPU has the bf16 instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rounded_word(from: *const f32, k_stride: usize, count: usize, left: usize) -> __m512i {
    let mask = |there: bool| if there { first(count) } else { 0 };
    // SAFETY: the masked loads touch the first `count` elements of each k that is left.
    unsafe {
        let even = _mm512_maskz_loadu_ps(mask(left > 0), from);
        let odd = _mm512_maskz_loadu_ps(mask(left > 1), from.wrapping_add(k_stride));
        interleaved(rounded(even, odd))
    }
}

/// As [`f32_line`], of elements that are bf16.
///
/// # Safety
/// As for [`f32_line`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn bf16_line(from: *const bf16, left: usize) -> __m512i {
    let mask = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
    // SAFETY: the masked load touches the first `left` elements only.
    unsafe { _mm512_maskz_loadu_epi16(mask, from as *const i16) }
}

/// As [`f32_word`], of elements that are bf16.
///
/// # Safety
/// As for [`f32_word`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn bf16_word(from: *const bf16, k_stride: usize, count: usize, left: usize) -> __m512i {
    let mask = |there: bool| if there { u32::from(first(count)) } else { 0 };
    // SAFETY: the masked loads touch the first `count` elements of each k that is left.
    unsafe {
        let even = _mm512_maskz_loadu_epi16(mask(left > 0), from as *const i16);
        let odd = _mm512_maskz_loadu_epi16(mask(left > 1), from.wrapping_add(k_stride) as *const i16);
        interleaved(_mm512_inserti64x4::<1>(even, _mm512_castsi512_si256(odd)))
    }
}

/// 16 bf16 and 16 others to 16 words, each with one of both.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleaved(elements: __m512i) -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i as u16) / 2 + 16 * (i as u16 % 2);
            i += 1;
        }
        order
    };
    // SAFETY: the load is of a whole array.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr() as *const __m512i) };
    _mm512_permutexvar_epi16(order, elements)
}

/// Twice 16 f32, rounded to 32 bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub fn rounded(low: __m512, high: __m512) -> __m512i {
    // SAFETY: two names of the same 64 bytes.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Transposes 16 x 16 words: 4 x 4 blocks inside the 128-bit lanes, then the lanes themselves.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(t: &mut [__m512i; TILE]) {
    let mut u = [_mm512_setzero_si512(); TILE];
    for i in (0..TILE).step_by(4) {
        let (a, b) = (_mm512_unpacklo_epi32(t[i], t[i + 1]), _mm512_unpackhi_epi32(t[i], t[i + 1]));
        let (c, d) = (_mm512_unpacklo_epi32(t[i + 2], t[i + 3]), _mm512_unpackhi_epi32(t[i + 2], t[i + 3]));
        u[i] = _mm512_unpacklo_epi64(a, c);
        u[i + 1] = _mm512_unpackhi_epi64(a, c);
        u[i + 2] = _mm512_unpacklo_epi64(b, d);
        u[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // u[4g + r], lane l: column 4l + r of rows 4g..4g+4.
    for r in 0..4 {
        let (g0, g1, g2, g3) = (u[r], u[4 + r], u[8 + r], u[12 + r]);
        let (p, q) = (_mm512_shuffle_i32x4::<0x44>(g0, g1), _mm512_shuffle_i32x4::<0xee>(g0, g1));
        let (s, v) = (_mm512_shuffle_i32x4::<0x44>(g2, g3), _mm512_shuffle_i32x4::<0xee>(g2, g3));
        t[r] = _mm512_shuffle_i32x4::<0x88>(p, s);
        t[4 + r] = _mm512_shuffle_i32x4::<0xdd>(p, s);
        t[8 + r] = _mm512_shuffle_i32x4::<0x88>(q, v);
        t[12 + r] = _mm512_shuffle_i32x4::<0xdd>(q, v);
    }
}
