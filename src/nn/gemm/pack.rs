//! Operands as the kernels read them.
//!
//! A is rows of words that follow each other along k. B is panels of 32 columns: for each word of k, its 32 words side
//! by side. A word is an f32, or a pair of bf16 (rounded to nearest, ties to even) of two neighbours along k; what lies
//! beyond the edges is zero. Both are made of square tiles of 16 x 16 words, one the transpose of the other.

use std::arch::x86_64::*;
use std::ops::Range;

use super::kernel::COLS;

/// One operand as a set of lines along k: the rows of A, or the columns of B.
#[derive(Clone, Copy)]
pub struct Lines {
    pub ptr: *const f32,
    pub count: usize,
    pub k: usize,
    /// Elements from one line to the next, and from one k to the next.
    pub line_stride: usize,
    pub k_stride: usize,
}
// SAFETY: read only, by those who hold the borrow it was made from.
unsafe impl Send for Lines {}
unsafe impl Sync for Lines {}

/// Lines and words of a tile.
pub const TILE: usize = 16;

/// How many elements of k a word holds.
pub const fn word(bf16: bool) -> usize {
    if bf16 { 2 } else { 1 }
}

/// Packs the panels `panels` (32 columns each) and the words `words` (`words.start` a multiple of 16) of B to `to`, with
/// 32 words a step and `panel_words` from one panel to the next.
///
/// # Safety
/// The CPU has AVX-512 (and its bf16 instructions, if asked for); a panel has room for the words, rounded up to 16.
pub unsafe fn pack_panels(
    bf16: bool, to: *mut u32, panel_words: usize, lines: &Lines, panels: Range<usize>, words: Range<usize>,
) {
    let one = |panel: usize, at: usize| {
        for half in 0..COLS / TILE {
            let (first, k) = (panel * COLS + half * TILE, at * word(bf16));
            // SAFETY: the caller's.
            unsafe {
                let to = to.add((panel - panels.start) * panel_words + (at - words.start) * COLS + half * TILE);
                if bf16 {
                    bf16_tile(to, COLS, lines, first, k, true)
                } else {
                    f32_tile(to, COLS, lines, first, k, true)
                }
            }
        }
    };
    let steps = || words.clone().step_by(TILE);
    // In the order in which the elements lie in memory.
    if lines.line_stride == 1 {
        steps().for_each(|at| panels.clone().for_each(|panel| one(panel, at)));
    } else {
        panels.clone().for_each(|panel| steps().for_each(|at| one(panel, at)));
    }
}

/// Writes the lines of the tiles `tiles` (16 lines each) as rows of `row_words` (a multiple of 16) words; `to` is where
/// the first of these rows goes.
///
/// # Safety
/// As for [`pack_panels`].
pub unsafe fn pack_rows(bf16: bool, to: *mut u32, row_words: usize, lines: &Lines, tiles: Range<usize>) {
    let one = |tile: usize, at: usize| {
        let (first, k) = (tile * TILE, at * word(bf16));
        // SAFETY: the caller's.
        unsafe {
            let to = to.add((tile - tiles.start) * TILE * row_words + at);
            if bf16 {
                bf16_tile(to, row_words, lines, first, k, false);
            } else {
                f32_tile(to, row_words, lines, first, k, false);
            }
        }
    };
    let steps = || (0..row_words).step_by(TILE);
    if lines.line_stride == 1 {
        steps().for_each(|at| tiles.clone().for_each(|tile| one(tile, at)));
    } else {
        tiles.clone().for_each(|tile| steps().for_each(|at| one(tile, at)));
    }
}

/// What is loaded at once: registers with the words of one line, or with one word of every line.
struct Tile {
    words: [__m512i; TILE],
    /// Whether a register holds one word of every line.
    by_word: bool,
}

