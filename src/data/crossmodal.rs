//! Crossmodal-3600 (Thapliyal et al. 2022, <https://google.github.io/crossmodal-3600/>): `captions.jsonl`, an image a
//! line, `{"image/key": "000411001ff7dd4f", "es": {"caption": ["...", "..."], ...}, ...}`, and `images/KEY.jpg`.

use std::path::Path;

use serde_json::Value;

use super::captioned::{Captioned, within};
use super::text::read_lines;
use crate::error::{Error, Result, ResultExt};

/// The captions in `language` from `folder/captions.jsonl`, of images in `folder/images`. Equal captions stay apart, as
/// in CLIP_benchmark.
pub fn load(folder: &Path, language: &str) -> Result<Captioned> {
    let (file, images) = (folder.join("captions.jsonl"), folder.join("images"));
    let fetch = "unpack captions.zip and images.tgz of https://google.github.io/crossmodal-3600/ there";
    let mut rows = Vec::new();
    for (number, line) in read_lines(&file).hint(|| fetch)?.iter().enumerate() {
        let failed = |e: String| {
            Error::new(format!("{}, line {}: {e}", file.display(), number + 1))
                .hint("each line is {\"image/key\": \"...\", \"es\": {\"caption\": [\"...\"]}, ...}; fetch it again")
        };
        let json: Value = serde_json::from_str(line).map_err(|e| failed(format!("no JSON ({e})")))?;
        let key = json["image/key"].as_str().ok_or_else(|| failed("no `image/key`".to_owned()))?;
        let path = within(&images, &format!("{key}.jpg")).map_err(failed)?;
        let captions = json[language]["caption"]
            .as_array()
            .ok_or_else(|| failed(format!("no captions in {language:?}; the languages are {}", languages(&json))))?;
        for caption in captions {
            let caption = caption.as_str().map(str::trim).filter(|caption| !caption.is_empty());
            let caption = caption.ok_or_else(|| failed(format!("a caption in {language:?} is empty or no text")))?;
            rows.push((path.clone(), caption.to_owned()));
        }
    }
    Captioned::new(rows, false).checked(&file, fetch)
}

fn languages(line: &Value) -> String {
    let object = line.as_object().into_iter().flatten();
    object.filter(|(_, value)| value.is_object()).map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::captioned::tests::{refused, world};
    use super::*;

    #[test]
    fn captions_of_a_language_are_read_and_damage_is_named() -> Result<()> {
        let good = concat!(
            r#"{"en": {"caption": ["a moon"], "caption/tokenized": ["a moon"]}, "#,
            r#""es": {"caption": ["una luna", " otra luna "], "caption/tokenized": ["una luna", "otra luna"]}, "#,
            r#""image/key": "0a1", "image/locale": "es"}"#,
            "\n",
            r#"{"en": {"caption": ["a moon"]}, "es": {"caption": ["una luna"]}, "image/key": "0b2", "image/locale": "en"}"#,
            "\n"
        );
        let images = ["images/0a1.jpg", "images/0b2.jpg"];
        let (dir, file) = world(&images, "captions.jsonl", good);
        let set = load(dir.path(), "es")?;
        assert_eq!(set.captions, ["una luna", "otra luna", "una luna"]);
        assert_eq!(set.images_of, [[0], [0], [1]]);
        assert_eq!(load(dir.path(), "en")?.captions.len(), 2);
        refused(load(dir.path(), "fr"), "captions.jsonl, line 1: no captions in \"fr\"; the languages are en, es");
        for (from, to, part) in [
            ("image/key\": \"0b2", "key\": \"0b2", "line 2: no `image/key`"),
            ("0b2", "../0b2", "line 2: \"../0b2.jpg\" is no name"),
            ("0b2", "0b3", "1 of the 2 images"),
            ("[\"una luna\"]}", "[7]}", "line 2: a caption in \"es\" is empty or no text"),
            ("{\"en\": {\"caption\": [\"a moon\"]},", "{", "no captions in \"en\""),
            ("{\"en\"", "\"en\"", "line 1: no JSON"),
        ] {
            std::fs::write(&file, good.replacen(from, to, 1)).expect("written");
            let language = if part.contains("\"en\"") { "en" } else { "es" };
            refused(load(dir.path(), language), part);
        }
        refused(load(Path::new("/nowhere"), "es"), "/nowhere/captions.jsonl");
        Ok(())
    }
}
