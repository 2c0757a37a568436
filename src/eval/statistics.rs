//! How sure a figure is: intervals by resampling, Wilson's interval of a proportion, and paired comparisons (pure).
//!
//! Queries that share an image are not independent: they are resampled together, as a cluster. Every draw is a function
//! of the seed, so that an interval is the same whenever it is computed.

use rayon::prelude::*;

use crate::rng;

/// How often the queries are drawn anew.
pub const RESAMPLES: usize = 2000;
/// The seed of every published interval.
pub const SEED: u64 = 0x00c1_95ea;
/// The 97.5th percentile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The lower and the upper end of a 95% interval.
pub type Interval = [f64; 2];

/// What is drawn with replacement: single queries, or all queries of an image together.
pub struct Clusters {
    /// The queries of cluster `c` are `members[starts[c]..starts[c + 1]]`.
    starts: Vec<usize>,
    members: Vec<usize>,
}

impl Clusters {
    /// Each of `queries` for itself.
    pub fn single(queries: usize) -> Self {
        Self { starts: (0..=queries).collect(), members: (0..queries).collect() }
    }

    /// Together those queries that have the same number in `cluster_of`.
    pub fn of(cluster_of: &[usize]) -> Self {
        let mut members: Vec<usize> = (0..cluster_of.len()).collect();
        members.sort_by_key(|query| cluster_of[*query]);
        let begins = |i: &usize| *i == 0 || cluster_of[members[*i]] != cluster_of[members[i - 1]];
        let mut starts: Vec<usize> = (0..members.len()).filter(begins).collect();
        starts.push(members.len());
        Self { starts, members }
    }

    /// How many clusters there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The clusters of resample `resample`, as many as there are.
    fn draw(&self, seed: u64, resample: usize) -> impl Iterator<Item = &[usize]> {
        let (key, count) = (rng::mix(seed, resample as u64), self.len() as u128);
        (0..self.len() as u64).map(move |i| {
            let drawn = ((u128::from(rng::mix(key, i)) * count) >> 64) as usize;
            &self.members[self.starts[drawn]..self.starts[drawn + 1]]
        })
    }

    /// The percentile interval of each mean of `columns`, which have one value for each query (Efron and Tibshirani, An
    /// Introduction to the Bootstrap, chapter 13; scipy's `bootstrap(method="percentile")`).
    pub fn means<const N: usize>(&self, columns: [&[f64]; N], seed: u64) -> [Interval; N] {
        // A cluster counts by its sums, which are made once.
        let sums: Vec<([f64; N], f64)> = (self.starts.windows(2))
            .map(|ends| {
                let members = &self.members[ends[0]..ends[1]];
                (columns.map(|column| members.iter().map(|query| column[*query]).sum()), members.len() as f64)
            })
            .collect();
        let count = sums.len() as u128;
        let resampled = (0..RESAMPLES).into_par_iter().map(|resample| {
            let (key, mut totals, mut queries) = (rng::mix(seed, resample as u64), [0.0; N], 0.0);
            for i in 0..sums.len() as u64 {
                let (sum, size) = &sums[((u128::from(rng::mix(key, i)) * count) >> 64) as usize];
                totals.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
                queries += size;
            }
            totals.map(|total| total / queries)
        });
        let resampled: Vec<[f64; N]> = resampled.collect();
        std::array::from_fn(|column| percentiles(resampled.iter().map(|means| means[column]).collect()))
    }

    /// The percentile interval of the median of `values`, one for each query.
    pub fn median(&self, values: &[f64], seed: u64) -> Interval {
        let resampled = (0..RESAMPLES).into_par_iter().map(|resample| {
            let drawn = self.draw(seed, resample).flatten().map(|query| values[*query]);
            median(&mut drawn.collect::<Vec<_>>())
        });
        percentiles(resampled.collect())
    }
}

/// The median of `values`, which are reordered: the mean of the two middle ones where their number is even; NaN of none.
pub fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let (middle, is_even) = (values.len() / 2, values.len().is_multiple_of(2));
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if is_even { (below.iter().copied().fold(f64::MIN, f64::max) + upper) / 2.0 } else { upper }
}

/// The 2.5th and the 97.5th percentile, interpolated as numpy does.
fn percentiles(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| {
        let at = share * (values.len().saturating_sub(1)) as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        let value = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        value(low) + (value(high) - value(low)) * at.fract()
    })
}

/// Wilson's 95% interval of a proportion (Wilson 1927, JASA 22).
pub fn wilson(successes: usize, trials: usize) -> Interval {
    let (n, share) = (trials as f64, successes as f64 / trials as f64);
    let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

/// Two models on the same queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// The mean of the first less that of the second.
    pub difference: f64,
    /// The interval of the difference.
    pub interval: Interval,
    /// The p-value of McNemar's exact test, where every value is 0 or 1.
    pub p_value: Option<f64>,
}

/// Compares the values of two models on the same queries, such as 1 for a hit and 0 for a miss.
pub fn paired(first: &[f64], second: &[f64], clusters: &Clusters, seed: u64) -> Paired {
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    let [interval] = clusters.means([&differences], seed);
    let is_binary = first.iter().chain(second).all(|value| *value == 0.0 || *value == 1.0);
    let count = |sign: f64| differences.iter().filter(|difference| **difference == sign).count();
    Paired {
        difference: differences.iter().sum::<f64>() / differences.len() as f64,
        interval,
        p_value: is_binary.then(|| mcnemar(count(1.0), count(-1.0))),
    }
}

