//! The innermost loop on AVX-512: a block of 12 x 32 of C held in 24 registers.
//!
//! A step takes two registers of B and broadcasts one 32-bit word of each of 12 rows of A: 24 multiplications for 14
//! loads, which keeps both multipliers of a core busy. A word is an f32 (`vfmadd231ps`) or a pair of bf16 that follow
//! each other along k (`vdpbf16ps`, two steps of k at once); all else is the same.
//!
//! | register | what it holds |
//! |---|---|
//! | zmm0, zmm1 | 32 words of B |
//! | zmm2 | one word of a row of A, 16 times |
//! | zmm8 to zmm31 | the sums, two registers a row |
//! | `a0`, `a3`, `a6`, `a9` | the next word of rows 0, 3, 6 and 9 of A; the rows between are one and two `row` further on |

use std::arch::asm;

use super::{Block, Kernel};

/// Rows of C in a block.
pub const ROWS: usize = 12;

/// One row of A times the two registers of B.
macro_rules! row {
    ($mul:literal, $at:literal, $left:literal, $right:literal) => {
        concat!(
            "vbroadcastss zmm2, dword ptr [",
            $at,
            "]\n",
            $mul,
            " zmm",
            $left,
            ", zmm2, zmm0\n",
            $mul,
            " zmm",
            $right,
            ", zmm2, zmm1\n",
        )
    };
}

/// A row of what C starts from to two registers, and on to the next row.
macro_rules! load_c {
    ($left:literal, $right:literal) => {
        concat!("vmovups zmm", $left, ", [{a6}]\nvmovups zmm", $right, ", [{a6} + 64]\nadd {a6}, {a3}\n")
    };
}

/// Two registers to a row of C, and on to the next row.
macro_rules! store_c {
    ($left:literal, $right:literal) => {
        concat!("vmovups [{c}], zmm", $left, "\nvmovups [{c} + 64], zmm", $right, "\nadd {c}, {c_row}\n")
    };
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $mul:literal, $features:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The CPU has the instructions. `block.steps` is not 0, and the addresses of the block are valid for [`ROWS`]
        /// rows and [`COLS`] columns.
        #[target_feature(enable = $features)]
        pub unsafe fn $name(block: &Block) {
            let Block { steps, a, a_row, a_step, b, b_step, start, start_row, c, c_row } = *block;
            // SAFETY: the caller vouches for the instructions and all addresses; what is changed is declared.
            unsafe {
                asm!(
                    // C is written at the end only: ask for its lines now.
                    "mov {a9}, {c}",
                    ".rept 12",
                    "prefetchw byte ptr [{a9}]",
                    "prefetchw byte ptr [{a9} + 64]",
                    "add {a9}, {c_row}",
                    ".endr",
                    load_c!("8", "9"),
                    load_c!("10", "11"),
                    load_c!("12", "13"),
                    load_c!("14", "15"),
                    load_c!("16", "17"),
                    load_c!("18", "19"),
                    load_c!("20", "21"),
                    load_c!("22", "23"),
                    load_c!("24", "25"),
                    load_c!("26", "27"),
                    load_c!("28", "29"),
                    load_c!("30", "31"),
                    "lea {a3}, [{row} + {row}*2]",
                    "lea {a6}, [{a0} + {a3}*2]",
                    "lea {a9}, [{a6} + {a3}]",
                    "add {a3}, {a0}",
                    "2:",
                    "vmovups zmm0, [{b}]",
                    "vmovups zmm1, [{b} + 64]",
                    "add {b}, {b_step}",
                    row!($mul, "{a0}", "8", "9"),
                    row!($mul, "{a0} + {row}", "10", "11"),
                    row!($mul, "{a0} + {row}*2", "12", "13"),
                    "add {a0}, {a_step}",
                    row!($mul, "{a3}", "14", "15"),
                    row!($mul, "{a3} + {row}", "16", "17"),
                    row!($mul, "{a3} + {row}*2", "18", "19"),
                    "add {a3}, {a_step}",
                    row!($mul, "{a6}", "20", "21"),
                    row!($mul, "{a6} + {row}", "22", "23"),
                    row!($mul, "{a6} + {row}*2", "24", "25"),
                    "add {a6}, {a_step}",
                    row!($mul, "{a9}", "26", "27"),
                    row!($mul, "{a9} + {row}", "28", "29"),
                    row!($mul, "{a9} + {row}*2", "30", "31"),
                    "add {a9}, {a_step}",
                    "dec {n}",
                    "jnz 2b",
                    store_c!("8", "9"),
                    store_c!("10", "11"),
                    store_c!("12", "13"),
                    store_c!("14", "15"),
                    store_c!("16", "17"),
                    store_c!("18", "19"),
                    store_c!("20", "21"),
                    store_c!("22", "23"),
                    store_c!("24", "25"),
                    store_c!("26", "27"),
                    store_c!("28", "29"),
                    store_c!("30", "31"),
                    n = inout(reg) steps => _,
                    a0 = inout(reg) a => _,
                    // Before the loop these two hold what C starts from.
                    a3 = inout(reg) start_row => _,
                    a6 = inout(reg) start => _,
                    a9 = out(reg) _,
                    row = in(reg) a_row,
                    a_step = in(reg) a_step,
                    b = inout(reg) b => _,
                    b_step = in(reg) b_step,
                    c = inout(reg) c => _,
                    c_row = in(reg) c_row,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm8") _, out("zmm9") _, out("zmm10") _,
                    out("zmm11") _, out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _,
                    out("zmm17") _, out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _,
                    out("zmm23") _, out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _,
                    out("zmm29") _, out("zmm30") _, out("zmm31") _,
                    options(nostack),
                );
            }
        }
    };
}

kernel!(
    /// The block on f32.
    f32_block, "vfmadd231ps", "avx512f"
);
kernel!(
    /// The block on pairs of bf16.
    bf16_block, "vdpbf16ps", "avx512f"
);

/// AVX-512 on f32.
pub struct F32;
/// AVX-512 with its bf16 instructions.
pub struct Bf16;

impl Kernel for F32 {
    const BF16: bool = false;
    const ROWS: usize = ROWS;

    unsafe fn block(block: &Block) {
        // SAFETY: the contract of both is the same.
        unsafe { f32_block(block) }
    }
}

impl Kernel for Bf16 {
    const BF16: bool = true;
    const ROWS: usize = ROWS;

    unsafe fn block(block: &Block) {
        // SAFETY: the contract of both is the same.
        unsafe { bf16_block(block) }
    }
}
