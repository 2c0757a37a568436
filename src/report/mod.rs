//! The figures of an evaluation, as one JSON object, as a table for a terminal, and as files in the run folder; models
//! compared by these files; and what others published.

pub mod compare;
pub mod layout;
pub mod published;
pub mod queries;

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::data::image::Transparency;
use crate::error::{Error, Result, ResultExt};
use crate::eval::Results;
use crate::eval::classification::ClassificationScores;
use crate::eval::figures::{Intervals, Ranking};
use crate::eval::metrics::{AtK, KS};
use crate::eval::retrieval::RetrievalScores;
use crate::fs::write_json_at;

/// Scores with the teacher's and the baseline's of the same task beside them.
#[derive(Serialize)]
struct Compared<'a, T: Serialize> {
    #[serde(flatten)]
    ours: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<&'a T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<&'a T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transparency: Option<Transparency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<&'a Value>,
}

impl Results {
    /// The whole report as indented JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `SET.json` into `folder` for each set that was measured (`retrieval`, `classification`); returns why those
    /// that could not be written were not. Each is written beside its place and renamed: a crash leaves the old file or
    /// the new one.
    pub fn write(&self, folder: &Path) -> Vec<Error> {
        let write = |name: &str, written: Result<()>| written.context(|| format!("the figures of {name}")).err();
        let place = |name: &str| folder.join(format!("{name}.json"));
        let advice = "copy the run there, and test the copy";
        let sets = self.retrieval.iter().filter_map(|(name, _)| {
            let compared = self.compare(|report| report.retrieval(name))?;
            write(name, write_json_at(&place(name), &compared, advice))
        });
        let classes = self.compare(|report| report.classification.as_ref());
        let classes = classes.map(|compared| write_json_at(&place("classification"), &compared, advice));
        sets.chain(classes.and_then(|written| write("classification", written))).collect()
    }

    /// The scores of one task, if it was measured.
    fn compare<T: Serialize>(&self, task: impl Fn(&Self) -> Option<&T>) -> Option<Compared<'_, T>> {
        let (teacher, baseline) = (self.teacher.as_deref(), self.baseline.as_deref());
        Some(Compared {
            ours: task(self)?,
            teacher: teacher.and_then(&task),
            baseline: baseline.and_then(task),
            transparency: self.transparency,
            measured: self.measured.as_ref(),
        })
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, scores) in &self.retrieval {
            let Some(compared) = self.compare(|report| report.retrieval(name)) else { continue };
            let name = if name == "retrieval" { String::new() } else { format!(" on {name}") };
            let title = format!("Retrieval{name}, {} captions, {} images", scores.captions, scores.images);
            heading(f, &title, compared.ours.text_to_image.at.name)?;
            for (name, way) in [
                ("text to image", (|scores| &scores.text_to_image) as fn(&RetrievalScores) -> &Ranking),
                ("image to text", |scores| &scores.image_to_text),
            ] {
                rows(f, name, &compared, |scores| (&way(scores).at, &way(scores).ci95))?;
                further(f, way(compared.ours))?;
            }
            writeln!(f)?;
        }
        if let Some(compared) = self.compare(|report| report.classification.as_ref()) {
            let ClassificationScores { images, classes, skipped, .. } = compared.ours;
            let mut title = format!("Classification, {images} images, {classes} classes");
            if *skipped > 0 {
                write!(title, ", {skipped} skipped")?;
            }
            heading(f, &title, compared.ours.accuracy.at.name)?;
            rows(f, "zero-shot", &compared, |scores| (&scores.accuracy.at, &scores.accuracy.ci95))?;
            writeln!(f)?;
        }
        f.write_str("Ties count against the model. Intervals are bootstrapped, 95%.")
    }
}

/// A title on its own line, then the names of the columns.
fn heading(f: &mut fmt::Formatter<'_>, title: &str, measure: &str) -> fmt::Result {
    write!(f, "{title}\n{:26}", "")?;
    KS.iter().try_for_each(|k| write!(f, "{:>13}", format!("{measure}@{k}")))?;
    writeln!(f)
}

fn rows<T: Serialize>(
    f: &mut fmt::Formatter<'_>, name: &str, compared: &Compared<T>, of: impl Fn(&T) -> (&AtK, &Intervals),
) -> fmt::Result {
    let mut row = |name: &str, cells: [String; 3]| {
        write!(f, "  {name:24}")?;
        cells.iter().try_for_each(|cell| write!(f, "{cell:>13}"))?;
        writeln!(f)
    };
    let plain = |at: &AtK| at.values.map(|value| format!("{value:.4}"));
    let (ours, intervals) = of(compared.ours);
    row(name, plain(ours))?;
    row("  interval", intervals_at(ours.name, intervals))?;
    for (scores, name, share_name) in [
        (compared.teacher, "  teacher, in English", "  share of the teacher"),
        (compared.baseline, "  baseline", "  share of the baseline"),
    ] {
        if let Some((theirs, intervals)) = scores.map(&of) {
            row(name, plain(theirs))?;
            row("    interval", intervals_at(theirs.name, intervals))?;
            row(share_name, std::array::from_fn(|k| share(ours.values[k], theirs.values[k])))?;
        }
    }
    Ok(())
}

/// The intervals of the shares called `name`, such as `.450-.512`.
fn intervals_at(name: &str, intervals: &Intervals) -> [String; 3] {
    KS.map(|k| intervals.get(&format!("{name}@{k}")).map_or("-".into(), |[low, high]| format!("{low:.3}-{high:.3}")))
}

