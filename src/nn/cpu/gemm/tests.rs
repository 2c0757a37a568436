use super::super::activation::Elementwise;
use super::*;
use crate::rng;

fn random(seed: u64, len: usize) -> Vec<f32> {
    (0..len).map(|i| rng::normal(seed, i as u64) as f32).collect()
}

/// Every orientation and odd size, against f64 on the operands as they are or as bf16 rounds them.
#[test]
fn products_match_double_precision() {
    let sizes = [1, 2, 3, 11, 12, 13, 16, 31, 32, 33, 63, 100];
    for trial in 0..400u64 {
        let pick = |what: u64| sizes[(rng::mix(what, trial) % sizes.len() as u64) as usize];
        let (mut m, mut n, mut k) = (pick(1), pick(2), pick(3));
        match trial {
            0 => (m, n, k) = (130, 200, 2100), // k in parts, more than one task
            1 => (m, n, k) = (25, 7, 1025),
            2 => (m, n, k) = (300, 33, 64),
            _ => {}
        }
        let flag = |what: u64| rng::mix(what, trial) & 1 == 1;
        let (a_gap, b_gap) = (if flag(4) { 0 } else { 5 }, if flag(5) { 0 } else { 3 });
        let (a_rows, b_rows) = (flag(6), flag(7));
        let a_stride = if a_rows { k } else { m } + a_gap;
        let b_stride = if b_rows { n } else { k } + b_gap;
        let a_data = random(trial, a_stride * if a_rows { m } else { k });
        let b_data = random(trial + 1000, b_stride * if b_rows { k } else { n });
        let (a, b) = (Mat::rows(&a_data, a_stride), Mat::rows(&b_data, b_stride));
        let (a, b) = (if a_rows { a } else { a.t() }, if b_rows { b } else { b.t() });
        let other = random(trial + 4000, m * n);
        let (bias, before) = (random(trial + 2000, n), random(trial + 3000, m * n));
        for bf16 in [false, true] {
            let element = |x: f32| f64::from(if bf16 { round_to_bf16(x) } else { x });
            for start in
                [Start::Zero, Start::C, Start::Bias(&bias), Start::Other(&other), Start::BiasAndOther(&bias, &other)]
            {
                let mut c = before.clone();
                gemm((m, n, k), bf16, a, b, start, &mut c);
                let (mut error, mut size) = (0.0, 0.0);
                for i in 0..m {
                    for j in 0..n {
                        let at = |x: Mat, i: usize, j: usize| element(x.data[i * x.row_stride + j * x.col_stride]);
                        let start = match start {
                            Start::Zero => 0.0,
                            Start::C => f64::from(before[i * n + j]),
                            Start::Bias(bias) => f64::from(bias[j]),
                            Start::Other(other) => f64::from(other[i * n + j]),
                            Start::BiasAndOther(bias, other) => f64::from(bias[j] + other[i * n + j]),
                        };
                        let want = start + (0..k).map(|p| at(a, i, p) * at(b, p, j)).sum::<f64>();
                        error += (f64::from(c[i * n + j]) - want).powi(2);
                        // What is summed, not the sum: a few terms may cancel.
                        size += (start.abs() + (0..k).map(|p| (at(a, i, p) * at(b, p, j)).abs()).sum::<f64>()).powi(2);
                    }
                }
                let relative = (error / size).sqrt();
                assert!(relative < 1e-6, "{m} x {n} x {k}, bf16 {bf16}, trial {trial}: {relative:e}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (m, n, k) = (150, 170, 1300);
    let (a, b) = (random(1, m * k), random(2, k * n));
    for bf16 in [false, true] {
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut c = vec![0.0; m * n];
            pool.install(|| gemm((m, n, k), bf16, Mat::rows(&a, k), Mat::rows(&b, n), Start::Zero, &mut c));
            c.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        });
        assert!(one == three);
    }
}

#[test]
fn rounding_is_to_nearest_with_ties_to_even() {
    for (x, want) in [(0x3f80_8000, 0x3f80_0000), (0x3f81_8000, 0x3f82_0000), (0x3f80_8001, 0x3f81_0000)] {
        assert_eq!(round_to_bf16(f32::from_bits(x)).to_bits(), want);
    }
    assert!(round_to_bf16(f32::NAN).is_nan());
    assert_eq!(round_to_bf16(f32::NEG_INFINITY), f32::NEG_INFINITY);
}

#[test]
fn packed_columns_and_any_strides_give_the_same_product() {
    for (m, n, k) in [(1, 1, 1), (50, 70, 2100), (13, 33, 64), (50, 96, 75), (77, 70, 64), (50, 70, 2112)] {
        let (a, b, bias) = (random(1, m * k), random(2, k * n), random(3, n));
        let spread = |x: &[f32]| x.iter().flat_map(|x| [*x, f32::NAN, f32::NAN]).collect::<Vec<f32>>();
        let (wide_a, wide_b) = (spread(&a), spread(&b));
        let wide = |data, columns: usize| Mat { data, row_stride: 3 * columns, col_stride: 3 };
        for bf16 in [false, true] {
            let run = |a: Mat, b: Mat| {
                let mut c = vec![0.0; m * n];
                gemm((m, n, k), bf16, a, b, Start::Bias(&bias), &mut c);
                c
            };
            let want = run(Mat::rows(&a, k), Mat::rows(&b, n));
            let got = run(wide(&wide_a, k), wide(&wide_b, n));
            let close = |x: &[f32]| x.iter().zip(&want).all(|(x, y)| (x - y).abs() <= 1e-4 * (1.0 + y.abs()));
            assert!(close(&got), "{m} x {n} x {k}, bf16 {bf16}");
            if let Some(packed) = Packed::new((n, k), bf16, Mat::rows(&b, n)) {
                assert_eq!(packed.matmul(m, Left::F32(&a), Start::Bias(&bias)), want);
                if bf16 {
                    let halves: Vec<half::bf16> = a.iter().map(|x| half::bf16::from_f32(*x)).collect();
                    assert_eq!(packed.matmul(m, Left::Bf16(&halves), Start::Bias(&bias)), want);
                    assert_eq!(packed.writes_bf16(), k <= 2048);
                    for finish in [None, Some(Elementwise::QUICK_GELU)] {
                        if packed.writes_bf16() {
                            let c = packed.matmul_to_bf16(m, Left::Bf16(&halves), Start::Bias(&bias), finish);
                            let want = finish.map_or(want.clone(), |finish| finish.of(&want));
                            assert!(c.iter().zip(&want).all(|(c, want)| *c == half::bf16::from_f32(*want)));
                        }
                    }
                }
            }
            let (mut memory, mut c) = (Vec::new(), vec![0.0; m * n]);
            // SAFETY: all operands lie within their vectors.
            unsafe {
                let b = OperandB::prepare((m, n, k), bf16, Mat::rows(&b, n).raw(), &mut memory);
                let to = RawMat { ptr: c.as_mut_ptr(), row_stride: n, col_stride: 1 };
                gemm_raw((m, n, k), bf16, Mat::rows(&a, k).raw(), b, to);
            }
            c.iter_mut().zip(bias.iter().cycle()).for_each(|(c, bias)| *c += bias);
            assert!(m * n * k < LEAST_PACKED || close(&c));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn amx_is_used_where_it_is_there() {
    assert_eq!(kernel::amx::is_supported(), bf16_unit() == Some("AMX"));
    println!("bf16 products through {}", bf16_unit().unwrap_or("the gemm crate"));
}
