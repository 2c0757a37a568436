//! Images with captions, for retrieval: several captions an image, and several images a caption.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;

use super::first_few;
use crate::error::{Error, Result, ResultExt};

/// A retrieval set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captioned {
    /// The captions, in the order of the file.
    pub captions: Vec<String>,
    /// The images, each once, in the order of their first caption.
    pub images: Vec<PathBuf>,
    /// For each caption the indices of its images.
    pub images_of: Vec<Vec<usize>>,
}

impl Captioned {
    /// The set of `rows`, each an image and a caption of it. Where equal captions are `merged`, they are one caption of
    /// several images; else each is a query of its own.
    pub fn new(rows: Vec<(PathBuf, String)>, merged: bool) -> Self {
        let mut set = Self { captions: Vec::new(), images: Vec::new(), images_of: Vec::new() };
        let (mut known_images, mut known_captions) = (HashMap::new(), HashMap::new());
        for (path, caption) in rows {
            let image = *known_images.entry(path).or_insert_with_key(|path: &PathBuf| {
                set.images.push(path.clone());
                set.images.len() - 1
            });
            let known = known_captions.get(&caption).copied().filter(|_| merged);
            let place = known.unwrap_or_else(|| {
                known_captions.insert(caption.clone(), set.captions.len());
                set.captions.push(caption);
                set.images_of.push(Vec::new());
                set.captions.len() - 1
            });
            if !set.images_of[place].contains(&image) {
                set.images_of[place].push(image);
            }
        }
        set
    }

    /// The captions all of whose images `are_wanted`, and these images.
    pub fn only(self, are_wanted: impl Fn(&Path) -> bool) -> Self {
        let rows = self.captions.into_iter().zip(self.images_of).flat_map(|(caption, images)| {
            let paths: Vec<PathBuf> = images.iter().map(|image| self.images[*image].clone()).collect();
            let all = paths.iter().all(|path| are_wanted(path));
            paths.into_iter().filter(move |_| all).map(move |path| (path, caption.clone()))
        });
        Self::new(rows.collect(), false)
    }

    /// Refuses a set without captions, and one whose images are not there; `source` names the file of captions.
    pub fn checked(self, source: &Path, hint: &str) -> Result<Self> {
        if self.captions.is_empty() {
            return Err(Error::new(format!("{}: no caption", source.display())).hint(hint));
        }
        let missing: Vec<_> =
            self.images.par_iter().filter(|path| !path.is_file()).map(|path| path.display()).collect();
        match missing.len() {
            0 => Ok(self),
            n => Err(Error::new(format!(
                "{n} of the {} images of {} are not there: {}",
                self.images.len(),
                source.display(),
                first_few(&missing)
            )))
            .hint(|| hint),
        }
    }
}

/// `name` within `folder`; a name that leads out of it is refused. Names come from a file.
pub fn within(folder: &Path, name: &str) -> std::result::Result<PathBuf, String> {
    let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match !name.is_empty() && Path::new(name).components().all(is_plain) {
        true => Ok(folder.join(name)),
        false => Err(format!("{name:?} is no name of an image within {}", folder.display())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with the files `names`, and `captions` as a file `name`.
    pub fn world(images: &[&str], name: &str, captions: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        for image in images {
            let path = dir.path().join(image);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let path = dir.path().join(name);
        std::fs::write(&path, captions).expect("written");
        (dir, path)
    }

    /// That `read` fails with `part`, the place and advice.
    pub fn refused(read: Result<Captioned>, part: &str) {
        let error = read.expect_err(part);
        assert!(error.to_string().contains(part) && error.advice().is_some(), "{error} lacks {part}");
    }

    #[test]
    fn captions_and_images_are_many_to_many() {
        let rows =
            || ["a.jpg x", "a.jpg y", "b.jpg x", "a.jpg x", "c.jpg z"].map(|row| row.split_once(' ').expect("two"));
        let rows = || rows().map(|(image, caption)| (PathBuf::from(image), caption.to_owned())).to_vec();
        let merged = Captioned::new(rows(), true);
        assert_eq!(
            (merged.captions, merged.images_of),
            (["x", "y", "z"].map(String::from).to_vec(), vec![vec![0, 1], vec![0], vec![2]])
        );
        let single = Captioned::new(rows(), false);
        assert_eq!(single.images_of, [[0], [0], [1], [0], [2]]);
        assert_eq!(single.images, ["a.jpg", "b.jpg", "c.jpg"].map(PathBuf::from));
    }

    #[test]
    fn names_stay_within_their_folder() {
        for name in ["", "../a.jpg", "/etc/passwd", "a/../../b"] {
            assert!(within(Path::new("x"), name).is_err(), "{name}");
        }
        assert_eq!(within(Path::new("x"), "a/b.jpg"), Ok(PathBuf::from("x/a/b.jpg")));
    }
}
