//! Where ImageNet's validation images lie, and what is said where they lie elsewhere.

use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use super::first_few;
use crate::error::{Result, ResultExt};

const SOURCE: &str =
    "https://users.dcc.uchile.cl/~gchapero/datasets/imagenet_object_localization_patched2019_val_test_only.tar.gz";

/// The folders of validation images: Kaggle's, and torchvision's.
pub(super) const PLACES: [&str; 2] = ["ILSVRC/Data/CLS-LOC/val", "val"];

/// The images of one folder.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Those in the folder itself, by name without ending.
    pub(super) flat: BTreeMap<String, PathBuf>,
    /// Those in a folder of it, by that folder's name; sorted.
    pub(super) folders: BTreeMap<String, Vec<PathBuf>>,
}

impl Tree {
    /// The images of the first of [`PLACES`] below `root` that has any.
    pub(super) fn find(root: &Path) -> Result<Self> {
        let mut found: Option<(&str, Self)> = None;
        for place in PLACES {
            let folder = root.join(place);
            let tree = if folder.is_dir() { Self::read(&folder)? } else { Self::default() };
            match &found {
                _ if tree.flat.is_empty() && tree.folders.is_empty() => {}
                None => found = Some((place, tree)),
                Some((first, _)) => {
                    let root = root.display();
                    tracing::warn!("there are images in {root}/{first} and {root}/{place}: the former are used");
                }
            }
        }
        Ok(found.map(|(_, tree)| tree).unwrap_or_default())
    }

    fn read(folder: &Path) -> Result<Self> {
        let (mut tree, mut twins) = (Self::default(), 0);
        for (name, entry) in entries(folder, usize::MAX)? {
            if is_dir(&entry) {
                let inside = entries(&entry.path(), usize::MAX)?;
                let mut images: Vec<PathBuf> = inside
                    .into_iter()
                    .filter(|(name, _)| stem(name).is_some())
                    .map(|(_, entry)| entry.path())
                    .collect();
                images.sort();
                if !images.is_empty() {
                    tree.folders.insert(name, images);
                }
            } else if let Some(stem) = stem(&name) {
                twins += usize::from(tree.flat.insert(stem.to_owned(), entry.path()).is_some());
            }
        }
        if twins > 0 {
            tracing::warn!(
                "left out {twins} images in {} that differ from others in the ending only",
                folder.display()
            );
        }
        Ok(tree)
    }
}

/// An image's name without its ending; none for other files.
fn stem(name: &str) -> Option<&str> {
    let (stem, ending) = name.rsplit_once('.')?;
    let known = ["jpeg", "jpg", "png"].iter().any(|known| ending.eq_ignore_ascii_case(known));
    (known && !name.starts_with('.')).then_some(stem)
}

/// At most `most` of a folder's entries, by name, with their names; those that are not UTF-8 are nobody's here.
fn entries(folder: &Path, most: usize) -> Result<Vec<(String, DirEntry)>> {
    let failed = || format!("cannot read the folder {}", folder.display());
    let mut named = Vec::new();
    for entry in std::fs::read_dir(folder).context(failed)?.take(most) {
        let entry = entry.context(failed)?;
        named.extend(entry.file_name().into_string().ok().map(|name| (name, entry)));
    }
    named.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(named)
}

/// Whether an entry is a folder, or a link to one.
fn is_dir(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()))
}

/// The names in `folder` that end with `end`, without it, sorted.
pub(super) fn names_in(folder: &Path, end: &str) -> Result<Vec<String>> {
    let names = entries(folder, usize::MAX)?.into_iter();
    Ok(names.filter_map(|(name, _)| name.strip_suffix(end).map(str::to_owned)).collect())
}

/// The layouts that are read, as a hint.
pub(super) fn wanted(root: &Path) -> String {
    format!(
        "wanted in {} are LOC_synset_mapping.txt (the classes: `wnid name, synonym, ...`) and\n  \
         {}/*.JPEG with ILSVRC/Annotations/CLS-LOC/val/*.xml or LOC_val_solution.csv (Kaggle's layout; unpack {SOURCE} \
         there), or\n  {}/nXXXXXXXX/*.JPEG, a folder a class (torchvision's layout)",
        root.display(),
        PLACES[0],
        PLACES[1]
    )
}

/// What there is below `data_dir` that may be ImageNet.
pub(super) fn found(data_dir: &Path) -> String {
    // A folder of images has thousands of them; the first ones show what it is.
    const ENTRIES: usize = 2000;
    let is_wnid =
        |name: &str| name.len() == 9 && name.starts_with('n') && name[1..].bytes().all(|byte| byte.is_ascii_digit());
    let is_of_other_data = |name: &str| ["cache", "mscoco", "wit", "xtd10"].contains(&name);
    let (mut found, mut next) = (Vec::new(), vec![(data_dir.to_owned(), 0)]);
    while let Some((folder, depth)) = next.pop() {
        let Ok(entries) = entries(&folder, ENTRIES) else { continue };
        let shown = folder.display();
        let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(_, entry)| is_dir(entry));
        let classes = folders.iter().filter(|(name, _)| is_wnid(name)).count();
        let images = files.iter().filter(|(name, _)| stem(name).is_some()).count();
        let mapping = files.iter().any(|(name, _)| name == "LOC_synset_mapping.txt");
        found.extend(mapping.then(|| format!("{shown}/LOC_synset_mapping.txt")));
        found.extend((classes > 0).then(|| format!("{classes} class folders in {shown}")));
        found.extend((images > 0).then(|| format!("{images} images in {shown}")));
        if depth < 7 && classes == 0 {
            let inside = folders.into_iter().rev().filter(|(name, _)| depth > 0 || !is_of_other_data(name));
            next.extend(inside.map(|(_, entry)| (entry.path(), depth + 1)));
        }
    }
    match found.is_empty() {
        true => "nothing of it was found there".to_owned(),
        false => format!("found: {}", first_few(&found)),
    }
}
