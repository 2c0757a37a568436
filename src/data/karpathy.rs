//! Karpathy's splits of COCO and Flickr30k (Karpathy & Fei-Fei 2015): `dataset_coco.json`, `dataset_flickr30k.json`,
//! `{"images": [{"filepath": "val2014", "filename": "...jpg", "split": "test", "sentences": [{"raw": "..."}]}]}`.

use std::path::Path;

use serde::Deserialize;

use super::captioned::{Captioned, within};
use crate::error::{Error, Result, ResultExt};

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    /// The folder, in COCO.
    #[serde(default)]
    filepath: String,
    filename: String,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
}

/// The captions of `split` (`test`, `val`, ...) in `file`, of images in `images` or its folder that the file names. All
/// captions of an image count (in CLIP_benchmark, and here), and equal ones stay apart.
pub fn load(file: &Path, images: &Path, split: &str) -> Result<Captioned> {
    let expected = "the file is {\"images\": [{\"filename\": ..., \"split\": ..., \"sentences\": [{\"raw\": ...}]}]}, \
                    from cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip";
    let bytes = std::fs::read(file).context(|| format!("cannot read {}", file.display())).hint(|| expected)?;
    let failed = |e: String| Error::new(format!("{}: {e}", file.display())).hint(expected);
    let all: File = serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?;
    let mut rows = Vec::new();
    for (number, image) in all.images.into_iter().enumerate().filter(|(_, image)| image.split == split) {
        let folder = within(images, if image.filepath.is_empty() { "." } else { &image.filepath }).map_err(failed)?;
        let path = within(&folder, &image.filename).map_err(failed)?;
        for Sentence { raw } in image.sentences {
            if raw.trim().is_empty() {
                return Err(failed(format!("image {number}, {}: an empty sentence", image.filename)));
            }
            rows.push((path.clone(), raw.trim().to_owned()));
        }
    }
    Captioned::new(rows, false)
        .checked(file, &format!("the images of the split {split:?} belong into {}", images.display()))
}

#[cfg(test)]
mod tests {
    use super::super::captioned::tests::{refused, world};
    use super::*;

    const COCO: &str = r#"{"images": [
        {"filepath": "val2014", "sentids": [1, 2], "filename": "COCO_val2014_1.jpg", "imgid": 0, "split": "test",
         "sentences": [{"tokens": ["a", "moon"], "raw": "A moon.", "imgid": 0, "sentid": 1}, {"raw": "Moon "}], "cocoid": 1},
        {"filepath": "train2014", "filename": "COCO_train2014_2.jpg", "split": "train", "sentences": [{"raw": "A sun."}]}
    ], "dataset": "coco"}"#;

    #[test]
    fn a_split_is_read_and_damage_is_named() -> Result<()> {
        let (dir, file) = world(&["val2014/COCO_val2014_1.jpg"], "dataset_coco.json", COCO);
        let set = load(&file, dir.path(), "test")?;
        assert_eq!(set.captions, ["A moon.", "Moon"]);
        assert_eq!(set.images, [dir.path().join("val2014/COCO_val2014_1.jpg")]);
        refused(load(&file, dir.path(), "train"), "1 of the 1 images");
        refused(load(&file, dir.path(), "restval"), "no caption");
        for (from, to, part) in [
            ("\"raw\": \"A moon.\"", "\"text\": \"A moon.\"", "missing field `raw` at line 3"),
            ("\"split\": \"test\"", "\"part\": \"test\"", "missing field `split`"),
            ("A moon.", " ", "image 0, COCO_val2014_1.jpg: an empty sentence"),
            ("\"val2014\"", "\"../val2014\"", "\"../val2014\" is no name"),
            ("\"dataset\": \"coco\"}", "", "EOF while parsing"),
        ] {
            std::fs::write(&file, COCO.replacen(from, to, 1)).expect("written");
            refused(load(&file, dir.path(), "test"), part);
        }
        // Flickr30k's file has no folders.
        let flickr = COCO.replace("\"filepath\": \"val2014\", ", "");
        let (dir, file) = world(&["COCO_val2014_1.jpg"], "dataset_flickr30k.json", &flickr);
        assert_eq!(load(&file, dir.path(), "test")?.images, [dir.path().join("COCO_val2014_1.jpg")]);
        Ok(())
    }
}
