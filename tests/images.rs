//! Images load, or are refused, as PIL does it; and what `themo embed` does about those that are refused.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use themo::data::Preprocess;
use themo::data::image::{self, Transparency};
use themo::error::{Error, Result};

mod common;

use common::golden;

fn preprocess(json: &str) -> Result<Preprocess> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("preprocessor_config.json");
    std::fs::write(&path, json)?;
    Preprocess::from_file(&path, Transparency::Drop)
}

/// The share of bytes that differ.
fn difference(ours: &[u8], theirs: &[u8]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).filter(|(a, b)| a != b).count() as f64 / ours.len() as f64
}

/// The files of `tests/golden/awkward` (from the test suites of Pillow and image-rs) against what `awkward.py` made of
/// them with PIL: pixels as decoded, pixels of the image made small, or the reason why PIL refuses the file.
#[test]
fn awkward_files_load_or_fail_as_in_pil() -> Result<()> {
    let bytes = std::fs::read(golden("awkward.safetensors"))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let refused = header.metadata().clone().unwrap_or_default();
    let raw = preprocess(r#"{"do_resize": false, "crop_size": 32}"#)?;
    let small = preprocess(r#"{"size": 16, "crop_size": 16}"#)?;
    let (mut loaded, mut failed) = (0, 0);
    for entry in std::fs::read_dir(golden("awkward"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Some of its Huffman codes do not exist. PIL makes something up there, themo says so.
        let codes = (name == "bad_exif.jpg").then(|| "a picture".to_owned());
        if let Some(reason) = refused.get(&name).or(codes.as_ref()) {
            let error = raw.load_rgb8(&path).expect_err(&format!("PIL says: {reason}"));
            println!("{error} (PIL: {reason})");
            assert!(image::check(&path).is_err() && error.to_string().contains(&name) && error.advice().is_some());
            failed += 1;
            continue;
        }
        let compare = |preprocess: &Preprocess, what: &str| -> Result<f64> {
            let ours = preprocess.load_rgb8(&path)?;
            Ok(difference(ours.as_raw(), tensors.tensor(&format!("{name}/{what}"))?.data()))
        };
        let (decoded, small) = (compare(&raw, "decoded")?, compare(&small, "small")?);
        assert!(decoded == 0.0 && small == 0.0, "{name}: {decoded} of the pixels differ, made small {small}");
        loaded += 1;
    }
    assert_eq!((loaded, failed), (25, 8));
    Ok(())
}

fn embed(images: &Path, output: &Path) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_themo"));
    command.args(["embed", "--model", "data/demo/models/toy-clip", "--images"]).arg(images).arg("--output").arg(output);
    Ok(command.current_dir(env!("CARGO_MANIFEST_DIR")).output()?)
}

/// In a folder, one bad file must not stop the work, and the vectors must stay with their names; a list is checked first.
#[test]
fn embed_leaves_out_what_a_folder_has_besides_good_images() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (photos, output) = (dir.path().join("photos"), dir.path().join("out.safetensors"));
    std::fs::create_dir(&photos)?;
    for name in ["truncated.jpg", "widescreen.png", "baseline_rgb.jpg", "broken.png"] {
        std::fs::copy(golden("awkward").join(name), photos.join(name))?;
    }
    std::fs::write(photos.join("README.txt"), "Photos of the summer")?;
    let vectors = |output: &Path| -> Result<(String, Vec<f32>)> {
        let bytes = std::fs::read(output)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let floats = SafeTensors::deserialize(&bytes)?.tensor("image_embeds")?.data().to_vec();
        let float = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let names = header.metadata().as_ref().map(|data| data["image_names"].clone()).unwrap_or_default();
        Ok((names, floats.chunks_exact(4).map(float).collect()))
    };
    let done = embed(&photos, &output)?;
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{told}");
    for part in ["left out 1 files that are no images: README.txt", "skipped 2 of 4", "broken.png", "truncated.jpg"] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
    let (names, rows) = vectors(&output)?;
    assert_eq!(names, r#"["baseline_rgb.jpg","widescreen.png"]"#);

    let list = dir.path().join("list");
    let path = |name: &str| photos.join(name).display().to_string();
    std::fs::write(&list, [path("widescreen.png"), path("baseline_rgb.jpg")].join("\n"))?;
    assert!(embed(&list, &output)?.status.success());
    let (_, turned) = vectors(&output)?;
    let (first, second) = rows.split_at(rows.len() / 2);
    assert_eq!(turned, [second, first].concat());

    std::fs::write(&list, [path("widescreen.png"), path("truncated.jpg")].join("\n"))?;
    let refused = embed(&list, &output)?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("1 of 2 images cannot be used") && told.contains("truncated.jpg"), "{told}");
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|e| Error::new(format!("{name}: {e}")))
}

fn transparency() -> Result<Transparency> {
    let white = std::env::var("THEMO_TRANSPARENCY").is_ok_and(|name| name == "white");
    Ok(if white { Transparency::White } else { Transparency::Drop })
}

/// What images_damaged.py compares with PIL: writes for each image of the file THEMO_IMAGES a line with its size and the
/// CRC-32 of its pixels, or the error, to THEMO_PIXELS.
#[test]
#[ignore = "run by tests/golden/images_damaged.py"]
fn checksums_for_comparison() -> Result<()> {
    let (paths, transparency) = (std::fs::read_to_string(variable("THEMO_IMAGES")?)?, transparency()?);
    let paths: Vec<&str> = paths.lines().collect();
    let line = |path: &&str| match image::decode(Path::new(path), transparency) {
        Ok(image) => {
            let mut sum = flate2::Crc::new();
            sum.update(image.as_raw());
            format!("{} {} {:08x}\n", image.width(), image.height(), sum.sum())
        }
        Err(error) => format!("error {}\n", error.to_string().replace('\n', " ")),
    };
    Ok(std::fs::write(variable("THEMO_PIXELS")?, paths.par_iter().map(line).collect::<String>())?)
}

/// What images_full.py compares with transformers: reads image paths from the file THEMO_IMAGES, one a line, and writes
/// the pixels to THEMO_PIXELS as a safetensors file, with the errors in its metadata.
#[test]
#[ignore = "run by tests/golden/images_full.py"]
fn pixels_for_comparison() -> Result<()> {
    let preprocess = Preprocess::from_file(Path::new(&variable("THEMO_PREPROCESSOR")?), transparency()?)?;
    let (height, width) = preprocess.output_size();
    let (mut pixels, mut errors) = (Vec::new(), HashMap::new());
    for path in std::fs::read_to_string(variable("THEMO_IMAGES")?)?.lines() {
        match preprocess.load_rgb8(Path::new(path)) {
            Ok(image) => pixels.push((path.to_owned(), image.into_raw())),
            Err(error) => drop(errors.insert(path.to_owned(), error.to_string())),
        }
    }
    let view = |data| TensorView::new(Dtype::U8, vec![height, width, 3], data);
    let views = pixels.iter().map(|(path, data)| Ok((path, view(data)?))).collect::<Result<Vec<_>>>()?;
    Ok(std::fs::write(variable("THEMO_PIXELS")?, safetensors::serialize(views, Some(errors))?)?)
}
