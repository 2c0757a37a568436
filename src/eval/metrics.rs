//! Ranks among candidates, of which 1 is the best, and the share of ranks up to k.
//!
//! Ties count against the model: where scores are equal, the wrong candidate ranks first, so a model that gives
//! every candidate the same score has nothing right. A score that is not a number counts as the worst for the model.

use rayon::prelude::*;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::simd::simd;

/// The k of recall@k and accuracy@k.
pub const KS: [usize; 3] = [1, 5, 10];

/// The share of queries whose relevant key is among the first 1, 5 and 10; serialises as `{"recall@1": x, ...}`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtK {
    /// `recall` or `accuracy`.
    pub name: &'static str,
    /// One share for each of [`KS`].
    pub values: [f64; 3],
}

impl AtK {
    /// The shares called `name` of the ranks of [`ranks`]; 1 is the best.
    pub fn of_ranks(name: &'static str, ranks: &[usize]) -> Self {
        let share = |k| ranks.iter().filter(|&&rank| rank <= k).count() as f64 / ranks.len().max(1) as f64;
        Self { name, values: KS.map(share) }
    }
}

impl Serialize for AtK {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(KS.len()))?;
        for (k, value) in KS.iter().zip(self.values) {
            map.serialize_entry(&format!("{}@{k}", self.name), &value)?;
        }
        map.end()
    }
}

/// For each query `[queries, dim]` the rank of its best relevant key `[keys, dim]`: one more than the number of keys that
/// are not relevant and whose dot product with the query is not below. Where no relevant key has a score, the last rank, and
/// in any case one beyond [`KS`]: that is a miss, however few keys there are.
pub fn ranks<'a>(
    queries: &[f32], keys: &[f32], dim: usize, relevant: impl Fn(usize) -> &'a [usize] + Sync,
) -> Vec<usize> {
    queries.par_chunks_exact(dim.max(1)).enumerate().map(|(i, query)| rank(query, keys, relevant(i))).collect()
}

simd! {
fn rank(query: &[f32], keys: &[f32], relevant: &[usize]) -> usize {
    let dim = query.len();
    let relevant_scores = relevant.iter().map(|&k| dot(query, &keys[k * dim..][..dim]));
    let best = relevant_scores.fold(f32::NAN, f32::max);
    if best.is_nan() {
        let wrong = (keys.len() / dim).saturating_sub(relevant.len());
        return wrong.max(KS[KS.len() - 1]) + 1;
    }
    let mut rank = 1;
    for (k, key) in keys.chunks_exact(dim).enumerate() {
        let below = dot(query, key) < best;
        rank += usize::from(!below && !relevant.contains(&k));
    }
    rank
}
}

/// The dot product, summed in one order whatever the place of the rows: equal rows have equal scores, bit for bit.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..16 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0] + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorts all candidates, the wrong ones first among equals, NaN before everything.
    fn oracle(queries: &[f32], keys: &[f32], dim: usize, relevant: &[Vec<usize>]) -> Vec<usize> {
        let rank = |(query, relevant): (&[f32], &Vec<usize>)| {
            let score = |key: &[f32]| query.iter().zip(key).map(|(x, y)| x * y).sum::<f32>();
            let mut order: Vec<(f32, bool)> =
                keys.chunks(dim).enumerate().map(|(k, key)| (score(key), relevant.contains(&k))).collect();
            order.retain(|(score, relevant)| !(score.is_nan() && *relevant));
            order.sort_by(|a, b| {
                let key = |s: f32| if s.is_nan() { f32::INFINITY } else { s + 0.0 }; // -0 + 0 = 0
                key(b.0).total_cmp(&key(a.0)).then(a.1.cmp(&b.1))
            });
            // Without any relevant one, all that is left are wrong.
            order.iter().position(|(_, relevant)| *relevant).unwrap_or(order.len()) + 1
        };
        queries.chunks(dim).zip(relevant).map(rank).collect()
    }

    /// Small whole numbers: exact in any order of summation, and full of ties.
    fn whole(n: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) % 5) as f32 - 2.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn a_query_without_a_score_is_a_miss_however_few_keys_there_are() {
        for keys in [1, 5, 40] {
            let got = ranks(&[f32::NAN], &vec![1.0; keys], 1, |_| &[0]);
            assert_eq!(AtK::of_ranks("recall", &got).values, [0.0; 3], "{keys} keys: {got:?}");
        }
    }

    #[test]
    fn equals_the_oracle_with_ties_duplicates_and_nan() {
        for dim in [1, 3, 16, 21, 40] {
            let (mut queries, mut keys) = (whole(37 * dim, 1), whole(53 * dim, 2));
            keys.copy_within(0..dim, 9 * dim);
            keys[5 * dim] = f32::NAN;
            queries[7 * dim] = f32::NAN;
            let relevant: Vec<Vec<usize>> = (0..37)
                .map(|i| match i % 4 {
                    0 => vec![i],
                    1 => vec![i, 52 - i],
                    2 => vec![5],
                    _ => vec![5, i, 9],
                })
                .collect();
            let got = ranks(&queries, &keys, dim, |i| &relevant[i]);
            assert_eq!(got, oracle(&queries, &keys, dim, &relevant));
            assert_eq!((got[7], got[2]), (51, 53));
        }
    }

    #[test]
    fn equal_rows_tie_wherever_they_stand() {
        let dim = 77;
        let row: Vec<f32> = (0..dim).map(|k| (k as f32 * 0.37).sin() / 7.0).collect();
        let keys = row.repeat(33);
        let relevant: Vec<Vec<usize>> = (0..33).map(|i| vec![i]).collect();
        assert_eq!(ranks(&keys, &keys, dim, |i| &relevant[i]), [33; 33]);
    }

    #[test]
    fn shares_and_their_json() {
        let recall = AtK::of_ranks("recall", &[1, 2, 5, 6, 10, 11, 900, 1]);
        assert_eq!(recall.values, [0.25, 0.5, 0.75]);
        let json = serde_json::to_string(&AtK::of_ranks("accuracy", &[1])).expect("serialises");
        assert_eq!(json, r#"{"accuracy@1":1.0,"accuracy@5":1.0,"accuracy@10":1.0}"#);
        assert_eq!(AtK::of_ranks("recall", &[]).values, [0.0; 3]);
    }
}
