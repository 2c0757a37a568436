//! The innermost loop of bf16 matmuls on Intel's matrix unit (AMX): a block of 32 x 32 of C in four tile registers.
//!
//! A tile is 16 lines of 64 bytes. Rows of A and panels of B lie as for the other kernels: 16 rows of 16 words are a
//! tile of A, 16 steps of 16 words a tile of B, with the distance between lines as the stride of the load.
//!
//! The system grants the tiles to a process (`arch_prctl`); their configuration belongs to a thread. Between
//! [`Kernel::begin`], which loads it, and [`Kernel::end`], which releases it, a task runs only blocks and the elementwise
//! function on their sums: never rayon, which could run another matmul on this thread. Released tiles also keep later
//! context switches cheap.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::{Block, Kernel};

/// Rows of C in a block.
pub const ROWS: usize = 32;
/// Words of k in a tile.
const WORDS: usize = 16;

/// Whether this process may use AMX with bf16; the first call asks the system, the answer is remembered.
pub fn is_supported() -> bool {
    static SUPPORTED: OnceLock<bool> = OnceLock::new();
    *SUPPORTED.get_or_init(|| {
        const AMX_BF16_AND_TILE: u32 = (1 << 22) | (1 << 24);
        const XCR0_TILES: u64 = (1 << 17) | (1 << 18);
        cfg!(target_os = "linux")
            // The packing needs these.
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512bf16")
            && __cpuid_count(7, 0).edx & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE
            // SAFETY: AVX-512 is usable, so that xgetbv is.
            && unsafe { xcr0() } & XCR0_TILES == XCR0_TILES
            && is_granted()
    })
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 exists wherever xgetbv does.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn is_granted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: two numbers and no address are passed; the call only changes what this process may do.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_granted() -> bool {
    false
}

/// Palette 1, all eight tiles 16 lines x 64 bytes.
#[repr(C, align(64))]
struct Configuration([u8; 64]);
static CONFIGURATION: Configuration = {
    let mut c = [0; 64];
    c[0] = 1;
    let mut i = 0;
    while i < 8 {
        c[16 + 2 * i] = 64; // bytes of a line
        c[48 + i] = 16; // lines
        i += 1;
    }
    Configuration(c)
};

/// The block on pairs of bf16; words beyond `steps`, up to a multiple of 16, are zero in both operands.
///
/// # Safety
/// Between [`Kernel::begin`] and [`Kernel::end`] on this thread. `block.steps` is not 0, and the addresses of the block are valid for
/// [`ROWS`] rows (of A in whole tiles of 16 words).
unsafe fn bf16_block(block: &Block) {
    let Block { steps, a, a_row, b, b_step, start, start_row, c, c_row, .. } = *block;
    let start_below = start.wrapping_byte_add(16 * start_row);
    let c_below = c.wrapping_byte_add(16 * c_row);
    // SAFETY: the tiles are configured, and the caller vouches for all addresses; each is declared as an operand.
    unsafe {
        asm!(
            "tileloadd tmm0, [{i} + {i_row}*1]",
            "tileloadd tmm1, [{i} + {i_row}*1 + 64]",
            "tileloadd tmm2, [{i16} + {i_row}*1]",
            "tileloadd tmm3, [{i16} + {i_row}*1 + 64]",
            "2:",
            "tileloadd tmm6, [{b} + {b_step}*1]",
            "tileloadd tmm4, [{a} + {a_row}*1]",
            "tileloadd tmm7, [{b} + {b_step}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a16} + {a_row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 64",
            "add {a16}, 64",
            "add {b}, 2048",
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {c_row}*1], tmm0",
            "tilestored [{c} + {c_row}*1 + 64], tmm1",
            "tilestored [{c16} + {c_row}*1], tmm2",
            "tilestored [{c16} + {c_row}*1 + 64], tmm3",
            i = in(reg) start,
            i16 = in(reg) start_below,
            i_row = in(reg) start_row,
            a = inout(reg) a => _,
            a16 = inout(reg) a.wrapping_add(16 * a_row) => _,
            a_row = in(reg) a_row,
            b = inout(reg) b => _,
            b_step = in(reg) b_step,
            n = inout(reg) steps.div_ceil(WORDS) => _,
            c = in(reg) c,
            c16 = in(reg) c_below,
            c_row = in(reg) c_row,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// AMX.
pub struct Amx;

impl Kernel for Amx {
    const BF16: bool = true;
    const ROWS: usize = ROWS;

    unsafe fn begin() {
        // SAFETY: the caller has AMX; the configuration is 64 bytes of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly)) };
    }

    unsafe fn end() {
        // SAFETY: the caller has AMX.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    unsafe fn block(block: &Block) {
        // SAFETY: the contract of both is the same.
        unsafe { bf16_block(block) }
    }
}
