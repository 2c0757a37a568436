//! Which kernel a matmul runs through on this CPU.

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::kernel::{amx, avx512};
use super::operands::{Columns, Elements, Out, RawMat};
#[cfg(target_arch = "x86_64")]
use super::operands::{Mat, Start, Target};
#[cfg(target_arch = "x86_64")]
use super::{pack, tasks};

/// The instructions through which bf16 products are faster than f32 ones here, if there are any.
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

#[cfg(target_arch = "x86_64")]
/// Whether AMX is there and gives what AVX512-BF16 gives; asked once. So far its loop has run in an emulated CPU only, so
/// it has to show first that it is right: on small whole numbers, whose sums are exact in any order.
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
            let out = Out { start: Start::Bias(&bias), ptr: Target::F32(c.as_mut_ptr()), row_stride: n };
            let (a, b) = (Mat::rows(&a, k).raw(), Columns::As(Mat::rows(&b, n).raw()));
            // SAFETY: both features were found, the operands lie within their vectors, the bias is `n` long, and C is ours.
            unsafe {
                match by_amx {
                    true => tasks::product::<amx::Amx>((m, n, k), a, b, out, false),
                    false => tasks::product::<avx512::Bf16>((m, n, k), a, b, out, false),
                }
            }
            c
        });
        if by_amx != by_avx {
            tracing::warn!("this CPU's AMX gives other products than its AVX512-BF16, so it is not used");
        }
        by_amx == by_avx
    })
}

/// Whether products run through our own kernels on this CPU.
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
    // SAFETY: the caller's, who owes the same to both. (AMX reads the same panels.)
    unsafe {
        match bf16 {
            true => tasks::pack::<avx512::Bf16>(b, to, parallel),
            false => tasks::pack::<avx512::F32>(b, to, parallel),
        }
    }
}

/// [`gemm()`] through our own kernels by address, into C with columns next to each other; false if this CPU cannot.
///
/// # Safety
/// A and B as for [`gemm_raw`]. C is valid for `m x n`, its `start` fits it ([`Start::C`] only where C is initialised), it is
/// in bf16 only where k is worked on in one part, and nobody else uses it.
pub unsafe fn through_kernels(
    shape: (usize, usize, usize), bf16: bool, a: RawMat<Elements>, b: Columns, c: Out, parallel: bool,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    if shape.2 > 0 && has_kernels(bf16) {
        use amx::Amx;
        use avx512::{Bf16, F32};
        use tasks::product;
        // SAFETY: the features were found and k is not 0; the rest is the caller's.
        unsafe {
            match bf16 {
                false => product::<F32>(shape, a, b, c, parallel),
                true if amx_is_right() => product::<Amx>(shape, a, b, c, parallel),
                true => product::<Bf16>(shape, a, b, c, parallel),
            }
        };
        return true;
    }
    let _ = (shape, bf16, a, b, c, parallel);
    false
}