/// The two-sided p-value of McNemar's exact test: of the queries on which two models differ, `first` are right for the
/// first one only and `second` for the second one only (McNemar 1947, Psychometrika 12).
pub fn mcnemar(first: usize, second: usize) -> f64 {
    let (fewer, all) = (first.min(second), first + second);
    // The logarithm of the binomial coefficient, from one term to the next.
    let mut log_ways = 0.0;
    let mut tail = 0.0;
    for i in 0..=fewer {
        tail += (log_ways - all as f64 * std::f64::consts::LN_2).exp();
        log_ways += ((all - i) as f64 / (i + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // From `tests/golden/significance.py`.
    const WILSON: [Interval; 4] = [
        [0.4501645630755934, 0.5119808537468576],
        [0.0, 0.1611251580528194],
        [0.8388748419471804, 1.0],
        [0.15821985525146964, 0.7495416354723428],
    ];
    const MCNEMAR: [(usize, usize, f64); 5] = [
        (25, 48, 0.009542211425865477),
        (5, 1, 0.21875),
        (3, 3, 1.0),
        (120, 180, 0.0006342200069283566),
        (0, 9, 0.00390625),
    ];
    const SCIPY_MEAN: Interval = [42.615, 51.085];
    const SCIPY_MEDIAN: Interval = [36.0, 53.0];
    const SCIPY_CLUSTERED: Interval = [41.135, 52.105];
    const POWER: f64 = 0.8914766912282592;
    const NEAR: f64 = 1e-9;

    fn near(got: Interval, want: Interval, within: f64) {
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < within), "{got:?}, not {want:?}");
    }

    fn draws(key: u64, n: usize) -> impl Iterator<Item = f64> {
        (0..n as u64).map(move |i| rng::uniform(rng::mix(0x7374_6174, key), i))
    }

    fn hit(is_hit: bool) -> f64 {
        if is_hit { 1.0 } else { 0.0 }
    }

    #[test]
    fn wilson_equals_statsmodels() {
        near(wilson(481, 1000), WILSON[0], NEAR);
        near(wilson(0, 20), WILSON[1], NEAR);
        near(wilson(20, 20), WILSON[2], NEAR);
        near(wilson(3, 7), WILSON[3], NEAR);
    }

    #[test]
    fn mcnemar_equals_statsmodels() {
        for (b, c, p) in MCNEMAR {
            assert!((mcnemar(b, c) / p - 1.0).abs() < 1e-9, "{b} {c}: {}, not {p}", mcnemar(b, c));
        }
    }

    /// To the sampling error of 2,000 resamples.
    #[test]
    fn intervals_agree_with_scipy() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i * i % 97)).collect();
        let [mean] = Clusters::single(200).means([&values], 1);
        near(mean, SCIPY_MEAN, 0.35);
        near(Clusters::single(200).median(&values, 1), SCIPY_MEDIAN, 1.01);
        let clusters: Vec<usize> = (0..200).map(|i| i / 5).collect();
        let [mean] = Clusters::of(&clusters).means([&values], 1);
        near(mean, SCIPY_CLUSTERED, 0.35);
    }

    /// 1,000 sets of 40 images with five captions each; whether an image is easy is common to its captions.
    #[test]
    fn an_interval_covers_the_truth_as_often_as_it_says() {
        let clusters: Vec<usize> = (0..400).map(|i| i / 5).collect();
        let (clustered, single) = (Clusters::of(&clusters), Clusters::single(400));
        let mut covered = [0, 0];
        for set in 0..1000 {
            let images: Vec<f64> = draws(2 * set, 80).collect();
            let values: Vec<f64> = (draws(2 * set + 1, 400).enumerate())
                .map(|(i, x)| hit(x < if images[i / 5] < 0.5 { 0.8 } else { 0.2 }))
                .collect();
            for (covered, clusters) in covered.iter_mut().zip([&clustered, &single]) {
                let [[low, high]] = clusters.means([&values], set);
                *covered += usize::from(low <= 0.5 && 0.5 <= high);
            }
        }
        assert!((930..=970).contains(&covered[0]), "{covered:?} of 1000");
        assert!(covered[1] < 900, "without clusters the interval should be too narrow: {covered:?}");
    }

    #[test]
    fn a_planted_difference_is_found_as_often_as_theory_says() {
        // Of 500 queries 12% are right for the first model only, 6% for the second only: the difference has a mean of
        // 0.06 and a standard error of sqrt((0.18 - 0.06^2) / 500).
        let clusters = Clusters::single(500);
        let found = |first: f64, second: f64, key: u64| {
            let rejected = (0..1000).filter(|set| {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                for x in draws(key + set, 500) {
                    a.push(hit(x < first || x > 0.5));
                    b.push(hit(x > 0.5 || (first..first + second).contains(&x)));
                }
                let [low, high] = paired(&a, &b, &clusters, *set).interval;
                low > 0.0 || high < 0.0
            });
            rejected.count() as f64 / 1000.0
        };
        let power = found(0.12, 0.06, 10_000);
        assert!((power - POWER).abs() < 0.04, "{power}");
        let wrong = found(0.09, 0.09, 20_000);
        assert!(wrong <= 0.07, "{wrong}");
    }

    #[test]
    fn a_comparison_has_all_its_parts() {
        let (a, b) = ([1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]);
        let compared = paired(&a, &b, &Clusters::single(4), 0);
        assert_eq!((compared.difference, compared.p_value), (0.5, Some(0.5)));
        assert_eq!(paired(&[0.5], &[0.25], &Clusters::single(1), 0).p_value, None);
        assert_eq!(compared, paired(&a, &b, &Clusters::single(4), 0));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
