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
    let solved = solution(&demo().join("imagenet/LOC_val_solution.csv"))?;
    for (path, labels) in &set.images {
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let wnids: Vec<_> = labels.iter().map(|&k| set.classes[k].wnid.clone()).collect();
        assert_eq!(solved[&stem], wnids);
        assert!(path.is_file());
    }
    Ok(())
}

/// Files below `imagenet` of a data folder.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = dir.path().join("imagenet").join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    dir
}

/// The images of a set, below `imagenet`, with their labels.
fn images(dir: &tempfile::TempDir) -> Result<Vec<(String, Vec<usize>)>> {
    let root = dir.path().join("imagenet");
    let short = |path: PathBuf| path.strip_prefix(&root).expect("below the root").display().to_string();
    Ok(load(dir.path())?.images.into_iter().map(|(path, labels)| (short(path), labels)).collect())
}

fn labelled(images: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    images.iter().map(|(name, labels)| ((*name).to_owned(), labels.to_vec())).collect()
}

const MAPPING: (&str, &str) = ("LOC_synset_mapping.txt", "n1 crane\r\nn2 crane, bird\r\n");
const VAL: &str = "ILSVRC/Data/CLS-LOC/val";

#[track_caller]
fn fails(files: &[(&str, &str)], parts: &[&str]) {
    let dir = tree(files);
    let error = load(dir.path()).expect_err("incomplete");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    let hint = error.advice().unwrap_or_default();
    let layouts =
        ["ILSVRC/Data/CLS-LOC/val/*.JPEG", "val/nXXXXXXXX/*.JPEG", "imagenet_object_localization_patched2019"];
    assert!(layouts.iter().all(|layout| hint.contains(layout)), "{hint}");
}

#[test]
fn labels_come_from_xml_then_csv_and_the_rest_is_skipped() -> Result<()> {
    let object = |wnid: &str| format!("<object id='1'><part><name>n9</name></part><name> {wnid} </name></object>");
    let (a, c) = (format!("{}{}{}", object("n2"), object("n1"), object("n2")), object("n7"));
    let truncated = &object("n1")[..60];
    let image = |name: &str| format!("{VAL}/{name}");
    let names = ["a.JPEG", "b.jpeg", "c.JPEG", "d.JPG", "e.png", "notes.txt", "._a.JPEG"].map(image);
    let mut files = vec![
        MAPPING,
        ("ILSVRC/Annotations/CLS-LOC/val/a.xml", &a),
        ("ILSVRC/Annotations/CLS-LOC/val/c.xml", &c),
        ("ILSVRC/Annotations/CLS-LOC/val/d.xml", truncated),
        ("ILSVRC/Annotations/CLS-LOC/val/e.xml", truncated),
        ("LOC_val_solution.csv", "ImageId,PredictionString\nb,n2 1 1 2 2 n2 3 3 4 4 \ne,n1 1 1 2 2\n"),
    ];
    files.extend(names.iter().map(|name| (name.as_str(), "")));
    let expected = [("a.JPEG", &[0, 1][..]), ("b.jpeg", &[1]), ("e.png", &[0])]
        .map(|(name, labels)| (image(name), labels.to_vec()));
    assert_eq!(images(&tree(&files))?, expected);
    Ok(())
}

#[test]
fn a_folder_a_class_is_read_in_either_place() -> Result<()> {
    for place in ["val", VAL] {
        let path = |name: &str| format!("{place}/{name}");
        let names = ["n2/b.JPEG", "n2/a.jpg", "n1/a.JPG", "n1/.a.JPG", "n1/text", "n7/c.JPEG", "lost.JPEG"].map(path);
        let mut files = vec![("LOC_synset_mapping.txt", "\u{feff}n1\tcrane\nn2\tcrane, bird\n")];
        files.extend(names.iter().map(|name| (name.as_str(), "")));
        let expected = [("n1/a.JPG", vec![0]), ("n2/a.jpg", vec![1]), ("n2/b.JPEG", vec![1])];
        assert_eq!(images(&tree(&files))?, expected.map(|(name, label)| (path(name), label)));
    }
    Ok(())
}

