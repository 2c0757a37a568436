//! Runs of the Python Themo, which PyTorch Lightning wrote: `version_N/checkpoints/*.ckpt` beside `hparams.yaml`.
//!
//! The names of checkpoints are those of Lightning's `ModelCheckpoint`: `epoch=3-train-loss=0.2440.ckpt`, with `-v1`
//! before the ending where the name was taken, a folder for each `/` in the name of the loss, or `last.ckpt`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, ResultExt};

/// A checkpoint of the Python Themo.
#[derive(Debug, PartialEq)]
pub struct Lightning {
    /// The file.
    pub file: PathBuf,
    /// Where results of its evaluation go: `eval` in the folder of the run, or `NAME.eval` beside a single file.
    pub eval: PathBuf,
    /// What `hparams.yaml` says of the length at which captions were cut, special tokens included.
    pub max_sequence_length: Option<usize>,
}

impl Lightning {
    /// What `path` names: a file (`.ckpt`, `.pt`, `.pth`, `.bin`, `.safetensors`), or the folder of a run with the best of
    /// its `.ckpt` files, by the loss in their names; none where there is no such file.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        if path.is_file() {
            let (file, eval) = (path.to_owned(), path.with_extension("eval"));
            let folders = path.ancestors().skip(1).take(4);
            return Ok(Some(Self { file, eval, max_sequence_length: max_sequence_length(folders)? }));
        }
        let mut files = Vec::new();
        collect(&path.join("checkpoints"), 2, &mut files);
        let best = files.into_iter().min_by(|a, b| {
            let (loss_a, loss_b) = (loss(a), loss(b));
            // Without a loss, `last` comes first; on a tie, the newest.
            let key = |file: &Path, loss: f64| (loss.is_infinite() && !name(file).starts_with("last"), counts(file));
            let ((early_a, counts_a), (early_b, counts_b)) = (key(a, loss_a), key(b, loss_b));
            loss_a
                .total_cmp(&loss_b)
                .then(early_a.cmp(&early_b))
                .then(counts_b.cmp(&counts_a))
                .then(b.file_stem().cmp(&a.file_stem()))
        });
        let Some(file) = best else { return Ok(None) };
        let max_sequence_length = max_sequence_length([path].into_iter())?;
        Ok(Some(Self { file, eval: path.join("eval"), max_sequence_length }))
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "ckpt")
}

/// The checkpoint files in `folder` and `deeper` levels below it.
fn collect(folder: &Path, deeper: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && deeper > 0 {
            collect(&path, deeper - 1, files);
        } else if path.is_file() && is_checkpoint(&path) {
            files.push(path);
        }
    }
}

fn name(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The loss in a file's name; infinity where there is none.
fn loss(file: &Path) -> f64 {
    number_after(name(file), "loss=").filter(|loss| !loss.is_nan()).unwrap_or(f64::INFINITY)
}

/// Epoch and step in a file's path; the epoch may stand in the name of a folder.
fn counts(file: &Path) -> [u64; 2] {
    let path = file.to_string_lossy();
    ["epoch=", "step="].map(|key| number_after(&path, key).map_or(0, |number| number as u64))
}

fn number_after(text: &str, key: &str) -> Option<f64> {
    let text = &text[text.rfind(key)? + key.len()..];
    let mut end = text.len();
    // A number may be followed by an ending, `-v1`, or the next key.
    while end > 0 {
        match text.get(..end).and_then(|text| text.parse().ok()) {
            Some(number) => return Some(number),
            None => end -= 1,
        }
    }
    None
}

/// `max_sequence_length` in the first `hparams.yaml` of `folders`. The file is a flat list of `key: value`.
fn max_sequence_length<'a>(folders: impl Iterator<Item = &'a Path>) -> Result<Option<usize>> {
    let Some(path) = folders.map(|folder| folder.join("hparams.yaml")).find(|path| path.is_file()) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if key.trim().replace('-', "_") == "max_sequence_length" {
            let value = value.trim();
            return value.parse().map(Some).map_err(|_| {
                Error::new(format!("max_sequence_length is `{value}`"))
                    .context(path.display().to_string())
                    .hint("it must be a whole number; correct or remove the line")
            });
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_loss_in_a_name_is_the_best_checkpoint() {
        for (files, best) in [
            (&["epoch=0-train-loss=0.5000.ckpt", "epoch=9-train-loss=0.2440.ckpt", "last.ckpt"][..], 1),
            (&["epoch=3-train_loss=0.30.ckpt", "epoch=12-train_loss=0.4.ckpt"], 0),
            (&["epoch=3-train/loss=0.30.ckpt", "epoch=12-train/loss=0.24.ckpt"], 1),
            (&["epoch=3-step=10-train_loss=1.2e-1.ckpt", "epoch=4-step=20-train_loss=9.0e-2.ckpt"], 1),
            (&["epoch=3-train_loss=0.30.ckpt", "epoch=3-train_loss=0.30-v1.ckpt"], 1),
            (&["epoch=3-train_loss=0.30.ckpt", "epoch=4-train_loss=nan.ckpt", "epoch=5-train_loss=inf.ckpt"], 0),
            (&["epoch=2-step=90.ckpt", "last.ckpt"], 1),
            (&["epoch=2-step=90.ckpt", "epoch=11-step=400.ckpt"], 1),
            (&["last.ckpt"], 0),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let checkpoints = folder.path().join("checkpoints");
            for file in files {
                fs::create_dir_all(checkpoints.join(file).parent().unwrap()).unwrap();
                fs::write(checkpoints.join(file), "").unwrap();
            }
            let found = Lightning::find(folder.path()).unwrap().unwrap();
            assert_eq!(found.file, checkpoints.join(files[best]), "{files:?}");
            assert_eq!((found.eval, found.max_sequence_length), (folder.path().join("eval"), None));
        }
    }

    #[test]
    fn what_is_no_run_of_lightning_is_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("checkpoints/last")).unwrap();
        assert_eq!(Lightning::find(folder.path()).unwrap(), None);
        assert_eq!(Lightning::find(&folder.path().join("absent.ckpt")).unwrap(), None);
    }

    #[test]
    fn hparams_tell_the_length_of_captions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("checkpoints/epoch=1-train-loss=0.5.ckpt");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        fs::write(folder.path().join("hparams.yaml"), "batch_size: 256\nmax-sequence-length: 40\n").unwrap();
        for path in [folder.path(), &file] {
            assert_eq!(Lightning::find(path).unwrap().unwrap().max_sequence_length, Some(40));
        }
        let found = Lightning::find(&file).unwrap().unwrap();
        assert!(found.eval.ends_with("checkpoints/epoch=1-train-loss=0.5.eval"));
        fs::write(folder.path().join("hparams.yaml"), "max_sequence_length: long").unwrap();
        assert!(Lightning::find(&file).unwrap_err().advice().is_some());
    }
}
