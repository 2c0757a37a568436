use std::io::Cursor;
use std::path::PathBuf;

use image::ImageFormat;
use safetensors::SafeTensors;

use super::*;
use crate::data::image::settings::Resize;

fn demo(k: usize) -> PathBuf {
    let name = format!("data/demo/imagenet/ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_{k:08}.JPEG");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn config(json: &str) -> Result<Preprocess> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("preprocessor_config.json");
    std::fs::write(&path, json)?;
    Preprocess::from_file(&path, Transparency::Drop)
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
            decode(&path, Transparency::Drop)?
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
    let default = config("{}")?;
    assert_eq!((default.output_size(), default.resize), ((224, 224), Some(Resize::ShortestEdge(224))));
    // What the processor of transformers 5.24 does with each (but for null sizes, means and deviations, which it refuses).
    let square = Some(Resize::Exact { height: 20, width: 20 });
    let (short, wide) = (Some(Resize::ShortestEdge(20)), Some(Resize::Exact { height: 20, width: 24 }));
    for (json, resize, output) in [
        (r#""size": 20, "crop_size": 16"#, short, (16, 16)),
        (r#""size": [20, 24], "crop_size": [16, 12]"#, wide, (16, 12)),
        (r#""size": {"height": 20, "width": 24}, "crop_size": {"height": 16, "width": 12}"#, wide, (16, 12)),
        (r#""size": {"shortest_edge": 20, "longest_edge": null}, "crop_size": 16"#, short, (16, 16)),
        (r#""size": 20, "default_to_square": true, "do_center_crop": null"#, square, (20, 20)),
        (r#""size": 20, "default_to_square": null, "crop_size": 16"#, short, (16, 16)),
        (r#""size": null, "crop_size": null, "image_mean": null, "image_std": null"#, default.resize, (224, 224)),
        (r#""do_resize": null, "resample": 2, "crop_size": 16"#, None, (16, 16)),
        (
            r#""image_processor_type": "SiglipImageProcessorFast""#,
            Some(Resize::Exact { height: 224, width: 224 }),
            (224, 224),
        ),
        (r#""feature_extractor_type": "CLIPFeatureExtractor", "size": 20, "crop_size": 16"#, short, (16, 16)),
    ] {
        let made = config(&format!("{{{json}}}"))?;
        assert_eq!((made.resize, made.output), (resize, output), "{json}");
    }
    for (json, value) in [
        (r#""do_rescale": null, "do_normalize": null"#, 255.0),
        (r#""do_normalize": false"#, 1.0),
        (r#""do_normalize": null, "rescale_factor": 2"#, 510.0),
        (r#""image_mean": 0.5, "image_std": 0.25"#, 2.0),
        (r#""image_processor_type": "SiglipImageProcessor""#, 1.0),
    ] {
        assert_eq!(config(&format!("{{{json}}}"))?.values[1][255], value, "{json}");
    }
    let exact = config(r#"{"size": {"height": 20, "width": 30}, "do_center_crop": false}"#)?;
    assert_eq!((exact.output_size(), exact.load(&demo(1))?.len()), ((20, 30), 3 * 20 * 30));
    let cropped = config(r#"{"do_resize": false, "resample": 2, "crop_size": 10}"#)?;
    let (whole, part) = (decode(&demo(1), Transparency::Drop)?, cropped.load_rgb8(&demo(1))?);
    assert_eq!(part.get_pixel(0, 0), whole.get_pixel((80 - 10) / 2, (60 - 10) / 2));
    for (json, what) in [
        (r#"{"resample": 2}"#, "resample = 2"),
        (r#"{"do_center_crop": false}"#, "different sizes"),
        (r#"{"size": {"longest_edge": 5}}"#, "shortest_edge"),
        (r#"{"size": {"shortest_edge": 5, "longest_edge": 9}}"#, "shortest_edge"),
        (r#"{"size": {"max_height": 5, "max_width": 9}}"#, "preprocessor_config.json"),
        (r#"{"size": {"height": 5}}"#, "height and width"),
        (r#"{"size": [5, 6, 7]}"#, "preprocessor_config.json"),
        (r#"{"crop_size": {"shortest_edge": 5}}"#, "crop_size has no height"),
        (r#"{"do_center_crop": null}"#, "different sizes"),
        (r#"{"resample": null}"#, "resample = null"),
        (r#"{"resample": "bicubic"}"#, "resample = \"bicubic\""),
        (r#"{"resample": 3.0}"#, "resample = 3.0"),
        (r#"{"rescale_factor": null}"#, "rescale_factor is null"),
        (r#"{"do_pad": true}"#, "do_pad = true"),
        (r#"{"use_square_size": true}"#, "use_square_size = true"),
        (r#"{"image_processor_type": "ViTImageProcessor"}"#, "ViTImageProcessor is not supported"),
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
    assert_eq!(decode(&whole, Transparency::Drop)?, decode(&demo(1), Transparency::Drop)?);
    let mut png = Cursor::new(Vec::new());
    decode(&demo(1), Transparency::Drop)?
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| Error::new(e.to_string()))?;
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

/// transformers 5 writes `processor_config.json`, with the settings inside, and prefers it to the older file.
#[test]
fn the_settings_may_lie_within_a_processors() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let edge = || Preprocess::from_file(&settings_file(dir.path()), Transparency::Drop).map(|made| made.output.0);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
    let error = edge().expect_err("no file");
    assert!(error.to_string().contains("preprocessor_config.json"), "{error}");
    assert!(error.advice().is_some_and(|hint| hint.contains("processor_config.json")));
    write("preprocessor_config.json", r#"{"crop_size": 32}"#)?;
    write("processor_config.json", r#"{"processor_class": "CLIPProcessor"}"#)?;
    assert_eq!(edge()?, 32);
    write("processor_config.json", r#"{"image_processor": {"crop_size": {"height": 64, "width": 64}}}"#)?;
    assert_eq!(edge()?, 64);
    std::fs::remove_file(dir.path().join("preprocessor_config.json"))?;
    assert_eq!(edge()?, 64);
    write("processor_config.json", r#"{"image_processor": {"resample": 2}}"#)?;
    let error = edge().expect_err("bilinear");
    assert!(error.to_string().contains("processor_config.json: resample = 2"), "{error}");
    Ok(())
}

/// Small files of every kind against what `tests/golden/images_small.py` made of them with PIL, alpha dropped and over
/// white; and sizes, resized.
#[test]
fn small_files_and_sizes_equal_pil() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images_small.safetensors.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut bytes)?;
    let golden = SafeTensors::deserialize(&bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let sum = |image: &RgbImage| {
        let mut sum = flate2::Crc::new();
        sum.update(image);
        format!("{:08x}", sum.sum())
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("image");
    let (mut equal, mut refused, mut sizes, mut faults) = (0, 0, 0, Vec::new());
    for (name, theirs) in header.metadata().iter().flatten() {
        if let Some(size) = name.strip_prefix("resize ") {
            let numbers: Vec<u32> = size.split(' ').map(|n| n.parse().expect("a number")).collect();
            let byte = |k: u64| (k.wrapping_mul(k).wrapping_mul(31).wrapping_add(k * 17) >> 5) as u8;
            let image = RgbImage::from_fn(numbers[0], numbers[1], |x, y| {
                let k = 3 * u64::from(y * numbers[0] + x);
                image::Rgb([byte(k), byte(k + 1), byte(k + 2)])
            });
            let ours = sum(&resize::resize(image, numbers[2], numbers[3]));
            if ours != *theirs {
                faults.push(format!("{name}: {ours}, PIL {theirs}"));
            }
            sizes += 1;
            continue;
        }
        std::fs::write(&path, golden.tensor(name)?.data())?;
        let ours = decode(&path, Transparency::Drop).and_then(|dropped| {
            let white = decode(&path, Transparency::White)?;
            Ok(format!("{} {} {} {}", white.width(), white.height(), sum(&dropped), sum(&white)))
        });
        match ours {
            Err(error) if theirs.starts_with("refused") || name == "jpeg-no-end" => {
                assert!(error.advice().is_some() && !error.to_string().contains("gave up"), "{name}: {error}");
                refused += 1;
            }
            Ok(ours) if ours == *theirs => equal += 1,
            ours => faults.push(format!("{name}: {ours:?}, PIL {theirs}")),
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(equal > 400 && refused > 60 && sizes > 600, "{equal} equal, {refused} refused, {sizes} sizes");
    Ok(())
}
