//! The figures of an evaluation, as one JSON object, as a table for a terminal, and as files in the run folder; and what
//! others published.

pub mod published;

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::data::image::Transparency;
use crate::error::Result;
use crate::eval::Results;
use crate::eval::classification::ClassificationScores;
use crate::eval::metrics::{AtK, KS};
use crate::fs::write_json;

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
}

impl Results {
    /// The whole report as indented JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `retrieval.json` and `classification.json` into `folder`, if they were measured. A crash leaves the old file
    /// or the new one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        if let Some(compared) = self.compare(|report| report.retrieval.as_ref()) {
            write_json(&folder.join("retrieval.json"), &compared)?;
        }
        if let Some(compared) = self.compare(|report| report.classification.as_ref()) {
            write_json(&folder.join("classification.json"), &compared)?;
        }
        Ok(())
    }

    /// The scores of one task, if it was measured.
    fn compare<T: Serialize>(&self, task: impl Fn(&Self) -> Option<&T>) -> Option<Compared<'_, T>> {
        let (teacher, baseline) = (self.teacher.as_deref(), self.baseline.as_deref());
        Some(Compared {
            ours: task(self)?,
            teacher: teacher.and_then(&task),
            baseline: baseline.and_then(task),
            transparency: self.transparency,
        })
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(compared) = self.compare(|report| report.retrieval.as_ref()) {
            let title = format!("Retrieval, {} captions, {} images", compared.ours.captions, compared.ours.images);
            heading(f, &title, compared.ours.text_to_image.name)?;
            rows(f, "text to image", &compared, |scores| &scores.text_to_image)?;
            rows(f, "image to text", &compared, |scores| &scores.image_to_text)?;
            writeln!(f)?;
        }
        if let Some(compared) = self.compare(|report| report.classification.as_ref()) {
            let ClassificationScores { images, classes, skipped, .. } = compared.ours;
            let mut title = format!("Classification, {images} images, {classes} classes");
            if *skipped > 0 {
                write!(title, ", {skipped} skipped")?;
            }
            heading(f, &title, compared.ours.accuracy.name)?;
            rows(f, "zero-shot", &compared, |scores| &scores.accuracy)?;
            writeln!(f)?;
        }
        f.write_str("Ties count against the model.")
    }
}

/// A title on its own line, then the names of the columns.
fn heading(f: &mut fmt::Formatter<'_>, title: &str, measure: &str) -> fmt::Result {
    write!(f, "{title}\n{:26}", "")?;
    KS.iter().try_for_each(|k| write!(f, "{:>13}", format!("{measure}@{k}")))?;
    writeln!(f)
}

fn rows<T: Serialize>(
    f: &mut fmt::Formatter<'_>, name: &str, compared: &Compared<T>, at: impl Fn(&T) -> &AtK,
) -> fmt::Result {
    let mut row = |name: &str, cells: [String; 3]| {
        write!(f, "  {name:24}")?;
        cells.iter().try_for_each(|cell| write!(f, "{cell:>13}"))?;
        writeln!(f)
    };
    let plain = |at: &AtK| at.values.map(|value| format!("{value:.4}"));
    let ours = at(compared.ours);
    row(name, plain(ours))?;
    for (scores, name, share_name) in [
        (compared.teacher, "  teacher, in English", "  share of the teacher"),
        (compared.baseline, "  baseline", "  share of the baseline"),
    ] {
        if let Some(theirs) = scores.map(&at) {
            row(name, plain(theirs))?;
            row(share_name, std::array::from_fn(|k| share(ours.values[k], theirs.values[k])))?;
        }
    }
    Ok(())
}

fn share(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 { format!("{:.1}%", 100.0 * ours / theirs) } else { "-".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::retrieval::RetrievalScores;

    fn report() -> Results {
        let ours = Results {
            retrieval: Some(RetrievalScores {
                text_to_image: AtK { name: "recall", values: [0.5, 0.75, 1.0] },
                image_to_text: AtK { name: "recall", values: [0.25, 0.5, 0.5] },
                images: 1000,
                captions: 1000,
            }),
            classification: Some(ClassificationScores {
                accuracy: AtK { name: "accuracy", values: [0.5, 0.75, 1.0] },
                images: 50_000,
                classes: 1000,
                skipped: 0,
            }),
            ..Results::default()
        };
        Results { teacher: Some(Box::new(ours.clone())), ..ours }
    }

    const RETRIEVAL: &str = concat!(
        r#"{"text_to_image":{"recall@1":0.5,"recall@5":0.75,"recall@10":1.0},"#,
        r#""image_to_text":{"recall@1":0.25,"recall@5":0.5,"recall@10":0.5},"images":1000,"captions":1000}"#
    );
    const CLASSIFICATION: &str =
        r#"{"accuracy@1":0.5,"accuracy@5":0.75,"accuracy@10":1.0,"images":50000,"classes":1000}"#;

    #[test]
    fn json_has_the_documented_form_and_order() -> Result<()> {
        let alone = Results { teacher: None, ..report() };
        let both = format!(r#""retrieval":{RETRIEVAL},"classification":{CLASSIFICATION}"#);
        assert_eq!(serde_json::to_string(&alone)?, format!("{{{both}}}"));
        assert_eq!(serde_json::to_string(&report())?, format!(r#"{{{both},"teacher":{{{both}}}}}"#));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&report().to_json()?)?, serde_json::to_value(report())?);
        Ok(())
    }

    #[test]
    fn scores_are_read_back_as_they_were() -> Result<()> {
        let Results { retrieval, classification, .. } = report();
        assert_eq!(serde_json::from_str::<RetrievalScores>(RETRIEVAL).ok(), retrieval);
        assert_eq!(serde_json::from_str::<ClassificationScores>(CLASSIFICATION).ok(), classification);
        for share in (0..240).map(|n| n as f64 / 240.0) {
            let at = AtK { name: "recall", values: [share; 3] };
            assert_eq!(serde_json::from_str::<AtK>(&serde_json::to_string(&at)?)?, at);
        }
        assert!(serde_json::from_str::<AtK>(r#"{"recall@1":0.5}"#).is_err());
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
            report.write(&folder)?;
        }
        let compact = |name: &str| -> Result<String> {
            let value: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join(name))?)?;
            Ok(value.to_string())
        };
        let with_teacher = |scores: &str| format!(r#"{},"teacher":{scores}}}"#, &scores[..scores.len() - 1]);
        assert_eq!(compact("retrieval.json")?, with_teacher(RETRIEVAL));
        assert_eq!(compact("classification.json")?, with_teacher(CLASSIFICATION));
        assert_eq!(std::fs::read_dir(&folder)?.count(), 2);
        std::fs::write(dir.path().join("file"), "")?;
        let error = report().write(&dir.path().join("file")).expect_err("not a folder");
        assert!(error.to_string().contains("retrieval.json") && error.advice().is_some(), "{error}");
        Ok(())
    }
}
