//! The figures of a list of ranks, with their 95% intervals.

use serde::Serialize;
use serde::ser::Serializer;

use super::metrics::{AtK, KS};
use super::statistics::{Clusters, Interval, SEED, median, wilson};

/// 95% intervals under the names of their figures; serialises as `{"recall@1": [low, high], ...}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Intervals(Vec<(String, Interval)>);

impl Intervals {
    /// These intervals under these names.
    pub fn new(named: Vec<(String, Interval)>) -> Self {
        Self(named)
    }

    /// The interval of the figure `name`.
    pub fn get(&self, name: &str) -> Option<Interval> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, interval)| *interval)
    }
}

impl Serialize for Intervals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, interval)| (name, interval)))
    }
}

/// Shares at k, and how sure they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shares {
    /// recall@k or accuracy@k.
    #[serde(flatten)]
    pub at: AtK,
    /// Percentile intervals of a bootstrap over clusters of queries.
    pub ci95: Intervals,
    /// Wilson's intervals, which take all queries for independent.
    pub wilson95: Intervals,
}

/// How well queries rank what they look for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// recall@k.
    #[serde(flatten)]
    pub at: AtK,
    /// The median rank; 1 is the best.
    pub median_rank: f64,
    /// The mean rank.
    pub mean_rank: f64,
    /// The mean of 1 / rank.
    pub mrr: f64,
    /// Percentile intervals of a bootstrap over clusters of queries.
    pub ci95: Intervals,
    /// Wilson's intervals of recall@k, which take all queries for independent.
    pub wilson95: Intervals,
}

impl Shares {
    /// The shares called `name` of `ranks`, of which 1 is the best.
    pub fn new(name: &'static str, ranks: &[usize], clusters: &Clusters) -> Self {
        let hits = hits(ranks);
        let intervals = clusters.means([&hits[0], &hits[1], &hits[2]], SEED);
        let at = AtK::of_ranks(name, ranks);
        Self { ci95: named(name, intervals), wilson95: wilsons(name, &hits), at }
    }
}

impl Ranking {
    /// The figures of `ranks`, of which 1 is the best.
    pub fn new(ranks: &[usize], clusters: &Clusters) -> Self {
        let [one, five, ten] = hits(ranks);
        let plain: Vec<f64> = ranks.iter().map(|rank| *rank as f64).collect();
        let reciprocal: Vec<f64> = plain.iter().map(|rank| 1.0 / rank).collect();
        let [at_1, at_5, at_10, mean_rank, mrr] = clusters.means([&one, &five, &ten, &plain, &reciprocal], SEED);
        let mut ci95 = named("recall", [at_1, at_5, at_10]);
        let others = [("median_rank", clusters.median(&plain, SEED)), ("mean_rank", mean_rank), ("mrr", mrr)];
        ci95.0.extend(others.map(|(name, interval)| (name.to_owned(), interval)));
        Self {
            at: AtK::of_ranks("recall", ranks),
            mean_rank: mean(&plain),
            mrr: mean(&reciprocal),
            median_rank: median(&mut plain.clone()),
            ci95,
            wilson95: wilsons("recall", &[one, five, ten]),
        }
    }
}

/// For each of [`KS`] whether each rank is a hit, 1, or not, 0.
pub fn hits(ranks: &[usize]) -> [Vec<f64>; 3] {
    KS.map(|k| ranks.iter().map(|rank| f64::from(u8::from(*rank <= k))).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn named(name: &str, intervals: [Interval; 3]) -> Intervals {
    Intervals(KS.iter().map(|k| format!("{name}@{k}")).zip(intervals).collect())
}

fn wilsons(name: &str, hits: &[Vec<f64>; 3]) -> Intervals {
    let count = |hits: &Vec<f64>| hits.iter().filter(|hit| **hit == 1.0).count();
    named(name, hits.each_ref().map(|hits| wilson(count(hits), hits.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_interval() {
        let ranks = [1, 2, 6, 11, 1, 1, 40, 3];
        let ranking = Ranking::new(&ranks, &Clusters::single(8));
        assert_eq!(ranking.at.values, [0.375, 0.625, 0.75]);
        assert_eq!((ranking.median_rank, ranking.mean_rank), (2.5, 8.125));
        let mrr = (3.0 + 0.5 + 1.0 / 6.0 + 1.0 / 11.0 + 1.0 / 40.0 + 1.0 / 3.0) / 8.0;
        assert!((ranking.mrr - mrr).abs() < 1e-12);
        let json = serde_json::to_value(&ranking).expect("serialises");
        let names = ["recall@1", "recall@5", "recall@10", "median_rank", "mean_rank", "mrr"];
        assert!(json["ci95"].as_object().expect("an object").keys().eq(names));
        for name in names {
            let [low, high] = ranking.ci95.get(name).expect("an interval");
            let value = json[name].as_f64().expect("a figure");
            assert!(low < value && value < high, "{name}: {value} and [{low}, {high}]");
        }
        assert_eq!(ranking.wilson95.get("recall@1"), Some(wilson(3, 8)));
        // The same captions twice, as clusters of two, say no more than once.
        let twice: Vec<usize> = ranks.iter().flat_map(|rank| [*rank, *rank]).collect();
        let clusters: Vec<usize> = (0..16).map(|i| i / 2).collect();
        assert_eq!(Ranking::new(&twice, &Clusters::of(&clusters)).ci95, ranking.ci95);
        let shares = Shares::new("accuracy", &ranks, &Clusters::single(8));
        assert_eq!(shares.ci95.get("accuracy@5"), ranking.ci95.get("recall@5"));
    }
}