/// The figures of ranks that are not shares.
fn further(f: &mut fmt::Formatter<'_>, ranking: &Ranking) -> fmt::Result {
    let interval = |name: &str, digits: usize| {
        let [low, high] = ranking.ci95.get(name).unwrap_or([f64::NAN; 2]);
        format!("[{low:.digits$}, {high:.digits$}]")
    };
    let (median, mean, mrr) = (ranking.median_rank, ranking.mean_rank, ranking.mrr);
    writeln!(
        f,
        "    rank: median {median} {}, mean {mean:.2} {}",
        interval("median_rank", 1),
        interval("mean_rank", 2)
    )?;
    writeln!(f, "    MRR: {mrr:.3} {}", interval("mrr", 3))
}

fn share(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 { format!("{:.1}%", 100.0 * ours / theirs) } else { "-".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::classification::ClassRanks;
    use crate::eval::relevance::Relevance;
    use crate::eval::retrieval::RetrievalRanks;

    fn report() -> Results {
        let ranks = RetrievalRanks { text_to_image: vec![1, 2, 7, 1], image_to_text: vec![1, 3, 20, 11] };
        let relevance = Relevance::new(4, (0..4).map(|i| vec![i]).collect()).expect("pairs");
        let ours = Results {
            retrieval: vec![("retrieval".into(), RetrievalScores::new(ranks, &relevance))],
            classification: Some(ClassificationScores::new(ClassRanks {
                ranks: vec![1, 2, 7, 1],
                kept: vec![0, 1, 2, 3],
                classes: 1000,
                skipped: 0,
            })),
            ..Results::default()
        };
        Results { teacher: Some(Box::new(ours.clone())), ..ours }
    }

    /// The scores of a task as JSON, without what differs from one number of resamples to another.
    fn stable(mut scores: serde_json::Value) -> String {
        for way in ["text_to_image", "image_to_text"] {
            if let Some(way) = scores.get_mut(way).and_then(|way| way.as_object_mut()) {
                assert!(way["ci95"]["recall@1"].is_array() && way["wilson95"]["recall@1"].is_array());
                way.retain(|key, _| !key.ends_with("95"));
            }
        }
        scores.as_object_mut().expect("an object").retain(|key, _| !key.ends_with("95"));
        scores.to_string()
    }

    const RETRIEVAL: &str = concat!(
        r#"{"text_to_image":{"recall@1":0.5,"recall@5":0.75,"recall@10":1.0,"median_rank":1.5,"mean_rank":2.75,"#,
        r#""mrr":0.6607142857142857},"image_to_text":{"recall@1":0.25,"recall@5":0.5,"recall@10":0.5,"#,
        r#""median_rank":7.0,"mean_rank":8.75,"mrr":0.36856060606060603},"images":4,"captions":4}"#
    );
    const CLASSIFICATION: &str = r#"{"accuracy@1":0.5,"accuracy@5":0.75,"accuracy@10":1.0,"images":4,"classes":1000}"#;

    #[test]
    fn json_has_the_documented_form_and_order() -> Result<()> {
        let json = serde_json::to_value(report())?;
        assert_eq!(
            json.as_object().expect("an object").keys().collect::<Vec<_>>(),
            ["retrieval", "classification", "teacher"]
        );
        for report in [&json, &json["teacher"]] {
            assert_eq!(stable(report["retrieval"].clone()), RETRIEVAL);
            assert_eq!(stable(report["classification"].clone()), CLASSIFICATION);
        }
        assert_eq!(serde_json::from_str::<serde_json::Value>(&report().to_json()?)?, json);
        Ok(())
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let baseline = Some(Box::new(Results { teacher: None, ..report() }));
        let text = Results { baseline, ..report() }.to_string();
        println!("{text}");
        assert_eq!(text.matches("share of the baseline").count(), 3);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("Ties count against the model") && text.contains("100.0%"));
        assert!(!Results { teacher: None, ..report() }.to_string().contains("teacher"));
    }

    #[test]
    fn files_hold_the_teacher_and_replace_the_old() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let folder = dir.path().join("eval");
        for report in [Results { teacher: None, ..report() }, report()] {
            assert!(report.write(&folder).is_empty());
        }
        for (name, scores) in [("retrieval", RETRIEVAL), ("classification", CLASSIFICATION)] {
            let mut written: serde_json::Value =
                serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json")))?)?;
            let teacher = written.as_object_mut().and_then(|scores| scores.shift_remove("teacher"));
            assert_eq!((stable(teacher.expect("a teacher")), stable(written)), (scores.into(), scores.into()));
        }
        assert_eq!(std::fs::read_dir(&folder)?.count(), 2);
        std::fs::write(dir.path().join("file"), "")?;
        let unwritten = report().write(&dir.path().join("file"));
        for (error, name) in unwritten.iter().zip(["retrieval.json", "classification.json"]) {
            assert!(error.to_string().contains(name) && error.advice().is_some_and(|hint| !hint.contains("--")));
        }
        assert_eq!(unwritten.len(), 2);

        // What stands in the way of one file keeps the other from nothing.
        std::fs::create_dir(dir.path().join("retrieval.json"))?;
        assert_eq!(report().write(dir.path()).len(), 1);
        assert!(dir.path().join("classification.json").is_file());
        Ok(())
    }
}
