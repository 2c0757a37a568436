//! XTD10 (Aggarwal & Kale 2020, <https://github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10>): captions in
//! several languages, each of one MSCOCO-2014 image. Line i of a caption file belongs to line i of the image names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{first_few, text::read_lines};
use crate::download::{Client, Digest, Expected, Patience, human_bytes, is_offline};
use crate::error::{Error, Result, ResultExt};

/// The commit that the sizes and hashes below are of.
const CAPTIONS: &str = "https://raw.githubusercontent.com/adobe-research/Cross-lingual-Test-Dataset-XTD10/\
                        d77ff16148468c84287f3efcbf602a015c5e4954/XTD10";
const IMAGES: &str = "https://users.dcc.uchile.cl/~gchapero/datasets/coco_xtd10.tar.gz";

/// What is fetched when it is missing: name, bytes, SHA-256.
const FILES: [Pinned; 3] = [
    (NAMES, 31_600, "504a472dfd40e44f2d0facd6320b9dc1c7d64c58aac9840f0b1da4807cb3a30a"),
    ("test_1kcaptions_es.txt", 66_315, "cacc43d4e7af56b02033865531ea70494049f1d0dd3ea89ff2a217e7e190c4f2"),
    ("test_1kcaptions_en.txt", 65_828, "ac5531b6842c1d469fba80aa6f44e2af054e84a41da8f9eaf01d831e943039b9"),
];
const NAMES: &str = "test_image_names.txt";

/// A file's name, its length in bytes and its SHA-256.
pub type Pinned = (&'static str, u64, &'static str);

/// Where missing files come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// What they must be.
    pub files: Vec<Pinned>,
    /// The address of the folder that holds them.
    pub base: String,
    /// Nothing may be fetched.
    pub offline: bool,
}

impl Source {
    /// XTD10's own repository, or the mirror that `THEMO_XTD10_URL` names; nothing where `HF_HUB_OFFLINE` is set.
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let base = var("THEMO_XTD10_URL").unwrap_or_else(|| CAPTIONS.to_owned());
        Self { files: FILES.to_vec(), base: base.trim_end_matches('/').to_owned(), offline: is_offline(&var) }
    }
}

/// Fetches the image names and the captions in `languages` into `data_dir/xtd10` as far as they are missing there.
/// Beside files of another set (the demo's), or into a data folder that does not exist, nothing is fetched: [`load`]
/// reports what is missing.
pub fn fetch_missing(data_dir: &Path, languages: &[&str], source: &Source) -> Result<()> {
    let folder = data_dir.join("xtd10");
    let bytes_of = |file: &str| std::fs::metadata(folder.join(file)).ok().map(|metadata| metadata.len());
    let wanted = |file: &str| file == NAMES || languages.iter().any(|language| file == captions_file(language));
    let missing: Vec<_> = source.files.iter().filter(|(file, ..)| wanted(file) && bytes_of(file).is_none()).collect();
    let another_set = source.files.iter().any(|(file, bytes, _)| bytes_of(file).is_some_and(|found| found != *bytes));
    if missing.is_empty() || another_set || !data_dir.is_dir() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(file, ..)| *file).collect();
    let by_hand = || {
        let all: Vec<_> = names.iter().map(|file| format!("\n  {CAPTIONS}/{file}")).collect();
        format!("fetch these files and put them into {}:{}", folder.display(), all.concat())
    };
    if source.offline {
        let what = format!("not in {}, and HF_HUB_OFFLINE is set: {}", folder.display(), names.join(", "));
        return Err(Error::new(what).hint(by_hand()));
    }
    std::fs::create_dir_all(&folder).context(|| format!("cannot create {}", folder.display()))?;
    let client = Client::new(Patience::default(), &source.base, None);
    for (file, bytes, sha256) in missing {
        let url = format!("{}/{file}", source.base);
        tracing::info!("fetching {url} ({}) into {}", human_bytes(*bytes), folder.display());
        let part = folder.join(format!(".{file}.{}.part", std::process::id()));
        let expected = Expected { bytes: Some(*bytes), digest: Some(Digest::Sha256((*sha256).to_owned())) };
        let fetched = client.fetch(&url, &part, &expected, &|_, _| {}).map_err(Error::from);
        let done = fetched.and_then(|()| Ok(std::fs::rename(&part, folder.join(file))?));
        done.inspect_err(|_| drop(std::fs::remove_file(&part)))
            .map_err(|e| Error::new(e.to_string()).context("cannot fetch XTD10's captions").hint(by_hand()))?;
    }
    Ok(())
}

fn captions_file(language: &str) -> String {
    format!("test_1kcaptions_{language}.txt")
}

/// A retrieval set: `captions[i]` describes `images[image_of[i]]`.
#[derive(Clone, Debug)]
pub struct Retrieval {
    /// One caption a line of the caption file.
    pub captions: Vec<String>,
    /// The images, each once, in the order of their first caption. All were there when read.
    pub images: Vec<PathBuf>,
    /// For each caption the index of its image.
    pub image_of: Vec<usize>,
}

