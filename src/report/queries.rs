//! The rank of every query, `eval/SET.queries.tsv`: what a comparison needs, without any model.
//!
//! The columns are `query`, `target`, `rank` (1 is the best), `task` and `cluster` (queries of one number share an image,
//! and are drawn together). Tabs and line ends within a caption are written as spaces.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, ResultExt};
use crate::eval::classification::ClassRanks;
use crate::eval::retrieval::RetrievalRanks;
use crate::eval::retrieval_sets::RetrievalSet;
use crate::eval::suite::ClassificationSet;
use crate::eval::{Language, Results, Suite};
use crate::fs::{write_atomic_with, write_error};

const HEADER: &str = "query\ttarget\trank\ttask\tcluster";

/// The end of the names of these files.
pub const SUFFIX: &str = ".queries.tsv";

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// A caption or the name of an image.
    pub query: String,
    /// What it looks for: names of images, captions or prompts, several of them with ` | ` between.
    pub target: String,
    /// The rank of the best of its targets; 1 is the best.
    pub rank: usize,
    /// `text_to_image`, `image_to_text` or `classification`.
    pub task: String,
    /// Queries with the same number depend on each other.
    pub cluster: usize,
}

/// Writes `SET.queries.tsv` into `folder` for each set that was measured (`retrieval`, `classification`), and beside them
/// those of the teacher and the baseline, `SET.teacher.queries.tsv` and `SET.baseline.queries.tsv`.
pub fn write(sets: &Suite, results: &Results, folder: &Path) -> Result<()> {
    let (teacher, baseline) = (results.teacher.as_deref(), results.baseline.as_deref());
    for (whose, results, language) in [
        ("", Some(results), Language::Spanish),
        (".teacher", teacher, Language::English),
        (".baseline", baseline, Language::Spanish),
    ] {
        let retrieval = sets.retrieval.iter().map(|set| {
            let scores = results.and_then(|results| results.retrieval(set.name()));
            (set.name(), scores.map(|scores| of_retrieval(set, &scores.ranks, language)))
        });
        let classification = sets.classification.as_ref().map(|set| {
            let scores = results.and_then(|results| results.classification.as_ref());
            ("classification", scores.map(|scores| of_classification(set, &scores.ranks, language)))
        });
        for (set, queries) in retrieval.chain(classification) {
            let path = folder.join(format!("{set}{whose}{SUFFIX}"));
            match queries {
                Some(queries) => write_file(&path, &queries)?,
                None => remove(&path)?, // of an earlier test, whose figures were replaced
            }
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(write_error(path, e)),
        _ => Ok(()),
    }
}

fn of_retrieval(set: &RetrievalSet, ranks: &RetrievalRanks, language: Language) -> Vec<Query> {
    let (captions, images, relevance) = (set.captions(language), names(set.images()), set.relevance(language));
    let join = |names: &[String], chosen: &[usize]| {
        chosen.iter().map(|i| one_line(&names[*i])).collect::<Vec<_>>().join(" | ")
    };
    let line = |task: &str, query: &str, target: String, rank: usize, cluster: usize| Query {
        query: one_line(query),
        target,
        rank,
        task: task.to_owned(),
        cluster,
    };
    let clusters = relevance.caption_clusters();
    let texts = ranks.text_to_image.iter().enumerate().map(|(i, rank)| {
        line("text_to_image", &captions[i], join(&images, &relevance.images_of[i]), *rank, clusters[i])
    });
    let clusters = relevance.image_clusters();
    let pictures = ranks.image_to_text.iter().enumerate().map(|(i, rank)| {
        line("image_to_text", &images[i], join(captions, &relevance.captions_of[i]), *rank, clusters[i])
    });
    texts.chain(pictures).collect()
}

fn of_classification(set: &ClassificationSet, ranks: &ClassRanks, language: Language) -> Vec<Query> {
    let ((paths, labels), prompts) = (set.images(), set.prompts(language));
    let images = names(paths);
    let line = |(rank, &image): (&usize, &usize)| Query {
        query: images[image].clone(),
        target: labels[image].iter().map(|class| one_line(&prompts[*class])).collect::<Vec<_>>().join(" | "),
        rank: *rank,
        task: "classification".to_owned(),
        cluster: image,
    };
    ranks.ranks.iter().zip(&ranks.kept).map(line).collect()
}

/// The paths from the last folder that holds all of them, the same on every machine.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let mut common = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
    for path in paths {
        while !path.starts_with(common) {
            common = common.parent().unwrap_or(Path::new(""));
        }
    }
    let name = |path: &PathBuf| one_line(&path.strip_prefix(common).unwrap_or(path).to_string_lossy());
    paths.iter().map(name).collect()
}

