//! Scalar functions and sums written so that loops over them become vector instructions, in functions defined with
//! [`simd!`](crate::simd).

use std::mem::MaybeUninit;

use half::bf16;
use rayon::prelude::*;

use crate::simd::simd;

/// e^x, relative error below 1.2e-7. Arguments below -87.3 give the smallest normal number instead of 0; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // x = n ln 2 + r, |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the integer n in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, clamped); // ln 2 in two parts
    let r = n.mul_add(2.121_944_4e-4, r);
    // e^r = 1 + r + r^2 q(r); q fitted for least relative error on [-ln 2 / 2, ln 2 / 2].
    let q = 0.001_394_644_7f32;
    let q = q.mul_add(r, 0.008_369_152);
    let q = q.mul_add(r, 0.041_666_26);
    let q = q.mul_add(r, 0.166_665_16);
    let q = q.mul_add(r, 0.5);
    let value = (r * r).mul_add(q, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    if x.is_nan() { x } else { value * power }
}

/// The standard normal distribution: (density, cumulative probability) at `x`.
///
/// P(X > x) = erfc(x / sqrt 2) / 2 with erfc(z) = e^(-z^2) t p(t), t = 1 / (1 + 0.3 z) (the form of Abramowitz and
/// Stegun 7.1.26); p is a polynomial of degree 8 fitted to 2.4e-8 relative on z in [0, 10].
#[inline(always)]
pub fn normal_distribution(x: f32) -> (f32, f32) {
    const P: [f32; 9] = [
        0.169_177_34,
        0.170_884_41,
        0.147_205_48,
        0.219_122_51,
        -0.104_048_65,
        0.560_781,
        -0.523_299_15,
        0.490_735_61,
        -0.130_558_6,
    ];
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (x.abs() * std::f32::consts::FRAC_1_SQRT_2).mul_add(0.3, 1.0);
    let mut p = P[8];
    p = p.mul_add(t, P[7]);
    p = p.mul_add(t, P[6]);
    p = p.mul_add(t, P[5]);
    p = p.mul_add(t, P[4]);
    p = p.mul_add(t, P[3]);
    p = p.mul_add(t, P[2]);
    p = p.mul_add(t, P[1]);
    p = p.mul_add(t, P[0]);
    let tail = 0.5 * bell * t * p;
    (bell * 0.398_942_3, if x < 0.0 { tail } else { 1.0 - tail })
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

simd! {
    /// Every element rounded to bf16, to nearest, ties to even.
    pub fn round(to: &mut [MaybeUninit<bf16>], from: &[f32]) {
        to.iter_mut().zip(from).for_each(|(to, x)| {
            to.write(bf16::from_f32(*x));
        });
    }

    /// `to = a + b`
    pub fn add(to: &mut [MaybeUninit<f32>], a: &[f32], b: &[f32]) {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            to.write(a + b);
        }
    }

    /// Every element times `factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

const LANES: usize = 16;

/// The sum of `f` over three slices of one length, in a fixed order of 16 interleaved partial sums.
#[inline(always)]
pub fn sum3(a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a, b, c) = (a.chunks_exact(LANES), b.chunks_exact(LANES), c.chunks_exact(LANES));
    let mut rest = 0.0;
    for ((&x, &y), &z) in a.remainder().iter().zip(b.remainder()).zip(c.remainder()) {
        rest += f(x, y, z);
    }
    for ((x, y), z) in a.zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i], z[i]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The sum of `f` over two slices, in the order of [`sum3`].
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    sum3(a, b, b, |x, y, _| f(x, y))
}

/// The sum of `f` over a slice, in the order of [`sum3`].
#[inline(always)]
pub fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum3(a, a, a, |x, _, _| f(x))
}

/// Replaces every element `x` by `f(x)`; returns their sum, in the order of [`sum3`].
#[inline(always)]
pub fn replace_and_sum(a: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (whole, remainder) = a.as_chunks_mut::<LANES>();
    let mut rest = 0.0;
    for x in remainder {
        *x = f(*x);
        rest += *x;
    }
    for x in whole {
        for i in 0..LANES {
            x[i] = f(x[i]);
            lanes[i] += x[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// The largest element, -infinity for an empty slice; NaN is ignored (it shows in the sum that follows).
#[inline(always)]
pub fn largest(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = a.chunks_exact(LANES);
    let rest = whole.remainder().iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    for x in whole {
        for i in 0..LANES {
            lanes[i] = lanes[i].max(x[i]);
        }
    }
    lanes.iter().fold(rest, |m, &x| m.max(x))
}

/// Rows summed by one task before the partial sums are added up, in order: fixed, so that the result does not
/// depend on the number of threads.
pub const SUM_ROWS: usize = 128;

/// Adds the sum over the rows of `x` (rows of `sums.len()` elements) to `sums`.
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    let partial: Vec<Vec<f32>> = x
        .par_chunks(SUM_ROWS * width)
        .map(|block| {
            let mut sum = vec![0.0f32; width];
            block.chunks_exact(width).for_each(|row| add_to(&mut sum, row));
            sum
        })
        .collect();
    for block in partial {
        add_to(sums, &block);
    }
}

simd! {
    fn add_to(to: &mut [f32], x: &[f32]) {
        to.iter_mut().zip(x).for_each(|(t, x)| *t += x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_the_normal_distribution_match_double_precision() {
        let (mut worst_exp, mut worst_gelu) = (0.0f64, 0.0f64);
        for i in -80_000..=80_000 {
            let x = i as f32 / 1000.0;
            let want = f64::from(x).exp();
            worst_exp = worst_exp.max((f64::from(exp(x)) / want - 1.0).abs());
            let cumulative = 0.5 * libm::erfc(-f64::from(x) / 2f64.sqrt());
            if cumulative > 1e-30 {
                let got = f64::from(normal_distribution(x).1);
                // Relative to the argument's own rounding: d ln(Phi) = -x dx in the far tail.
                worst_gelu = worst_gelu.max((got / cumulative - 1.0).abs() / (1.0 + f64::from(x * x)));
            }
        }
        assert!(worst_exp < 3e-7, "{worst_exp}");
        assert!(worst_gelu < 5e-7, "{worst_gelu}");
        assert!(exp(f32::NAN).is_nan() && exp(-1e30) < 1e-37 && exp(1e30).is_finite());
    }

    #[test]
    fn sums_take_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&x, |v| v), (n * n.max(1) - n) as f32 / 2.0);
            let mut y = x.clone();
            assert_eq!(replace_and_sum(&mut y, |v| v + 1.0), sum(&x, |v| v + 1.0));
            assert!(x.iter().zip(&y).all(|(x, y)| x + 1.0 == *y));
            assert_eq!(largest(&x), x.last().copied().unwrap_or(f32::NEG_INFINITY));
        }
    }
}