macro_rules! tile {
    ($name:ident, $features:literal, $load_line:ident, $load_word:ident, $per_word:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(to: *mut u32, to_stride: usize, lines: &Lines, first: usize, k: usize, by_word: bool) {
            let count = lines.count.saturating_sub(first).min(TILE);
            let ks = lines.k.saturating_sub(k).min(TILE * $per_word);
            let mut tile = Tile { words: [_mm512_setzero_si512(); TILE], by_word };
            let from = lines.ptr.wrapping_add(first * lines.line_stride + k * lines.k_stride);
            // SAFETY: the first `count` lines x `ks` elements from here are valid, and only they are read.
            unsafe {
                if count == 0 || ks == 0 {
                } else if lines.line_stride == 1 && count > 1 {
                    tile = Tile { words: $load_word(from, lines.k_stride, count, ks), by_word: true };
                } else if lines.k_stride == 1 {
                    tile = Tile { words: $load_line(from, lines.line_stride, count, ks), by_word: false };
                } else {
                    let mut copy = [0f32; TILE * TILE * 2];
                    for i in 0..count {
                        for j in 0..ks {
                            copy[i * TILE * 2 + j] = *from.add(i * lines.line_stride + j * lines.k_stride);
                        }
                    }
                    tile = Tile { words: $load_line(copy.as_ptr(), TILE * 2, count, ks), by_word: false };
                }
                if tile.by_word != by_word {
                    transpose(&mut tile.words);
                }
                for (i, word) in tile.words.iter().enumerate() {
                    _mm512_storeu_si512(to.add(i * to_stride) as *mut __m512i, *word);
                }
            }
        }
    };
}

tile!(f32_tile, "avx512f", f32_lines, f32_words, 1);
tile!(bf16_tile, "avx512f,avx512bw,avx512bf16", bf16_lines, bf16_words, 2);

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn f32_lines(from: *const f32, stride: usize, count: usize, ks: usize) -> [__m512i; TILE] {
    // SAFETY: as for the next function, the other way round.
    unsafe { f32_words(from, stride, ks, count) }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn f32_words(from: *const f32, stride: usize, count: usize, ks: usize) -> [__m512i; TILE] {
    let mut tile = [_mm512_setzero_si512(); TILE];
    let mask = u16::MAX >> (16 - count);
    for (i, v) in tile.iter_mut().enumerate().take(ks) {
        // SAFETY: the masked load touches valid elements only.
        *v = _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(mask, from.wrapping_add(i * stride)) });
    }
    tile
}

/// 16 lines of up to 32 consecutive k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn bf16_lines(from: *const f32, stride: usize, count: usize, ks: usize) -> [__m512i; TILE] {
    let mut tile = [_mm512_setzero_si512(); TILE];
    let mask = u32::MAX >> (32 - ks);
    let (low, high) = (mask as u16, (mask >> 16) as u16);
    for (i, v) in tile.iter_mut().enumerate().take(count) {
        let p = from.wrapping_add(i * stride);
        // What the next tiles along k will read; 16 streams at once are more than the hardware follows.
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(128) as *const i8);
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(144) as *const i8);
        // SAFETY: the masked loads touch valid elements only.
        *v = unsafe { rounded(_mm512_maskz_loadu_ps(low, p), _mm512_maskz_loadu_ps(high, p.wrapping_add(16))) };
    }
    tile
}

/// 16 pairs of k of up to 16 consecutive lines.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn bf16_words(from: *const f32, stride: usize, count: usize, ks: usize) -> [__m512i; TILE] {
    // Half-word 2i of the result is half-word i of the even k, half-word 2i + 1 that of the odd k.
    const INTERLEAVE: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i as u16) / 2 + 16 * (i as u16 % 2);
            i += 1;
        }
        order
    };
    let mut tile = [_mm512_setzero_si512(); TILE];
    let mask = u16::MAX >> (16 - count);
    // SAFETY: the masked loads touch valid elements only.
    unsafe {
        let order = _mm512_loadu_si512(INTERLEAVE.as_ptr() as *const __m512i);
        for (i, v) in tile.iter_mut().enumerate().take(ks.div_ceil(2)) {
            let p = from.wrapping_add(2 * i * stride);
            let odd = if 2 * i + 1 < ks { mask } else { 0 };
            let (even, odd) = (_mm512_maskz_loadu_ps(mask, p), _mm512_maskz_loadu_ps(odd, p.wrapping_add(stride)));
            *v = _mm512_permutexvar_epi16(order, rounded(even, odd));
        }
    }
    tile
}

/// 2 x 16 f32 to 32 bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(low: __m512, high: __m512) -> __m512i {
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