fn one_line(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

fn write_file(path: &Path, queries: &[Query]) -> Result<()> {
    write_atomic_with(path, |file| {
        writeln!(file, "{HEADER}")?;
        for Query { query, target, rank, task, cluster } in queries {
            writeln!(file, "{query}\t{target}\t{rank}\t{task}\t{cluster}")?;
        }
        Ok(())
    })
}

/// Reads a file that [`write()`] wrote.
pub fn read(path: &Path) -> Result<Vec<Query>> {
    let again = || "`themo test` writes this file: test the run again";
    let text = std::fs::read_to_string(path).context(|| format!("cannot read {}", path.display())).hint(again)?;
    let mut lines = text.lines();
    let wrong =
        |line: usize, what: String| Err(Error::new(format!("{}, line {line}: {what}", path.display()))).hint(again);
    let header = lines.next().unwrap_or_default();
    if header != HEADER {
        let expected = HEADER.replace('\t', ", ");
        return wrong(1, format!("the columns are {:?}, not {expected}", header.replace('\t', ", ")));
    }
    let mut queries = Vec::new();
    for (number, line) in lines.enumerate().map(|(i, line)| (i + 2, line)) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [query, target, rank, task, cluster] = fields[..] else {
            return wrong(number, format!("{} fields, not 5", fields.len()));
        };
        let (Some(rank), Ok(cluster)) = (rank.parse().ok().filter(|rank| *rank > 0), cluster.parse()) else {
            return wrong(number, format!("rank {rank:?} and cluster {cluster:?}: a rank is a whole number from 1"));
        };
        if !["text_to_image", "image_to_text", "classification"].contains(&task) {
            return wrong(number, format!("the task is {task:?}: text_to_image, image_to_text or classification"));
        }
        queries.push(Query { query: query.into(), target: target.into(), rank, task: task.into(), cluster });
    }
    if queries.is_empty() {
        return wrong(2, "no query".into());
    }
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_named() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("own.queries.tsv");
        let query = |query: &str, rank, cluster| Query {
            query: one_line(query),
            target: "b.jpg".into(),
            rank,
            task: "text_to_image".into(),
            cluster,
        };
        let queries = [query("una luna\tazul", 1, 0), query("\"dos\" lunas", 17, 4)];
        write_file(&path, &queries)?;
        assert_eq!(read(&path)?, queries);
        let text = std::fs::read_to_string(&path)?;
        assert!(text.starts_with("query\ttarget\trank\ttask\tcluster\nuna luna azul\tb.jpg\t1\t"), "{text}");
        for (from, to, part) in [
            ("rank", "place", "line 1: the columns are"),
            ("\t17\t", "\t0\t", "line 3: rank \"0\""),
            ("\t17\t", "\t17.5\t", "line 3: rank \"17.5\""),
            ("\t17\t", "\t", "line 3: 4 fields, not 5"),
            ("text_to_image\t0", "text\t0", "line 2: the task is \"text\""),
        ] {
            std::fs::write(&path, text.replacen(from, to, 1))?;
            let error = read(&path).expect_err(part);
            assert!(error.to_string().contains(part) && error.advice().is_some(), "{error} lacks {part}");
        }
        std::fs::write(&path, format!("{HEADER}\n"))?;
        assert!(read(&path).expect_err("empty").to_string().contains("no query"));
        Ok(())
    }

    #[test]
    fn names_are_the_same_in_every_data_folder() {
        let paths = |root: &str| ["val/1.jpg", "val/2.jpg", "train/1.jpg"].map(|name| Path::new(root).join(name));
        assert_eq!(names(&paths("/a/b")), ["val/1.jpg", "val/2.jpg", "train/1.jpg"]);
        assert_eq!(names(&paths("/a/b")), names(&paths("data")));
        assert_eq!(names(&paths("/a")[..2]), ["1.jpg", "2.jpg"]);
    }
}
