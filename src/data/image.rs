//! CLIP's image preprocessing: the pixels PIL and transformers' `CLIPImageProcessor` give a model.
//!
//! Decode (`image/decode.rs`), resize the shorter side with PIL's antialiased bicubic filter (`image/resize.rs`), centre
//! crop, rescale, normalise; the settings are the checkpoint's own (`image/settings.rs`). EXIF rotation (but for TIFF, which
//! PIL turns) and colour profiles are not applied.
//! Source: transformers 5.24 `image_processing_backends.py` (`PilBackend`), `image_transforms.py`.

mod bmp;
mod decode;
mod gif;
mod jpeg;
mod pixels;
mod png;
mod resize;
mod settings;
mod tiff;
mod tiff_tags;
mod webp;

use std::io::Read;
use std::path::Path;

use image::RgbImage;
use serde::{Deserialize, Serialize};

pub use settings::{openai_normalisation, settings_file, settings_json};

use crate::error::{Error, Result, ResultExt};
use crate::fs::shown;
use pixels::MAX_PIXELS;
use settings::{Resize, Settings};

const HINT: &str = "give a whole JPEG, PNG, WebP, GIF, BMP or TIFF file";

/// What becomes of transparent pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transparency {
    /// Alpha is dropped, as OpenAI's, open_clip's and transformers 4's preprocessing do it.
    #[default]
    Drop,
    /// The image is laid over white, as transformers 5 does it.
    White,
}

impl Transparency {
    /// The choices as they are written in options and files.
    pub const NAMES: [&str; 2] = ["drop", "white"];

    /// What a name in [`Self::NAMES`] means.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::White => "white",
        }
    }

    /// Names all that decides an image's pixels besides its file and the settings, for keys of what is computed from them:
    /// this choice, and the version of the decoders and the filter.
    pub fn pixels(self) -> String {
        format!("pixels of Pillow 13, transparency {}", self.name())
    }
}

/// What to do to an image before a CLIP image tower sees it.
#[derive(Clone, Debug)]
pub struct Preprocess {
    resize: Option<Resize>,
    transparency: Transparency,
    /// (height, width) of the result.
    output: (u32, u32),
    /// The normalised value of every byte, for each channel.
    values: Box<[[f32; 256]; 3]>,
}

impl Preprocess {
    /// Reads a checkpoint's settings from the file that [`settings_file`] finds.
    pub fn from_file(path: &Path, transparency: Transparency) -> Result<Self> {
        let settings = Settings::read(path)?;
        Self::new(&settings, transparency).context(|| path.display().to_string())
    }

    fn new(settings: &Settings, transparency: Transparency) -> Result<Self> {
        let output = match (settings.crop, settings.resize) {
            (Some(crop), _) => crop,
            (None, Some(Resize::Exact { height, width })) => (height, width),
            _ => {
                return Err(Error::new("the settings give images of different sizes (no centre crop)")
                    .hint("set do_center_crop and crop_size, or a size of height and width"));
            }
        };
        let edges = match settings.resize {
            Some(Resize::ShortestEdge(edge)) => [edge, edge],
            Some(Resize::Exact { height, width }) => [height, width],
            None => [output.0, output.1],
        };
        if edges.into_iter().chain([output.0, output.1]).any(|edge| edge == 0 || edge > 4096) {
            return Err(Error::new("sizes must be from 1 to 4096").hint("fetch the file again"));
        }
        let mut values = Box::new([[0.0; 256]; 3]);
        for ((table, mean), std) in values.iter_mut().zip(settings.mean).zip(settings.std) {
            for (byte, value) in table.iter_mut().enumerate() {
                *value = ((byte as f64 * settings.scale - mean) / std) as f32;
            }
        }
        Ok(Self { resize: settings.resize, transparency, output, values })
    }

    /// (height, width) of what [`Self::load`] returns.
    pub fn output_size(&self) -> (usize, usize) {
        (self.output.0 as usize, self.output.1 as usize)
    }

    /// The image at `path` as `[3, height, width]`, normalised.
    pub fn load(&self, path: &Path) -> Result<Vec<f32>> {
        let image = self.load_rgb8(path)?;
        let mut pixels = vec![0.0; image.len()];
        let (red, rest) = pixels.split_at_mut(image.len() / 3);
        let (green, blue) = rest.split_at_mut(image.len() / 3);
        for (((bytes, red), green), blue) in image.chunks_exact(3).zip(red).zip(green).zip(blue) {
            (*red, *green) = (self.values[0][usize::from(bytes[0])], self.values[1][usize::from(bytes[1])]);
            *blue = self.values[2][usize::from(bytes[2])];
        }
        Ok(pixels)
    }

    /// The image at `path`, resized and cropped.
    pub fn load_rgb8(&self, path: &Path) -> Result<RgbImage> {
        let fit = |image| Ok(self.crop(self.resized(image)?));
        decode::decode(path, self.transparency)
            .and_then(fit)
            .context(|| format!("cannot use the image {}", shown(path)))
            .hint(|| HINT)
    }

    fn resized(&self, image: RgbImage) -> Result<RgbImage> {
        let (w, h) = image.dimensions();
        let (width, height) = match self.resize {
            None => (w, h),
            Some(Resize::Exact { height, width }) => (width, height),
            Some(Resize::ShortestEdge(edge)) => {
                let (short, long) = (w.min(h), w.max(h));
                let long = (u64::from(edge) * u64::from(long) / u64::from(short)) as u32;
                if w <= h { (edge, long) } else { (long, edge) }
            }
        };
        if (width, height) == (w, h) {
            return Ok(image);
        }
        // A strip one pixel high would grow to gigabytes.
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(Error::new(format!("{w}x{h} pixels are too narrow a strip")));
        }
        Ok(resize::resize(image, width, height))
    }

    /// The centre of the image, with black around where it is smaller.
    fn crop(&self, image: RgbImage) -> RgbImage {
        let (height, width) = self.output;
        if image.dimensions() == (width, height) {
            return image;
        }
        // Rounding down below zero as Python's `//` does decides which side gets the odd row of padding.
        let start = |have: u32, want: u32| (i64::from(have) - i64::from(want)).div_euclid(2);
        let (left, top) = (start(image.width(), width), start(image.height(), height));
        let mut result = RgbImage::new(width, height);
        image::imageops::replace(&mut result, &image, -left, -top);
        result
    }
}

/// Whether the file at `path` starts as one of the formats does. It may still be broken; one that cannot be opened counts
/// as an image too, so that it is reported where it is read.
pub fn is_image(path: &Path) -> bool {
    let mut start = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start)) {
        Ok(_) => decode::format(&start).is_some(),
        Err(_) => true,
    }
}

/// All pixels of the image at `path`, as PIL's `convert("RGB")` gives them, or over white.
pub fn decode(path: &Path, transparency: Transparency) -> Result<RgbImage> {
    decode::decode(path, transparency).context(|| format!("cannot use the image {}", shown(path))).hint(|| HINT)
}

/// Decodes the whole image and drops it: finds corrupt files before a model runs.
pub fn check(path: &Path) -> Result<()> {
    decode(path, Transparency::Drop).map(drop)
}

#[cfg(test)]
mod tests;
