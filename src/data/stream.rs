//! Image files in batches, decoded on all cores while the batch before is in use.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

use super::Preprocess;
use crate::error::Result;

/// Calls `f` with the index range and the `[3, height, width]` pixels of each batch of `paths`, in order; an image that
/// cannot be read arrives as its error. Batch k+1 is decoded while `f` works on batch k, and never more: memory holds
/// two batches. An error of `f` ends it. Must not be called from inside rayon's pool, which does the decoding.
pub fn for_each_batch(
    paths: &[PathBuf], batch: usize, preprocess: &Preprocess,
    mut f: impl FnMut(Range<usize>, Vec<Result<Vec<f32>>>) -> Result<()>,
) -> Result<()> {
    // A channel without room: the decoder holds one finished batch until it is asked for.
    let (sender, receiver) = sync_channel(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut start = 0;
            for chunk in paths.chunks(batch.max(1)) {
                let pixels = chunk.par_iter().map(|path| preprocess.load(path)).collect();
                let range = start..start + chunk.len();
                start = range.end;
                // Nobody listens any more once `f` has failed.
                if sender.send((range, pixels)).is_err() {
                    return;
                }
            }
        });
        // By value, so that an early return closes the channel before the scope waits for the decoder.
        receiver.into_iter().try_for_each(|(range, pixels)| f(range, pixels))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::Transparency;
    use crate::error::Error;
    use std::path::Path;

    #[test]
    fn batches_come_in_order_with_errors_in_place() -> Result<()> {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo");
        let preprocess =
            Preprocess::from_file(&demo.join("models/toy-clip/preprocessor_config.json"), Transparency::Drop)?;
        let image = |k: usize| demo.join(format!("imagenet/ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_{k:08}.JPEG"));
        let mut paths: Vec<_> = (1..=10).map(image).collect();
        paths[4] = "/nowhere.jpg".into();
        let mut seen = Vec::new();
        for_each_batch(&paths, 4, &preprocess, |range, pixels| {
            assert_eq!(range.len(), pixels.len());
            for (k, pixels) in range.zip(pixels) {
                seen.push(k);
                match pixels {
                    Ok(pixels) => assert_eq!(pixels, preprocess.load(&paths[k])?),
                    Err(error) => assert!(k == 4 && error.to_string().contains("/nowhere.jpg")),
                }
            }
            Ok(())
        })?;
        assert!(seen.into_iter().eq(0..10));

        let mut calls = 0;
        let stopped = for_each_batch(&paths, 1, &preprocess, |_, _| {
            calls += 1;
            Err(Error::new("enough"))
        });
        assert!(stopped.is_err() && calls == 1);
        for_each_batch(&[], 4, &preprocess, |_, _| Err(Error::new("nothing to do")))
    }
}
