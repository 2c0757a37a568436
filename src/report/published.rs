//! Published figures on the same sets, to compare with without any data: the rows of `configs/references.toml`.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, ResultExt};
use crate::eval::metrics::KS;
use crate::eval::statistics::{Interval, wilson};

const REFERENCES: &str = include_str!("../../configs/references.toml");

/// What somebody published of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    /// The set: `xtd10`, `xm3600`, ...
    pub set: String,
    /// The text tower.
    pub model: String,
    /// The image tower.
    pub images: String,
    /// The language of captions and prompts.
    pub language: String,
    /// Accuracy@k of zero-shot ImageNet.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "accuracies")]
    pub classification: Option<Vec<f64>>,
    /// Recall@k, text to image.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "recalls")]
    pub retrieval: Option<Vec<f64>>,
    /// On how many queries, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    /// Where the figures come from.
    pub source: String,
    /// Its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// When it was last changed, or read.
    pub date: String,
}

/// The form of `configs/references.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct References {
    sources: BTreeMap<String, Source>,
    row: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: String,
    url: String,
    date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    set: String,
    model: String,
    tower: String,
    language: String,
    a: Option<Vec<f64>>,
    r: Option<Vec<f64>>,
    n: Option<usize>,
    source: String,
}

fn at_k<S: Serializer>(name: &str, values: &Option<Vec<f64>>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(KS.iter().map(|k| format!("{name}@{k}")).zip(values.iter().flatten()))
}

fn accuracies<S: Serializer>(values: &Option<Vec<f64>>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    at_k("accuracy", values, serializer)
}

fn recalls<S: Serializer>(values: &Option<Vec<f64>>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    at_k("recall", values, serializer)
}

impl Published {
    /// Wilson's interval of each recall@k, where the number of queries is known.
    pub fn intervals(&self) -> Option<Vec<Interval>> {
        let n = self.n?;
        Some(self.retrieval.as_ref()?.iter().map(|share| wilson((share * n as f64).round() as usize, n)).collect())
    }
}

/// All figures, those of one set together and those that are comparable with the original's first.
pub fn published() -> Result<Vec<Published>> {
    let References { sources, row } =
        toml::from_str(REFERENCES).map_err(|e| Error::new(e.to_string())).context(|| "configs/references.toml")?;
    let resolve = |row: Row| {
        let source = sources
            .get(&row.source)
            .ok_or_else(|| Error::new(format!("configs/references.toml: {}: no source {:?}", row.model, row.source)))?;
        Ok(Published {
            set: row.set,
            model: row.model,
            images: row.tower,
            language: row.language,
            classification: row.a,
            retrieval: row.r,
            n: row.n,
            source: source.name.clone(),
            url: source.url.clone(),
            date: source.date.clone(),
        })
    };
    row.into_iter().map(resolve).collect()
}

/// [`published`] as a table for a terminal, with the sources below.
pub struct Table(pub Vec<Published>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Published: ImageNet accuracy@k (A), text-to-image recall@k (R)")?;
        let mut sources: Vec<String> = Vec::new();
        for group in self.0.chunk_by(|a, b| a.set == b.set) {
            write!(f, "\n\n{:37}", group[0].set)?;
            for measure in ["A", "R"] {
                KS.iter().try_for_each(|k| write!(f, "{:>6}", format!("{measure}@{k}")))?;
            }
            for row in group {
                let source = match row.url.is_empty() {
                    true => row.source.clone(),
                    false => format!("{}, {}\n    {}", row.source, row.date, row.url),
                };
                let number = sources.iter().position(|known| *known == source).unwrap_or_else(|| {
                    sources.push(source);
                    sources.len() - 1
                });
                write!(f, "\n{:19} {:14} {} ", row.model, row.images, row.language)?;
                for values in [&row.classification, &row.retrieval] {
                    for k in 0..KS.len() {
                        let value = values.as_ref().and_then(|values| values.get(k));
                        write!(f, "{:>6}", value.map_or("-".into(), |value| format!("{value:.3}")))?;
                    }
                }
                write!(f, " [{}]", number + 1)?;
            }
        }
        writeln!(f)?;
        for (number, source) in sources.iter().enumerate() {
            write!(f, "\n[{}] {source}", number + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_row_and_figures_that_grow_with_k() -> Result<()> {
        let rows = published()?;
        let table = Table(rows.clone()).to_string();
        let figures = table.split("\n[1]").next().unwrap_or_default();
        assert!(figures.lines().all(|line| line.chars().count() <= 80), "{table}");
        for row in &rows {
            assert!(row.classification.is_some() || row.retrieval.is_some(), "{row:?}");
            for values in row.classification.iter().chain(&row.retrieval) {
                assert!(values.is_sorted() && values[values.len() - 1] < 1.0, "{row:?}");
                assert!(values.iter().all(|value| table.contains(&format!("{value:.3}"))), "{row:?}");
            }
            assert!(table.contains(&row.url) && table.contains(&row.source));
        }
        // FIELD's own arithmetic: 0.481 of 1000 queries is 0.450 to 0.512.
        let [low, high] = rows[0].intervals().expect("1000 queries")[0];
        assert_eq!((format!("{low:.3}"), format!("{high:.3}")), ("0.450".into(), "0.512".into()));
        assert_eq!(rows.len(), 45);
        Ok(())
    }
}
