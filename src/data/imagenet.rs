//! ImageNet's validation set, as Kaggle's "ImageNet Object Localization Challenge" lays it out or as torchvision does.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::class_names::{Class, bundled_wnids};
use super::imagenet_labels::{annotation, solution};
use super::imagenet_tree::{PLACES, Tree, found, names_in, wanted};
use super::{first_few, text::read_lines};
use crate::error::{Error, Result, ResultExt};

/// A labelled set of images.
#[derive(Clone, Debug)]
pub struct ImageNet {
    /// Each image with its distinct class indices (mostly one), sorted by name.
    pub images: Vec<(PathBuf, Vec<usize>)>,
    /// The classes in the order of their indices.
    pub classes: Vec<Class>,
}

/// Reads `data_dir/imagenet`, a full or a filtered tree:
///
/// - `LOC_synset_mapping.txt`, the classes. Without it they are ImageNet's 1000, which then have no English names.
/// - images `*.JPEG` (`.jpg`, `.png`; in any case) in `ILSVRC/Data/CLS-LOC/val`, else in `val`: in the folder itself, with
///   labels from `ILSVRC/Annotations/CLS-LOC/val/*.xml` or `LOC_val_solution.csv`, or else in folders named by the wnid.
///
/// Images without a label among the classes are skipped, and those that annotations or solution name may be missing: both
/// are counted and warned about, like annotations that cannot be read and folders of no class. Other files are ignored.
pub fn load(data_dir: &Path) -> Result<ImageNet> {
    let root = data_dir.join("imagenet");
    let hint = || wanted(&root);
    let mapping = root.join("LOC_synset_mapping.txt");
    let has_mapping = mapping.exists();
    let classes = if has_mapping { read_classes(&mapping).hint(hint)? } else { bundled() };
    let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(k, class)| (class.wnid.as_str(), k)).collect();
    if index.len() < classes.len() {
        return Err(Error::new(format!("{} names a wnid twice", mapping.display())).hint(hint()));
    }
    let Tree { flat, folders } = Tree::find(&root).hint(hint)?;
    let missing = |what: &str| {
        let mapping = if has_mapping { "" } else { "; LOC_synset_mapping.txt is missing" };
        Error::new(format!("{what} in {}{mapping}; {}", root.display(), found(data_dir))).hint(hint())
    };
    if flat.is_empty() && folders.is_empty() {
        return Err(missing(&format!("no image in {} or {}", PLACES[0], PLACES[1])));
    }
    let (in_no_folder, in_folders) = (flat.len(), folders.len());
    let mut images = label_flat(&root, flat, &index)?;
    if images.is_empty() {
        images = label_folders(folders, &index);
        if images.is_empty() {
            let what = "no labelled image";
            return Err(missing(&format!("{what} ({in_no_folder} without a label, {in_folders} folders of no class)")));
        }
        if in_no_folder > 0 {
            tracing::warn!("left out {in_no_folder} ImageNet images that are in no class folder and have no label");
        }
    } else if in_folders > 0 {
        tracing::warn!("left out {in_folders} folders of images beside ImageNet images that have labels");
    }
    if !has_mapping {
        tracing::info!("{} is missing: the classes are ImageNet's 1000, in Spanish only", mapping.display());
    }
    Ok(ImageNet { images, classes })
}

/// `wnid name, synonym, ...` lines.
fn read_classes(path: &Path) -> Result<Vec<Class>> {
    let parse = |line: &str| {
        let (wnid, names) = line.trim().split_once([' ', '\t'])?;
        let names: Vec<_> = names.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        (!names.is_empty()).then(|| Class { wnid: wnid.to_owned(), names })
    };
    let class = |(k, line): (usize, &String)| {
        parse(line).ok_or_else(|| Error::new(format!("{}, line {}: not `wnid names`", path.display(), k + 1)))
    };
    read_lines(path)?.iter().enumerate().map(class).collect()
}

fn bundled() -> Vec<Class> {
    bundled_wnids().map(|wnid| Class { wnid: wnid.to_owned(), names: Vec::new() }).collect()
}

/// The class indices of wnids, each once.
fn indices<'a>(wnids: impl IntoIterator<Item = &'a String>, index: &HashMap<&str, usize>) -> Vec<usize> {
    let mut labels: Vec<usize> = wnids.into_iter().filter_map(|wnid| index.get(wnid.as_str()).copied()).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// Those of the images that annotations, or else the solution, give labels; empty where none has one.
fn label_flat(
    root: &Path, flat: BTreeMap<String, PathBuf>, index: &HashMap<&str, usize>,
) -> Result<Vec<(PathBuf, Vec<usize>)>> {
    if flat.is_empty() {
        return Ok(Vec::new());
    }
    let notes = root.join("ILSVRC/Annotations/CLS-LOC/val");
    let stems: Vec<&String> = flat.keys().collect();
    let annotated: Vec<_> = stems.par_iter().map(|stem| annotation(&notes.join(format!("{stem}.xml")))).collect();
    let solution = solution(&root.join("LOC_val_solution.csv"))?;
    let mut named = if notes.is_dir() { names_in(&notes, ".xml")? } else { Vec::new() };
    named.extend(solution.keys().cloned());
    let missing = missing(named, &flat);
    if !missing.is_empty() {
        let (n, few) = (missing.len(), first_few(&missing));
        tracing::warn!("{n} labelled ImageNet images are missing: {few} ({} are here)", flat.len());
    }
    let (mut images, mut skipped, mut unreadable) = (Vec::with_capacity(flat.len()), Vec::new(), Vec::new());
    for ((stem, path), annotated) in flat.into_iter().zip(annotated) {
        let wnids = annotated.unwrap_or_else(|error| {
            unreadable.push(format!("{stem}.xml ({error})"));
            Vec::new()
        });
        let wnids = if wnids.is_empty() { solution.get(&stem).unwrap_or(&wnids) } else { &wnids };
        match indices(wnids, index) {
            labels if labels.is_empty() => skipped.push(stem),
            labels => images.push((path, labels)),
        }
    }
    if !unreadable.is_empty() {
        let (n, few) = (unreadable.len(), first_few(&unreadable));
        tracing::warn!("{n} ImageNet annotations cannot be read: {few}");
    }
    if !skipped.is_empty() && !images.is_empty() {
        tracing::warn!("skipped {} ImageNet images without a known label: {}", skipped.len(), first_few(&skipped));
    }
    Ok(images)
}

/// The images of the folders that are named by a class.
fn label_folders(folders: BTreeMap<String, Vec<PathBuf>>, index: &HashMap<&str, usize>) -> Vec<(PathBuf, Vec<usize>)> {
    let (mut images, mut others) = (Vec::new(), Vec::new());
    for (wnid, paths) in folders {
        match index.get(wnid.as_str()) {
            Some(class) => images.extend(paths.into_iter().map(|path| (path, vec![*class]))),
            None => others.push(wnid),
        }
    }
    if !others.is_empty() && !images.is_empty() {
        tracing::warn!("left out {} folders of images that are of no class: {}", others.len(), first_few(&others));
    }
    images
}

/// Those of the `named` images, each once, that are not among `present`.
fn missing(mut named: Vec<String>, present: &BTreeMap<String, PathBuf>) -> Vec<String> {
    named.sort_unstable();
    named.dedup();
    named.retain(|name| !present.contains_key(name));
    named
}

#[cfg(test)]
#[path = "imagenet_tests.rs"]
mod tests;
