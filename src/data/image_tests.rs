use std::io::Cursor;
use std::path::PathBuf;

use image::ImageFormat;
use safetensors::SafeTensors;

use super::*;

fn demo(k: usize) -> PathBuf {
    let name = format!("data/demo/imagenet/ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_{k:08}.JPEG");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn config(json: &str) -> Result<Preprocess> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("preprocessor_config.json");
    std::fs::write(&path, json)?;
    Preprocess::from_file(&path)
}

#[test]
fn pixels_equal_pil() -> Result<()> {
    let golden = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/preprocess.safetensors"))?;
    let golden = SafeTensors::deserialize(&golden)?;
    let dir = tempfile::tempdir()?;
    let (mut resized, mut decoded) = (0, 0);
    for (name, tensor) in golden.tensors() {
        let parts: Vec<&str> = name.split('/').collect();
        let ours = if let [stem, size, height, width] = parts[..] {
            resized += 1;
            let json = format!(r#"{{"size": {size}, "crop_size": {{"height": {height}, "width": {width}}}}}"#);
            config(&json)?.load_rgb8(&demo(1).with_file_name(format!("{stem}.JPEG")))?
        } else if !name.contains('.') {
            decoded += 1;
            let file = if name == "cmyk" { "cmyk.jpg".to_owned() } else { format!("{name}.png") };
            // The extension lies on purpose: the content decides.
            let path = dir.path().join("image.JPEG");
            std::fs::write(&path, golden.tensor(&file)?.data())?;
            decode(&path)?
        } else {
            continue;
        };
        assert!(ours.as_raw() == tensor.data(), "{name}");
    }
    assert_eq!((resized, decoded), (5, 4));
    Ok(())
}

#[test]
fn values_are_normalised_channel_by_channel() -> Result<()> {
    let preprocess = config(r#"{"size": {"shortest_edge": 64}, "crop_size": 64, "do_convert_rgb": true}"#)?;
    let (pixels, image) = (preprocess.load(&demo(1))?, preprocess.load_rgb8(&demo(1))?);
    assert_eq!((pixels.len(), preprocess.output_size()), (3 * 64 * 64, (64, 64)));
    for (mean, std, channel) in [(0.48145466, 0.26862954, 0), (0.4578275, 0.26130258, 1), (0.40821073, 0.27577711, 2)] {
        for (x, y) in [(0, 0), (63, 0), (20, 41)] {
            let expected = ((f64::from(image.get_pixel(x, y)[channel]) / 255.0 - mean) / std) as f32;
            assert!((pixels[channel * 64 * 64 + (y * 64 + x) as usize] - expected).abs() < 1e-6);
        }
    }
    let raw = config(r#"{"size": 64, "crop_size": 64, "do_normalize": false, "do_rescale": false}"#)?;
    assert_eq!(raw.load(&demo(1))?[0], f32::from(image.get_pixel(0, 0)[0]));
    Ok(())
}

#[test]
fn settings_are_honoured_or_refused() -> Result<()> {
    let exact = config(r#"{"size": {"height": 20, "width": 30}, "do_center_crop": false}"#)?;
    assert_eq!((exact.output_size(), exact.load(&demo(1))?.len()), ((20, 30), 3 * 20 * 30));
    let cropped = config(r#"{"do_resize": false, "resample": 2, "crop_size": 10}"#)?;
    let (whole, part) = (decode(&demo(1))?, cropped.load_rgb8(&demo(1))?);
    assert_eq!(part.get_pixel(0, 0), whole.get_pixel((80 - 10) / 2, (60 - 10) / 2));
    for (json, what) in [
        (r#"{"resample": 2}"#, "resample = 2"),
        (r#"{"do_center_crop": false}"#, "different sizes"),
        (r#"{"size": {"longest_edge": 5}}"#, "preprocessor_config.json"),
        (r#"{"crop_size": 0}"#, "from 1 to 4096"),
        (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
        ("{", "preprocessor_config.json"),
    ] {
        let error = config(json).expect_err(what);
        assert!(error.to_string().contains(what) && error.advice().is_some(), "{error} lacks {what}");
    }
    Ok(())
}

#[test]
fn corrupt_files_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let good = std::fs::read(demo(1))?;
    check(&demo(1))?;
    // A segment that holds an end marker, as a thumbnail does: harmless, and no end of the image itself.
    let thumbnail = [&good[..2], b"\xff\xe1\x00\x06\xff\xd8\xff\xd9", &good[2..]].concat();
    let whole = dir.path().join("whole.jpg");
    std::fs::write(&whole, &thumbnail)?;
    assert_eq!(decode(&whole)?, decode(&demo(1))?);
    let mut png = Cursor::new(Vec::new());
    decode(&demo(1))?.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::new(e.to_string()))?;
    let png = png.into_inner();
    // A PNG header that promises 19,000 x 19,000 pixels.
    let mut bomb = png[..33].to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0x4a, 0x38, 0, 0, 0x4a, 0x38]);
    let mut crc = flate2::Crc::new();
    crc.update(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    bomb.extend(&png[33..]);
    for (name, bytes) in [
        ("empty.jpg", &[][..]),
        ("text.jpg", b"not an image"),
        ("half.jpg", &good[..good.len() / 2]),
        // Ends among the pixels, which the decoder alone would accept.
        ("cut.jpg", &good[..good.len() - 100]),
        ("end.jpg", &good[..good.len() - 1]),
        ("thumbnail.jpg", &thumbnail[..thumbnail.len() - 100]),
        ("header.jpg", &good[..20]),
        ("start.jpg", &good[..2]),
        ("half.png", &png[..png.len() / 2]),
        ("bomb.png", &bomb),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes)?;
        let error = check(&path).expect_err(name);
        println!("{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(check(Path::new("/nowhere.jpg")).is_err());

    let strip = dir.path().join("strip.png");
    RgbImage::new(19_000, 1).save(&strip).map_err(|e| Error::new(e.to_string()))?;
    let error = config("{}")?.load(&strip).expect_err("too narrow");
    assert!(error.to_string().contains("too narrow"), "{error}");
    Ok(())
}
