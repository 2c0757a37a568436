//! ImageNet's validation set as Kaggle's "ImageNet Object Localization Challenge" lays it out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{first_few, text::read_lines};
use crate::error::{Error, Result, ResultExt};

const SOURCE: &str =
    "https://users.dcc.uchile.cl/~gchapero/datasets/imagenet_object_localization_patched2019_val_test_only.tar.gz";

/// A class; its index is its line in `LOC_synset_mapping.txt`, for names are not unique (crane, maillot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// WordNet id, e.g. `n02012849`.
    pub wnid: String,
    /// The English names, the usual one first.
    pub names: Vec<String>,
}

/// A labelled set of images.
#[derive(Clone, Debug)]
pub struct ImageNet {
    /// Each image with its distinct class indices (mostly one), sorted by name.
    pub images: Vec<(PathBuf, Vec<usize>)>,
    /// The classes in the order of their indices.
    pub classes: Vec<Class>,
}

/// Reads `data_dir/imagenet`, a full or a filtered tree. Images without a label among the classes are skipped, and those
/// that annotations or solution name may be missing: both are counted and warned about. Other files are ignored.
pub fn load(data_dir: &Path) -> Result<ImageNet> {
    let root = data_dir.join("imagenet");
    let fetch = || format!("unpack {SOURCE} into {}", root.display());
    let classes = read_classes(&root.join("LOC_synset_mapping.txt")).hint(fetch)?;
    let index: HashMap<&str, usize> = classes.iter().enumerate().map(|(k, class)| (class.wnid.as_str(), k)).collect();
    if index.len() < classes.len() {
        let what = format!("{}/LOC_synset_mapping.txt names a wnid twice", root.display());
        return Err(Error::new(what).hint(fetch()));
    }
    let stems = names_in(&root.join("ILSVRC/Data/CLS-LOC/val"), ".JPEG").hint(fetch)?;
    let notes = root.join("ILSVRC/Annotations/CLS-LOC/val");
    let annotated: Vec<_> = stems.par_iter().map(|stem| annotation(&notes.join(format!("{stem}.xml")))).collect();
    let solution = read_solution(&root.join("LOC_val_solution.csv"))?;
    let mut named = if notes.is_dir() { names_in(&notes, ".xml")? } else { Vec::new() };
    named.extend(solution.keys().cloned());
    let missing = missing(named, &stems);
    if !missing.is_empty() {
        let (n, few) = (missing.len(), first_few(&missing));
        tracing::warn!("{n} labelled ImageNet images are not there, {} are: missing {few}", stems.len());
    }
    let (mut images, mut skipped) = (Vec::with_capacity(stems.len()), Vec::new());
    for (stem, annotated) in stems.into_iter().zip(annotated) {
        let wnids = annotated.as_ref().or_else(|| solution.get(&stem)).map_or(&[][..], Vec::as_slice);
        let mut labels: Vec<usize> = wnids.iter().filter_map(|wnid| index.get(wnid.as_str()).copied()).collect();
        labels.sort_unstable();
        labels.dedup();
        match labels.is_empty() {
            true => skipped.push(stem),
            false => images.push((root.join(format!("ILSVRC/Data/CLS-LOC/val/{stem}.JPEG")), labels)),
        }
    }
    if !skipped.is_empty() {
        tracing::warn!("skipped {} ImageNet images without a known label: {}", skipped.len(), first_few(&skipped));
    }
    if images.is_empty() {
        let what = format!("no labelled image in {} ({} without a label)", root.display(), skipped.len());
        return Err(Error::new(what).hint(fetch()));
    }
    Ok(ImageNet { images, classes })
}

/// `wnid name, synonym, ...` lines.
fn read_classes(path: &Path) -> Result<Vec<Class>> {
    let parse = |line: &str| {
        let (wnid, names) = line.trim().split_once(' ')?;
        let names: Vec<_> = names.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        (!names.is_empty()).then(|| Class { wnid: wnid.to_owned(), names })
    };
    let class = |(k, line): (usize, &String)| {
        parse(line).ok_or_else(|| Error::new(format!("{}, line {}: not `wnid names`", path.display(), k + 1)))
    };
    read_lines(path)?.iter().enumerate().map(class).collect()
}

/// Those of the `named` images, each once, that are not among `present` (sorted).
fn missing(mut named: Vec<String>, present: &[String]) -> Vec<String> {
    named.sort_unstable();
    named.dedup();
    named.retain(|name| present.binary_search(name).is_err());
    named
}

