use half::bf16;

use super::amx::Amx;
use super::avx512::{Bf16, F32};
use super::*;
use crate::rng;

/// Small whole numbers, whose sums are exact in any order; in bf16 two in a word.
fn words(is_bf16: bool, seed: u64, len: usize) -> Vec<u32> {
    let number = |i: usize| (rng::mix(seed, i as u64) % 11) as f32 - 5.0;
    let half = |i: usize| u32::from(bf16::from_f32(number(i)).to_bits());
    (0..len).map(|i| if is_bf16 { half(2 * i) | half(2 * i + 1) << 16 } else { number(i).to_bits() }).collect()
}

/// Compares a kernel with the reference: few and many words, C that starts from one row or from rows of its own, apart
/// from it or in its place.
///
/// # Safety
/// The CPU has the kernel's instructions.
unsafe fn compare<K: Kernel>(name: &str) {
    let (a_words, c_width) = (32, COLS + 5);
    for (steps, own_rows, in_place) in [1, 2, 17]
        .into_iter()
        .flat_map(|steps| [(false, false), (true, false), (true, true)].map(|(o, p)| (steps, o, p)))
    {
        // AMX reads whole tiles of 16 words, with zeros beyond the steps.
        let beyond = |x: &mut Vec<u32>, width: usize, words: std::ops::Range<usize>| {
            x.chunks_mut(width).for_each(|line| line[words.clone()].fill(0));
        };
        let (mut a, mut b) = (words(K::BF16, 1, K::ROWS * a_words), words(K::BF16, 2, a_words * COLS));
        beyond(&mut a, a_words, steps..a_words);
        let b_len = b.len();
        beyond(&mut b, b_len, steps * COLS..b_len);
        let start: Vec<f32> = (0..K::ROWS * c_width).map(|i| (i % 13) as f32 - 6.0).collect();
        let run = |by_kernel: bool| {
            let mut c = if in_place { start.clone() } else { vec![f32::NAN; start.len()] };
            let ptr = c.as_mut_ptr();
            let block = Block {
                steps,
                a: a.as_ptr().cast(),
                a_row: a_words * 4,
                a_step: 4,
                b: b.as_ptr().cast(),
                b_step: COLS * 4,
                start: if in_place { ptr } else { start.as_ptr() },
                start_row: if own_rows { c_width * 4 } else { 0 },
                c: ptr,
                c_row: c_width * 4,
            };
            // SAFETY: every address is that of a vector with room for the block, and the caller has the instructions.
            unsafe {
                if by_kernel {
                    K::begin();
                    K::block(&block);
                    K::end();
                } else {
                    reference::block(K::ROWS, K::BF16, &block);
                }
            }
            c
        };
        let (got, want) = (run(true), run(false));
        for (row, (got, want)) in got.chunks(c_width).zip(want.chunks(c_width)).enumerate() {
            assert_eq!(
                got[..COLS],
                want[..COLS],
                "{name}, {steps} steps, own rows {own_rows}, in place {in_place}, row {row}"
            );
            let untouched = |x: &[f32]| x[COLS..].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(untouched(got), untouched(want), "{name} wrote beyond its block");
        }
    }
}

#[test]
fn the_kernels_compute_the_reference_block() {
    let has_bf16 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    // SAFETY: each runs only where the CPU has its instructions.
    unsafe {
        match is_x86_feature_detected!("avx512f") {
            true => compare::<F32>("AVX-512"),
            false => println!("not run: this CPU has no AVX-512"),
        }
        match has_bf16 {
            true => compare::<Bf16>("AVX512-BF16"),
            false => println!("not run: this CPU has no AVX512-BF16"),
        }
        match amx::is_supported() {
            true => compare::<Amx>("AMX"),
            false => println!("not run: this CPU has no AMX"),
        }
    }
}
