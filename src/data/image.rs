//! CLIP's image preprocessing: the pixels PIL and transformers' `CLIPImageProcessor` give a model.
//!
//! Decode (`image_decode.rs`), resize the shorter side with PIL's antialiased bicubic filter (`image_resize.rs`), centre
//! crop, rescale, normalise; the settings are the checkpoint's own `preprocessor_config.json`. EXIF rotation and colour
//! profiles are not applied.
//! Source: transformers `models/clip/image_processing_clip.py`, `image_transforms.py`.

use std::io::Read;
use std::path::Path;

use image::RgbImage;
use serde::Deserialize;

use super::image_decode::{MAX_PIXELS, decode, format};
use super::image_resize::resize;
use crate::error::{Error, Result, ResultExt};

const HINT: &str = "give a whole JPEG, PNG, WebP or GIF file";

/// What to do to an image before a CLIP image tower sees it.
#[derive(Clone, Debug)]
pub struct Preprocess {
    resize: Option<Resize>,
    /// (height, width) of the result.
    output: (u32, u32),
    /// The normalised value of every byte, for each channel.
    values: Box<[[f32; 256]; 3]>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Resize {
    ShortestEdge(u32),
    Exact { height: u32, width: u32 },
}

/// `preprocessor_config.json`; what is missing has the default of `CLIPImageProcessor`.
#[derive(Deserialize)]
#[serde(default)]
struct File {
    do_resize: bool,
    size: Size,
    resample: u32,
    do_center_crop: bool,
    crop_size: Size,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f64; 3],
    image_std: [f64; 3],
}

/// A number in files written before transformers 4.26, an object since.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u32),
    ShortestEdge { shortest_edge: u32 },
    Exact { height: u32, width: u32 },
}

impl Default for File {
    fn default() -> Self {
        Self {
            do_resize: true,
            size: Size::Number(224),
            resample: 3,
            do_center_crop: true,
            crop_size: Size::Number(224),
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
        }
    }
}

impl Preprocess {
    /// Reads a checkpoint's `preprocessor_config.json`.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path)
            .context(|| format!("cannot read {}", path.display()))
            .hint(|| "a CLIP checkpoint folder holds this file; fetch it from the model's page")?;
        let file = serde_json::from_slice::<File>(&bytes).map_err(Error::from);
        file.and_then(Self::new)
            .context(|| path.display().to_string())
            .hint(|| "themo does the preprocessing of CLIPImageProcessor with bicubic resizing only")
    }

    fn new(file: File) -> Result<Self> {
        if file.do_resize && file.resample != 3 {
            return Err(Error::new(format!("resample = {} is not supported, only 3 (bicubic)", file.resample)));
        }
        let resize = file.do_resize.then_some(match file.size {
            Size::Number(edge) | Size::ShortestEdge { shortest_edge: edge } => Resize::ShortestEdge(edge),
            Size::Exact { height, width } => Resize::Exact { height, width },
        });
        let output = match (file.do_center_crop, file.crop_size, resize) {
            (true, Size::Number(side), _) => (side, side),
            (true, Size::Exact { height, width }, _) => (height, width),
            (false, _, Some(Resize::Exact { height, width })) => (height, width),
            _ => {
                return Err(Error::new("the settings give images of different sizes (no centre crop)"));
            }
        };
        let edges = match resize {
            Some(Resize::ShortestEdge(edge)) => [edge, edge],
            Some(Resize::Exact { height, width }) => [height, width],
            None => [output.0, output.1],
        };
        if edges.into_iter().chain([output.0, output.1]).any(|edge| edge == 0 || edge > 4096) {
            return Err(Error::new("sizes must be from 1 to 4096"));
        }
        if file.do_normalize && file.image_std.iter().any(|std| *std <= 0.0 || !std.is_finite()) {
            return Err(Error::new("image_std must be positive"));
        }
        let mut values = Box::new([[0.0; 256]; 3]);
        for ((table, mean), std) in values.iter_mut().zip(file.image_mean).zip(file.image_std) {
            for (byte, value) in table.iter_mut().enumerate() {
                let scaled = byte as f64 * if file.do_rescale { file.rescale_factor } else { 1.0 };
                *value = (if file.do_normalize { (scaled - mean) / std } else { scaled }) as f32;
            }
        }
        Ok(Self { resize, output, values })
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
        decode(path).and_then(fit).context(|| format!("cannot use the image {}", path.display())).hint(|| HINT)
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
        Ok(resize(image, width, height))
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
        Ok(_) => format(&start).is_some(),
        Err(_) => true,
    }
}

/// Decodes the whole image and drops it: finds corrupt files before a model runs.
pub fn check(path: &Path) -> Result<()> {
    decode(path).map(drop).context(|| format!("cannot use the image {}", path.display())).hint(|| HINT)
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