/// The names in `folder` that end with `end`, without it, sorted.
fn names_in(folder: &Path, end: &str) -> Result<Vec<String>> {
    let failed = || format!("cannot read the folder {}", folder.display());
    let mut stems = Vec::new();
    for entry in std::fs::read_dir(folder).context(failed)? {
        let name = entry.context(failed)?.file_name();
        stems.extend(name.to_str().and_then(|name| name.strip_suffix(end)).map(str::to_owned));
    }
    stems.sort_unstable();
    Ok(stems)
}

/// The `object/name`s of a Pascal-VOC annotation; `None` where there is none to be read.
fn annotation(path: &Path) -> Option<Vec<String>> {
    let bytes = std::fs::read(path).ok()?;
    let xml = String::from_utf8_lossy(&bytes);
    let name = |object: &str| {
        let object = object.split_once("</object>").map_or(object, |(inside, _)| inside);
        Some(object.split_once("<name>")?.1.split_once("</name>")?.0.trim().to_owned())
    };
    let names: Vec<_> = xml.split("<object>").skip(1).filter_map(name).collect();
    (!names.is_empty()).then_some(names)
}

/// `ImageId,PredictionString` with `wnid xmin ymin xmax ymax` once or more; empty where the file is missing.
fn read_solution(path: &Path) -> Result<HashMap<String, Vec<String>>> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let labels = |line: &String| {
        let (image, boxes) = line.split_once(',')?;
        Some((image.trim().to_owned(), boxes.split_whitespace().step_by(5).map(str::to_owned).collect()))
    };
    Ok(read_lines(path)?.iter().skip(1).filter_map(labels).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo")
    }

    #[test]
    fn demo_labels_agree_with_the_solution() -> Result<()> {
        let set = load(&demo())?;
        assert_eq!((set.images.len(), set.classes.len()), (240, 30));
        assert_eq!(
            set.classes[1],
            Class { wnid: "n00000002".into(), names: vec!["blue moon".into(), "blue crescent".into()] }
        );
        let solution = read_solution(&demo().join("imagenet/LOC_val_solution.csv"))?;
        for (path, labels) in &set.images {
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let wnids: Vec<_> = labels.iter().map(|&k| set.classes[k].wnid.clone()).collect();
            assert_eq!(solution[&stem], wnids);
            assert!(path.is_file());
        }
        Ok(())
    }

    #[test]
    fn labels_come_from_xml_then_csv_and_the_rest_is_skipped() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("imagenet");
        let (images, notes) = (root.join("ILSVRC/Data/CLS-LOC/val"), root.join("ILSVRC/Annotations/CLS-LOC/val"));
        std::fs::create_dir_all(&images)?;
        std::fs::create_dir_all(&notes)?;
        std::fs::write(root.join("LOC_synset_mapping.txt"), "n1 crane\r\nn2 crane, bird\r\n")?;
        for name in ["a.JPEG", "b.JPEG", "c.JPEG", "d.JPEG", "notes.txt"] {
            std::fs::write(images.join(name), "")?;
        }
        let object = |wnid: &str| format!("<object> <name> {wnid} </name><part><name>n9</name></part></object>");
        std::fs::write(notes.join("a.xml"), format!("{}{}{}", object("n2"), object("n1"), object("n2")))?;
        std::fs::write(notes.join("c.xml"), object("n7"))?;
        std::fs::write(root.join("LOC_val_solution.csv"), "ImageId,PredictionString\nb,n2 1 1 2 2 n2 3 3 4 4 \n")?;
        let set = load(dir.path())?;
        assert_eq!(set.images, [(images.join("a.JPEG"), vec![0, 1]), (images.join("b.JPEG"), vec![1])]);
        Ok(())
    }

    #[test]
    fn labelled_images_that_are_not_there_are_found() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(missing(names("d b a b c d"), &names("a c e")), names("b d"));
    }

    #[test]
    fn a_missing_tree_names_what_to_fetch() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let check = |part: &str| {
            let error = load(dir.path()).expect_err("incomplete");
            assert!(error.to_string().contains(part), "{error} lacks {part}");
            assert!(error.advice().is_some_and(|hint| hint.contains(SOURCE)));
        };
        check("LOC_synset_mapping.txt");
        std::fs::create_dir_all(dir.path().join("imagenet"))?;
        std::fs::write(dir.path().join("imagenet/LOC_synset_mapping.txt"), "n1 crane\nn2\n")?;
        check("line 2: not `wnid names`");
        std::fs::write(dir.path().join("imagenet/LOC_synset_mapping.txt"), "n1 crane\n")?;
        check("cannot read the folder");
        std::fs::create_dir_all(dir.path().join("imagenet/ILSVRC/Data/CLS-LOC/val"))?;
        check("no labelled image");
        Ok(())
    }
}
