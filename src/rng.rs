//! Seeded random numbers without state: every draw is a function of its key.
//!
//! A run must repeat and resume exactly however its batches are cut, so nothing here advances a hidden state that
//! would have to be saved: shuffles, initial weights and dropout masks are all hashes of (seed, purpose, counters).

/// Mixes two words into one (the finaliser of splitmix64: Steele, Lea and Flood, OOPSLA 2014).
pub fn mix(key: u64, word: u64) -> u64 {
    let mut z = key ^ word.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd129_0f3a_9e2c_5b85);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A uniform number in (0, 1) for draw `index` of `key`.
pub fn uniform(key: u64, index: u64) -> f64 {
    ((mix(key, index) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// A standard normal number for draw `index` of `key` (Box and Muller 1958).
pub fn normal(key: u64, index: u64) -> f64 {
    let radius = (-2.0 * uniform(key, 2 * index).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(key, 2 * index + 1)).cos()
}

/// The order `0..len` shuffled by `key` (Fisher and Yates).
pub fn permutation(key: u64, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        // The high half of a 64x64-bit product: uniform to 2^-64 of its value.
        let j = ((u128::from(mix(key, i as u64)) * (i as u128 + 1)) >> 64) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_is_one_and_depends_on_the_key() {
        let mut a = permutation(1, 1000);
        assert_ne!(a, permutation(2, 1000));
        assert_eq!(a, permutation(1, 1000));
        a.sort_unstable();
        assert_eq!(a, (0..1000).collect::<Vec<_>>());
        assert!(permutation(3, 0).is_empty());
    }

    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let n = 100_000;
        let draws: Vec<f64> = (0..n).map(|i| normal(7, i)).collect();
        let mean = draws.iter().sum::<f64>() / n as f64;
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "{mean} {var}");
    }
}