/// Reads the captions in `language` (`es`, `en`, ...) from `data_dir/xtd10` and finds their images in
/// `data_dir/mscoco/{train2014,val2014}`, where any other files are ignored.
pub fn load(data_dir: &Path, language: &str) -> Result<Retrieval> {
    let folder = data_dir.join("xtd10");
    let read = |file: String| {
        read_lines(&folder.join(&file)).hint(|| format!("fetch {CAPTIONS}/{file} into {}", folder.display()))
    };
    let captions = read(captions_file(language))?;
    let names = read(NAMES.into())?;
    if captions.len() != names.len() {
        let (c, n) = (captions.len(), names.len());
        let what = format!("{}: {c} captions in {language}, but {n} image names", folder.display());
        return Err(Error::new(what).hint(format!("fetch both files again from {CAPTIONS}/")));
    }
    let (mut images, mut seen) = (Vec::new(), HashMap::new());
    let mut image_of = Vec::with_capacity(names.len());
    for (line, name) in names.iter().map(|name| name.trim()).enumerate() {
        let Some(split) = split_of(name) else {
            let path = folder.join(NAMES);
            let what = format!("{}, line {}: {name:?} is no MSCOCO image name", path.display(), line + 1);
            return Err(Error::new(what).hint("names look like COCO_val2014_000000123456.jpg; fetch the file again"));
        };
        image_of.push(*seen.entry(name).or_insert_with(|| {
            images.push(data_dir.join("mscoco").join(split).join(name));
            images.len() - 1
        }));
    }
    let missing: Vec<_> = images.par_iter().filter(|path| !path.is_file()).map(|path| path.display()).collect();
    if !missing.is_empty() {
        let what = format!("{} of {} XTD10 images are missing: {}", missing.len(), images.len(), first_few(&missing));
        return Err(Error::new(what).hint(format!("unpack {IMAGES} into {}", data_dir.join("mscoco").display())));
    }
    Ok(Retrieval { captions, images, image_of })
}

/// The MSCOCO folder that an image name belongs to. Names come from a file: nothing that could leave that folder is accepted.
fn split_of(name: &str) -> Option<&'static str> {
    let (split, rest) = ["train2014", "val2014"]
        .into_iter()
        .find_map(|split| Some((split, name.strip_prefix("COCO_")?.strip_prefix(split)?.strip_prefix('_')?)))?;
    let stem = rest.strip_suffix(".jpg")?;
    (!stem.is_empty() && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')).then_some(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo")
    }

    fn world(captions: &str, names: &str, images: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let write = |path: String, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("xtd10/test_1kcaptions_es.txt".into(), captions);
        write("xtd10/test_image_names.txt".into(), names);
        images.iter().for_each(|image| write(format!("mscoco/{image}"), ""));
        dir
    }

    #[test]
    fn demo_is_read_in_both_languages() -> Result<()> {
        for language in ["es", "en"] {
            let set = load(&demo(), language)?;
            assert_eq!((set.captions.len(), set.images.len()), (240, 240));
            assert!(set.image_of.iter().copied().eq(0..240));
            assert!(set.captions.iter().all(|c| !c.ends_with(['\r', '\n'])));
            let val = set.images.iter().filter(|p| p.parent().is_some_and(|p| p.ends_with("mscoco/val2014"))).count();
            assert_eq!(val, 48);
        }
        Ok(())
    }

    #[test]
    fn repeated_names_are_one_image() -> Result<()> {
        let names = "COCO_val2014_1.jpg\nCOCO_train2014_2.jpg\r\nCOCO_val2014_1.jpg\n\n";
        let dir = world("a\r\nb\r\nc", names, &["val2014/COCO_val2014_1.jpg", "train2014/COCO_train2014_2.jpg"]);
        let set = load(dir.path(), "es")?;
        assert_eq!((set.images.len(), set.image_of), (2, vec![0, 1, 0]));
        Ok(())
    }

    #[test]
    fn broken_sets_are_refused() {
        let good = "COCO_val2014_1.jpg\nCOCO_val2014_2.jpg\n";
        for (captions, names, part) in [
            ("a\nb\n", good, "2 of 2 XTD10 images are missing"),
            ("a\n", good, "1 captions in es, but 2 image names"),
            ("a\n\nb\n", good, "line 2: empty"),
            ("a\n", "COCO_val2014_../../../etc/passwd.jpg\n", "no MSCOCO image name"),
            ("a\n", "/etc/passwd\n", "no MSCOCO image name"),
            ("a\n", "COCO_test2014_1.jpg\n", "no MSCOCO image name"),
        ] {
            let dir = world(captions, names, &[]);
            let error = load(dir.path(), "es").expect_err(part);
            assert!(error.to_string().contains(part) && error.advice().is_some(), "{error} lacks {part}");
        }
        let error = load(Path::new("/nowhere"), "es").expect_err("no folder");
        assert!(error.to_string().contains("/nowhere/xtd10/test_1kcaptions_es.txt"), "{error}");
        assert!(error.advice().is_some_and(|hint| hint.contains(CAPTIONS)));
    }
}
