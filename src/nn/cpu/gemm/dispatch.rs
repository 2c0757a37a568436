//! Which kernel a matmul runs through on this CPU.

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::kernel::{amx, avx512};
#[cfg(target_arch = "x86_64")]
use super::operands::{CElements, Mat, Start};
use super::operands::{Elements, OperandB, RawC, RawMat};
#[cfg(target_arch = "x86_64")]
use super::{pack, tasks};

/// The name of the instructions that multiply bf16 faster than f32 on this CPU, if it has any.
pub fn bf16_unit() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16")
    {
        return Some(if amx_is_right() { "AMX" } else { "AVX512-BF16" });
    }
    None
}

/// Whether this CPU has AMX and its kernel gives what AVX512-BF16 gives; found out once. Its loop has run on an emulated
/// CPU only so far, so it is checked before it is used: on small whole numbers, whose sums are exact in any order.
#[cfg(target_arch = "x86_64")]
fn amx_is_right() -> bool {
    static RIGHT: OnceLock<bool> = OnceLock::new();
    *RIGHT.get_or_init(|| {
        if !amx::is_supported() {
            return false;
        }
        let (m, n, k) = (45, 70, 75);
        let whole = |len: usize| (0..len).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<f32>>();
        let (a, b, bias) = (whole(m * k), whole(k * n), whole(n));
        let [by_amx, by_avx] = [true, false].map(|by_amx| {
            let mut c = vec![0.0; m * n];
            let out = RawC { start: Start::Bias(&bias), ptr: CElements::F32(c.as_mut_ptr()), row_stride: n };
            let (a, b) = (Mat::rows(&a, k).raw(), OperandB::Plain(Mat::rows(&b, n).raw()));
            // SAFETY: both features were found, the operands lie within their vectors, the bias is `n` long, and C is ours.
            unsafe {
                match by_amx {
                    true => tasks::run::<amx::Amx>((m, n, k), a, b, out, false),
                    false => tasks::run::<avx512::Bf16>((m, n, k), a, b, out, false),
                }
            }
            c
        });
        if by_amx != by_avx {
            tracing::warn!("this CPU's AMX gives other results than its AVX512-BF16, so it is not used");
        }
        by_amx == by_avx
    })
}

/// Whether this CPU runs our own kernels; else matmuls go through the `gemm` crate.
#[cfg(target_arch = "x86_64")]
pub fn has_kernels(bf16: bool) -> bool {
    bf16_unit().is_some() || !bf16 && is_x86_feature_detected!("avx512f")
}

/// Packs B `k x n` to `to`.
///
/// # Safety
/// The CPU [`has_kernels`] for `bf16`, B is valid, and `to` has room for what `tasks::packed_words` says.
#[cfg(target_arch = "x86_64")]
pub unsafe fn pack_columns((n, k): (usize, usize), bf16: bool, b: RawMat<Elements>, to: *mut u32, parallel: bool) {
    let b = pack::Lines::columns(b, n, k);
    // SAFETY: the contract of both is this function's own. (AMX reads the same panels as AVX512-BF16.)
    unsafe {
        match bf16 {
            true => tasks::pack::<avx512::Bf16>(b, to, parallel),
            false => tasks::pack::<avx512::F32>(b, to, parallel),
        }
    }
}

/// [`gemm()`](super::gemm()) through our own kernels by address, into C with columns next to each other; false if this CPU
/// has none for it.
///
/// # Safety
/// A and B are valid for their shapes and strides, in bf16 only with `bf16`; a packed B was packed for this `n`, `k` and
/// `bf16`. C is valid for `m x n`, its `start` fits it ([`Start::C`] only where C is initialised), it is
/// in bf16 only where k is worked on in one part, and nobody else uses it.
pub unsafe fn through_kernels(
    shape: (usize, usize, usize), bf16: bool, a: RawMat<Elements>, b: OperandB, c: RawC, parallel: bool,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if shape.2 > 0 && has_kernels(bf16) {
        use amx::Amx;
        use avx512::{Bf16, F32};
        use tasks::run;
        // SAFETY: the features were found and k is not 0; all else is in this function's own contract.
        unsafe {
            match bf16 {
                false => run::<F32>(shape, a, b, c, parallel),
                true if amx_is_right() => run::<Amx>(shape, a, b, c, parallel),
                true => run::<Bf16>(shape, a, b, c, parallel),
            }
        };
        return true;
    }
    let _ = (shape, bf16, a, b, c, parallel);
    false
}
