//! What a checkpoint says of its images: `preprocessor_config.json`, or the object `image_processor` of the
//! `processor_config.json` that transformers 5 writes, for the processors of CLIP and SigLIP.
//!
//! A key that is missing has the default of the processor's class. Of keys that are null, flags are off, as in every
//! version of transformers, and sizes, means and deviations have their defaults, as in transformers 4 (5.24 refuses them).
//! What a setting asks for and themo does not do is refused by name.
//! Source: transformers 5.24, `models/{clip,siglip}/image_processing_pil_*.py`, `image_processing_{base,utils,backends}.py`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result, ResultExt};

const OWN: &str = "preprocessor_config.json";
const NESTED: &str = "processor_config.json";

/// How an image gets its size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Resize {
    ShortestEdge(u32),
    Exact { height: u32, width: u32 },
}

/// What is done to an image.
pub(super) struct Settings {
    pub resize: Option<Resize>,
    /// (height, width) of the centre that is kept.
    pub crop: Option<(u32, u32)>,
    /// By which bytes are multiplied.
    pub scale: f64,
    /// What is then subtracted, and what the difference is divided by.
    pub mean: [f64; 3],
    pub std: [f64; 3],
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    #[serde(deserialize_with = "nullable")]
    do_resize: Given<bool>,
    size: Option<Size>,
    #[serde(deserialize_with = "nullable")]
    default_to_square: Given<bool>,
    #[serde(deserialize_with = "nullable")]
    resample: Given<Value>,
    #[serde(deserialize_with = "nullable")]
    do_center_crop: Given<bool>,
    crop_size: Option<Size>,
    #[serde(deserialize_with = "nullable")]
    do_rescale: Given<bool>,
    #[serde(deserialize_with = "nullable")]
    rescale_factor: Given<f64>,
    #[serde(deserialize_with = "nullable")]
    do_normalize: Given<bool>,
    image_mean: Option<Channels>,
    image_std: Option<Channels>,
    do_pad: Option<bool>,
    use_square_size: Option<bool>,
}

/// A value that is missing or null (which are not the same), or there.
type Given<T> = Option<Option<T>>;

fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> std::result::Result<Given<T>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A number in files written before transformers 4.26, an object since; a list is height and width.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u32),
    List([u32; 2]),
    Sides(Sides),
    Other(Value),
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sides {
    shortest_edge: Option<u32>,
    longest_edge: Option<u32>,
    height: Option<u32>,
    width: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Channels {
    All(f64),
    Each([f64; 3]),
}

impl Channels {
    fn each(&self) -> [f64; 3] {
        match *self {
            Self::All(value) => [value; 3],
            Self::Each(values) => values,
        }
    }
}

/// The file in `folder` that says what is done to images: transformers 5 prefers its own to the older one.
pub fn settings_file(folder: &Path) -> PathBuf {
    let nested = folder.join(NESTED);
    let holds = std::fs::read(&nested).is_ok_and(|bytes| nested_settings(&bytes).is_some_and(|found| found.is_some()));
    if holds { nested } else { folder.join(OWN) }
}

/// The settings of images within a processor's, if these hold any; `None` if they are no JSON object.
fn nested_settings(bytes: &[u8]) -> Option<Option<Value>> {
    let Value::Object(mut all) = serde_json::from_slice(bytes).ok()? else { return None };
    Some(all.remove("image_processor").filter(|settings| !settings.is_null()))
}

/// The settings of images in `folder`, as a `preprocessor_config.json` holds them.
pub fn settings_json(folder: &Path) -> Result<Value> {
    let path = settings_file(folder);
    let bytes = std::fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
    if path.ends_with(NESTED) {
        return nested_settings(&bytes).flatten().ok_or_else(|| Error::new(format!("{} is damaged", path.display())));
    }
    serde_json::from_slice(&bytes).context(|| path.display().to_string()).hint(|| "fetch the file again")
}

/// Mean and standard deviation of each channel in the settings of `folder`, where everything else is as OpenAI's: the
/// shorter side gets `size` pixels, then the centre is cut out.
///
/// # Errors
/// If something else is done to images.
pub fn openai_normalisation(folder: &Path, size: u32) -> Result<[[f64; 3]; 2]> {
    let path = settings_file(folder);
    let Settings { resize, crop, scale, mean, std } = Settings::read(&path)?;
    if resize != Some(Resize::ShortestEdge(size)) || crop != Some((size, size)) || (scale * 255.0 - 1.0).abs() > 1e-9 {
        return Err(Error::new(format!(
            "{} does not resize the shorter side to {size} pixels, cut out the centre and divide by 255",
            path.display()
        ))
        .hint("no other preprocessing can be exported here"));
    }
    Ok([mean, std])
}

impl Settings {
    /// Reads one of the two files.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).context(|| format!("cannot read {}", path.display())).hint(
            || "a CLIP checkpoint folder holds this file, or processor_config.json; fetch it from the model's page",
        )?;
        let nested = if path.ends_with(NESTED) { nested_settings(&bytes).flatten() } else { None };
        let file: Result<File> = match nested {
            Some(settings) => serde_json::from_value(settings).map_err(Error::from),
            None => serde_json::from_slice(&bytes).map_err(Error::from),
        };
        file.and_then(Self::new)
            .context(|| path.display().to_string())
            .hint(|| "themo does the preprocessing of CLIPImageProcessor and SiglipImageProcessor, bicubic only")
    }

    fn new(file: File) -> Result<Self> {
        let kind = file.image_processor_type.or(file.feature_extractor_type);
        let siglip = match kind.as_deref().map(|kind| kind.trim_end_matches("Fast").trim_end_matches("Pil")) {
            None | Some("CLIPImageProcessor" | "CLIPFeatureExtractor") => false,
            Some("SiglipImageProcessor") => true,
            Some(other) => return Err(Error::new(format!("the image processor {other} is not supported"))),
        };
        for (name, on) in [("do_pad", file.do_pad), ("use_square_size", file.use_square_size)] {
            if on == Some(true) {
                return Err(Error::new(format!("{name} = true is not supported")));
            }
        }
        let flag = |given: Given<bool>, default: bool| given.map_or(default, |value| value == Some(true));
        let resize = if flag(file.do_resize, true) {
            match file.resample {
                None => {}
                // 3.0 and "bicubic" are bilinear to transformers' PIL backend: refused, as neither reading is certain.
                Some(Some(Value::Number(filter))) if filter.as_u64() == Some(3) => {}
                Some(other) => {
                    let other = other.unwrap_or_default();
                    return Err(Error::new(format!("resample = {other} is not supported, only 3 (bicubic)")));
                }
            }
            let square = flag(file.default_to_square, false);
            Some(match file.size {
                Some(Size::Number(edge)) if square => Resize::Exact { height: edge, width: edge },
                Some(Size::Number(edge)) => Resize::ShortestEdge(edge),
                Some(size) => size.resize()?,
                None if siglip => Resize::Exact { height: 224, width: 224 },
                None => Resize::ShortestEdge(224),
            })
        } else {
            None
        };
        let crop = match file.crop_size {
            _ if !flag(file.do_center_crop, !siglip) => None,
            None => Some((224, 224)),
            Some(Size::Number(side)) => Some((side, side)),
            Some(size) => match size.resize()? {
                Resize::Exact { height, width } => Some((height, width)),
                Resize::ShortestEdge(_) => return Err(Error::new("crop_size has no height and width")),
            },
        };
        let scale = match (flag(file.do_rescale, true), file.rescale_factor) {
            (false, _) => 1.0,
            (true, None) => 1.0 / 255.0,
            (true, Some(Some(factor))) => factor,
            (true, Some(None)) => return Err(Error::new("rescale_factor is null")),
        };
        let (mut mean, mut std) = match siglip {
            true => ([0.5; 3], [0.5; 3]),
            false => ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        };
        mean = file.image_mean.map_or(mean, |given| given.each());
        std = file.image_std.map_or(std, |given| given.each());
        if !flag(file.do_normalize, true) {
            (mean, std) = ([0.0; 3], [1.0; 3]);
        }
        if std.iter().any(|std| *std <= 0.0 || !std.is_finite()) {
            return Err(Error::new("image_std must be positive"));
        }
        Ok(Self { resize, crop, scale, mean, std })
    }
}

impl Size {
    /// What a list or an object says.
    fn resize(self) -> Result<Resize> {
        let sides = match self {
            Self::Number(side) => return Ok(Resize::ShortestEdge(side)),
            Self::List([height, width]) => return Ok(Resize::Exact { height, width }),
            Self::Sides(sides) => sides,
            Self::Other(other) => {
                return Err(Error::new(format!("the size {other} is not one of shortest_edge, or height and width")));
            }
        };
        match sides {
            Sides { shortest_edge: Some(edge), longest_edge: None, height: None, width: None } => {
                Ok(Resize::ShortestEdge(edge))
            }
            Sides { shortest_edge: None, longest_edge: None, height: Some(height), width: Some(width) } => {
                Ok(Resize::Exact { height, width })
            }
            _ => Err(Error::new("a size is one of shortest_edge, or height and width; others are not supported")),
        }
    }
}
