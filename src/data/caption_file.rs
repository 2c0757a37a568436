//! One's own captions: a table (`.tsv`, `.txt`) of image TAB caption, or JSON lines (`.jsonl`, `.json`) with the keys
//! `image` and `caption`, each a string or a list of strings. Equal captions are one caption of several images.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::captioned::{Captioned, within};
use super::text::read_lines;
use crate::error::{Error, Result, ResultExt};

const EXPECTED: &str = "each line is an image, a tab and a caption; or, in a file named .jsonl, \
                        {\"image\": \"a.jpg\", \"caption\": \"...\"} (or lists of them)";

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

#[derive(Deserialize)]
struct Line {
    image: OneOrMany,
    caption: OneOrMany,
}

/// The captions in `file`, of images in the folder `images`.
pub fn load(file: &Path, images: &Path) -> Result<Captioned> {
    let is_json = file.extension().is_some_and(|end| end == "jsonl" || end == "json");
    let mut rows: Vec<(PathBuf, String)> = Vec::new();
    let lines = read_lines(file).hint(|| "--captions takes lines of an image, a tab and a caption, or JSON lines")?;
    for (number, line) in lines.iter().enumerate() {
        let parsed = if is_json { from_json(line) } else { from_table(line) };
        let is_header = number == 0 && !is_json && line.eq_ignore_ascii_case("image\tcaption");
        let failed = |e: String| Error::new(format!("{}, line {}: {e}", file.display(), number + 1)).hint(EXPECTED);
        let (names, captions) = match parsed {
            _ if is_header => continue,
            parsed => parsed.map_err(failed)?,
        };
        for name in &names {
            let path = within(images, name).map_err(failed)?;
            rows.extend(captions.iter().map(|caption| (path.clone(), caption.clone())));
        }
    }
    let hint = || format!("--images names the folder of the images; {EXPECTED}");
    Captioned::new(rows, true).checked(file, &hint())
}

fn from_table(line: &str) -> std::result::Result<(Vec<String>, Vec<String>), String> {
    let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
    match fields[..] {
        [image, caption] if !caption.is_empty() => Ok((vec![image.to_owned()], vec![caption.to_owned()])),
        [_, _] => Err("the caption is empty".to_owned()),
        _ => Err(format!("{} columns, not 2", fields.len())),
    }
}

fn from_json(line: &str) -> std::result::Result<(Vec<String>, Vec<String>), String> {
    let Line { image, caption } = serde_json::from_str(line).map_err(|e| format!("no image with a caption ({e})"))?;
    let (images, captions) = (image.all(), caption.all());
    match images.is_empty() || captions.is_empty() || captions.iter().any(|caption| caption.trim().is_empty()) {
        true => Err("no image, no caption, or an empty one".to_owned()),
        false => Ok((images, captions)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::captioned::tests::{refused, world};
    use super::*;

    #[test]
    fn tables_and_json_lines_say_the_same() -> Result<()> {
        let images = ["i/a.jpg", "i/b.jpg"];
        let table = "image\tcaption\na.jpg\tuna luna\r\na.jpg\tuna luna azul\nb.jpg\tuna luna\n";
        let json = "{\"image\": [\"a.jpg\", \"b.jpg\"], \"caption\": \"una luna\", \"id\": 7}\n\
                    {\"image\": \"a.jpg\", \"caption\": [\"una luna azul\"]}\n";
        for (name, text) in [("own.tsv", table), ("own.jsonl", json)] {
            let (dir, file) = world(&images, name, text);
            let set = load(&file, &dir.path().join("i"))?;
            let mut said: Vec<_> = set.captions.iter().zip(&set.images_of).collect();
            said.sort();
            assert_eq!(said, [(&"una luna".to_owned(), &vec![0, 1]), (&"una luna azul".to_owned(), &vec![0])]);
        }
        Ok(())
    }

    #[test]
    fn broken_files_are_refused_with_the_line() {
        for (name, text, part) in [
            ("own.tsv", "a.jpg\tx\nb.jpg\n", "own.tsv, line 2: 1 columns, not 2"),
            ("own.tsv", "a.jpg\tx\ty\n", "line 1: 3 columns, not 2"),
            ("own.tsv", "a.jpg\t \n", "line 1: the caption is empty"),
            ("own.tsv", "../a.jpg\tx\n", "line 1: \"../a.jpg\" is no name of an image"),
            ("own.tsv", "a.jpg\tx\nc.jpg\ty\n", "1 of the 2 images"),
            ("own.tsv", "image\tcaption\n", "no caption"),
            ("own.jsonl", "{\"image\": \"a.jpg\"}\n", "line 1: no image with a caption (missing field `caption`"),
            ("own.jsonl", "{\"image\": \"a.jpg\", \"caption\": []}\n", "line 1: no image, no caption"),
            ("own.jsonl", "[\n", "line 1: no image with a caption"),
        ] {
            let (dir, file) = world(&["a.jpg", "b.jpg"], name, text);
            refused(load(&file, dir.path()), part);
        }
    }
}
