//! What every kernel computes, in plain loops: a block of C = start + A B. The tests hold the kernels to it.

use half::bf16;

use super::{Block, COLS};

/// The `rows` x [`COLS`] block on f32 words, or on pairs of bf16, summed in f32 one word after another.
///
/// # Safety
/// The addresses of the block are valid for `rows` rows and [`COLS`] columns, and A and B for `steps` words of each.
pub unsafe fn block(rows: usize, is_bf16: bool, block: &Block) {
    let elements = |word: u32| match is_bf16 {
        true => [word as u16, (word >> 16) as u16].map(|half| bf16::from_bits(half).to_f32()),
        false => [f32::from_bits(word), 0.0],
    };
    for (row, col) in (0..rows).flat_map(|row| (0..COLS).map(move |col| (row, col))) {
        // SAFETY: the caller vouches for all of these rows, columns and steps.
        unsafe {
            let mut sum = *block.start.byte_add(row * block.start_row).add(col);
            for step in 0..block.steps {
                let a = *(block.a.add(row * block.a_row + step * block.a_step) as *const u32);
                let b = *(block.b.add(step * block.b_step) as *const u32).add(col);
                sum += elements(a).iter().zip(elements(b)).map(|(a, b)| a * b).sum::<f32>();
            }
            *block.c.byte_add(row * block.c_row).add(col) = sum;
        }
    }
}