#[test]
fn kaggles_layout_is_used_where_both_are_there() -> Result<()> {
    let kaggle = format!("{VAL}/a.JPEG");
    let solution = ("LOC_val_solution.csv", "ImageId,PredictionString\na,n2 1 1 2 2\n");
    let both = tree(&[MAPPING, solution, (&kaggle, ""), ("val/n1/b.JPEG", "")]);
    assert_eq!(images(&both)?, labelled(&[(&kaggle, &[1])]));
    // The place of the other layout may be there without images.
    let empty = format!("{VAL}/readme");
    let torchvision = tree(&[MAPPING, solution, (&empty, ""), ("val/n1/b.JPEG", "")]);
    assert_eq!(images(&torchvision)?, labelled(&[("val/n1/b.JPEG", &[0])]));
    // Labelled images count, not the folders beside them.
    let folder = format!("{VAL}/n1/b.JPEG");
    let mixed = tree(&[MAPPING, solution, (&kaggle, ""), (&folder, "")]);
    assert_eq!(images(&mixed)?, labelled(&[(&kaggle, &[1])]));
    Ok(())
}

#[test]
fn without_the_mapping_the_classes_are_the_bundled_ones() -> Result<()> {
    let set = load(tree(&[("val/n03126707/a.JPEG", ""), ("val/n02012849/b.JPEG", "")]).path())?;
    assert_eq!(set.classes.len(), 1000);
    let labels: Vec<_> = set.images.iter().map(|(_, labels)| labels.clone()).collect();
    assert_eq!(labels, [[134], [517]]); // torchvision's indices
    let error = crate::data::class_names::english(&set.classes).expect_err("no English names");
    assert!(error.to_string().contains("LOC_synset_mapping.txt") && error.advice().is_some(), "{error}");
    fails(&[("val/n00000001/a.JPEG", "")], &["no labelled image", "LOC_synset_mapping.txt is missing"]);
    Ok(())
}

#[test]
fn labelled_images_that_are_not_there_are_found() {
    let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let present = names("a c e").into_iter().map(|name| (name, PathBuf::new())).collect();
    assert_eq!(missing(names("d b a b c d"), &present), names("b d"));
}

#[test]
fn a_list_in_another_encoding_is_told() {
    let dir = tree(&[("LOC_synset_mapping.txt", "n\x001\0 \0c\0"), ("val/n1/a.JPEG", "")]);
    let error = load(dir.path()).expect_err("UTF-16");
    assert!(
        error.to_string().contains("LOC_synset_mapping.txt, line 1: NUL bytes: this looks like UTF-16LE"),
        "{error}"
    );
}

#[test]
fn wrong_layouts_are_told_with_those_that_are_wanted() {
    fails(&[], &["no image in ILSVRC/Data/CLS-LOC/val or val", "LOC_synset_mapping.txt is missing", "nothing of it"]);
    fails(&[("LOC_synset_mapping.txt", "n1 crane\nn2\n")], &["line 2: not `wnid names`"]);
    fails(&[("LOC_synset_mapping.txt", "n1 crane\nn1 bird\n")], &["names a wnid twice"]);
    fails(&[MAPPING], &["no image in ILSVRC/Data/CLS-LOC/val or val", "found: ", "imagenet/LOC_synset_mapping.txt"]);
    // Images without labels, in no class folder.
    for place in ["val", VAL] {
        let path = format!("{place}/ILSVRC2012_val_00000001.JPEG");
        fails(&[MAPPING, (&path, "")], &["no labelled image (1 without a label", "1 images in ", place]);
    }
    // Folders of no class, as in Tiny ImageNet.
    fails(&[MAPPING, ("val/images/val_0.JPEG", "")], &["1 folders of no class", "imagenet/val/images"]);
    // One level too deep, and a level missing.
    let deep = "imagenet-object-localization-challenge";
    let (mapping, image) = (format!("{deep}/LOC_synset_mapping.txt"), format!("{deep}/{VAL}/a.JPEG"));
    fails(&[(&mapping, MAPPING.1), (&image, "")], &[&mapping, "1 images in ", &format!("{deep}/{VAL}")]);
    fails(&[MAPPING, ("CLS-LOC/val/a.JPEG", "")], &["no image in ", "1 images in ", "imagenet/CLS-LOC/val"]);
    fails(&[MAPPING, ("n01440764/a.JPEG", "")], &["no image in ", "1 class folders in "]);
    // Beside the folder `imagenet`.
    fails(&[MAPPING, ("../ILSVRC/Data/CLS-LOC/val/a.JPEG", "")], &["no image in ", "/ILSVRC/Data/CLS-LOC/val"]);
}
