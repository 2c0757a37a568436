//! The figures of an evaluation, as one JSON object, as a table for a terminal, and as files in the run folder.

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use super::classification::ClassificationScores;
use super::metrics::{AtK, KS};
use super::retrieval::RetrievalScores;
use crate::error::Result;
use crate::run_dir::write_atomic;

/// What was measured, and what the teacher reaches in its own language on the same images. Displays as a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// XTD10 retrieval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<RetrievalScores>,
    /// ImageNet zero-shot classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<ClassificationScores>,
    /// The teacher's figures, the ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<Box<Report>>,
}

/// Scores with the teacher's of the same task beside them.
#[derive(Serialize)]
struct WithTeacher<'a, T: Serialize> {
    #[serde(flatten)]
    ours: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<&'a T>,
}

impl Report {
    /// The whole report as pretty JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Writes `retrieval.json` and `classification.json`, as far as they were measured, into `folder`. Each is written
    /// beside its place and renamed: a crash leaves the old file or the new one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let teacher = self.teacher.as_deref();
        if let Some(ours) = &self.retrieval {
            let teacher = teacher.and_then(|t| t.retrieval.as_ref());
            write_json(&folder.join("retrieval.json"), &WithTeacher { ours, teacher })?;
        }
        if let Some(ours) = &self.classification {
            let teacher = teacher.and_then(|t| t.classification.as_ref());
            write_json(&folder.join("classification.json"), &WithTeacher { ours, teacher })?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let teacher = self.teacher.as_deref();
        if let Some(ours) = &self.retrieval {
            let teacher = teacher.and_then(|t| t.retrieval.as_ref());
            let title = format!("Retrieval, {} captions, {} images", ours.captions, ours.images);
            heading(f, &title, ours.text_to_image.name)?;
            rows(f, "text to image", &ours.text_to_image, teacher.map(|t| &t.text_to_image))?;
            rows(f, "image to text", &ours.image_to_text, teacher.map(|t| &t.image_to_text))?;
            writeln!(f)?;
        }
        if let Some(ours) = &self.classification {
            let teacher = teacher.and_then(|t| t.classification.as_ref());
            let mut title = format!("Classification, {} images, {} classes", ours.images, ours.classes);
            if ours.skipped > 0 {
                write!(title, ", {} skipped", ours.skipped)?;
            }
            heading(f, &title, ours.accuracy.name)?;
            rows(f, "zero-shot", &ours.accuracy, teacher.map(|t| &t.accuracy))?;
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

fn rows(f: &mut fmt::Formatter<'_>, name: &str, ours: &AtK, teacher: Option<&AtK>) -> fmt::Result {
    let mut row = |name: &str, cells: [String; 3]| {
        write!(f, "  {name:24}")?;
        cells.iter().try_for_each(|cell| write!(f, "{cell:>13}"))?;
        writeln!(f)
    };
    let plain = |at: &AtK| at.values.map(|value| format!("{value:.4}"));
    row(name, plain(ours))?;
    if let Some(teacher) = teacher {
        row("  teacher, in English", plain(teacher))?;
        row("  share of the teacher", std::array::from_fn(|k| share(ours.values[k], teacher.values[k])))?;
    }
    Ok(())
}

fn share(ours: f64, teacher: f64) -> String {
    if teacher > 0.0 { format!("{:.1}%", 100.0 * ours / teacher) } else { "-".into() }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let ours = Report {
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
            teacher: None,
        };
        Report { teacher: Some(Box::new(ours.clone())), ..ours }
    }

    const RETRIEVAL: &str = concat!(
        r#"{"text_to_image":{"recall@1":0.5,"recall@5":0.75,"recall@10":1.0},"#,
        r#""image_to_text":{"recall@1":0.25,"recall@5":0.5,"recall@10":0.5},"images":1000,"captions":1000}"#
    );
    const CLASSIFICATION: &str =
        r#"{"accuracy@1":0.5,"accuracy@5":0.75,"accuracy@10":1.0,"images":50000,"classes":1000}"#;

    #[test]
    fn json_has_the_documented_form_and_order() -> Result<()> {
        let alone = Report { teacher: None, ..report() };
        let both = format!(r#""retrieval":{RETRIEVAL},"classification":{CLASSIFICATION}"#);
        assert_eq!(serde_json::to_string(&alone)?, format!("{{{both}}}"));
        assert_eq!(serde_json::to_string(&report())?, format!(r#"{{{both},"teacher":{{{both}}}}}"#));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&report().to_json()?)?, serde_json::to_value(report())?);
        Ok(())
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let text = report().to_string();
        println!("{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("Ties count against the model") && text.contains("100.0%"));
        assert!(!Report { teacher: None, ..report() }.to_string().contains("teacher"));
    }

    #[test]
    fn files_hold_the_teacher_and_replace_the_old() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let folder = dir.path().join("eval");
        for report in [Report { teacher: None, ..report() }, report()] {
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
