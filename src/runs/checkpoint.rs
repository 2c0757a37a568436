//! Checkpoints: folders that hold a student and all it takes to resume, written whole or not at all.
//!
//! `checkpoints/epoch=E_train-loss=L` is one of the best (the original's names), `checkpoints/last` the newest. Each
//! holds the student (see `Student::save`: a folder that transformers' AutoModel loads, with a head beside it), its
//! tokenizer, the optimizer's moments in `optimizer.safetensors`, and `state.json`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::retention::keep_best;
use super::state::{Measured, State};
use crate::data::tokens::TOKENIZER_FILES;
use crate::error::{Error, Result, ResultExt};
use crate::fs::sync_dir;
use crate::models::folder::parse_json;
use crate::models::student::HEAD_FILE;
use crate::models::weights::write_tensors;
use crate::models::{Student, TokenizerFacts};

const LAST: &str = "last";
pub(super) const STATE_FILE: &str = "state.json";
const MOMENTS_FILE: &str = "optimizer.safetensors";
/// Prefixes of a folder that is being written, and of one that is being replaced.
const WRITING: &str = ".writing-";
pub(super) const ASIDE: &str = ".old-";

/// What a checkpoint keeps of a training besides its state.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// The student, with the weights to keep.
    pub student: &'a Student,
    /// The optimizer's lists of tensors by name, each in the order of the parameters; empty tensors for what is frozen.
    pub moments: &'a [(&'static str, &'a [Tensor])],
}

/// The operations of a file system that some of them refuse; tests pass in others.
#[derive(Clone, Copy)]
struct Disk {
    link: fn(&Path, &Path) -> io::Result<()>,
    sync_dir: fn(&Path) -> io::Result<()>,
}

/// The checkpoints folder of a run.
pub struct Checkpoints {
    disk: Disk,
    dir: PathBuf,
    /// The folder the student came from: its tokenizer goes into every checkpoint.
    source: PathBuf,
    tokenizer: TokenizerFacts,
    /// How many of the best are kept.
    most: usize,
    /// The checkpoint written last and its number of steps: another of the same steps shares its files.
    newest: Option<(usize, PathBuf)>,
}

impl Checkpoints {
    /// Checkpoints in `dir` of a student loaded from `source` with its `tokenizer`, of which the best `most` are kept.
    /// First undoes what a killed run left half done.
    pub fn open(dir: PathBuf, source: &Path, tokenizer: TokenizerFacts, most: usize) -> Result<Self> {
        fs::create_dir_all(&dir).context(|| format!("cannot create {}", dir.display()))?;
        tidy(&dir).context(|| format!("cannot clean up {}", dir.display()))?;
        let disk = Disk { link: |from, to| fs::hard_link(from, to), sync_dir };
        Ok(Self { disk, dir, source: source.to_owned(), tokenizer, most, newest: None })
    }

    /// Removes the best checkpoints that are further than `state`, from which the run is resumed: of later steps, or of
    /// an epoch that max-steps cut after the same ones and that `state` continues.
    pub fn cut_back(&self, state: &State) -> Result<()> {
        let is_later = |found: &State| (found.steps, found.epoch) > (state.steps, state.epoch);
        let later = list_best(&self.dir)?.into_iter().filter(|(_, found)| is_later(found));
        self.remove(&later.map(|(path, _)| path).collect::<Vec<_>>())
    }

    /// Writes `last`.
    pub fn save_last(&mut self, snapshot: Snapshot, state: &State) -> Result<PathBuf> {
        self.save(snapshot, state, LAST)
    }

    /// Writes a checkpoint for the epoch that `ended` describes if it is among the best, then `last`, and only then removes
    /// the ones it displaces: a crash before `last` resumes from an older state, which still needs them. An epoch that
    /// `last` is to continue displaces none: its checkpoint goes once it is continued.
    pub fn save_epoch(&mut self, snapshot: Snapshot, ended: &State, last: &State) -> Result<()> {
        let displaced = self.save_if_best(snapshot, ended)?;
        self.save_last(snapshot, last)?;
        if ended.epoch == last.epoch { self.remove(&displaced) } else { Ok(()) }
    }

    /// Writes a checkpoint for the epoch just ended if it is among the best; returns the ones it displaces.
    fn save_if_best(&mut self, snapshot: Snapshot, state: &State) -> Result<Vec<PathBuf>> {
        let Some(new) = &state.measured else { return Ok(Vec::new()) };
        let name = name_of(new);
        let there: Vec<(String, Measured)> = list_best(&self.dir)?
            .into_iter()
            .filter_map(|(path, state)| Some((path.file_name()?.to_str()?.to_owned(), state.measured?)))
            .filter(|(there, _)| *there != name)
            .collect();
        let decision = keep_best(&there, new, self.most);
        if decision.keep {
            self.save(snapshot, state, &name)?;
        }
        Ok(decision.drop.iter().map(|name| self.dir.join(name)).collect())
    }

    /// Removes checkpoints.
    fn remove(&self, folders: &[PathBuf]) -> Result<()> {
        for folder in folders {
            fs::remove_dir_all(folder).context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// Writes everything beside the final place, synced, then renames.
    fn save(&mut self, snapshot: Snapshot, state: &State, name: &str) -> Result<PathBuf> {
        let failed = || format!("cannot write the checkpoint {name} in {}", self.dir.display());
        let full = || "check the free space and the permissions; earlier checkpoints are untouched";
        let temporary = tempfile::Builder::new().prefix(WRITING).tempdir_in(&self.dir).context(failed).hint(full)?;
        self.fill(temporary.path(), snapshot, state).context(failed).hint(full)?;
        let path = self.dir.join(name);
        self.put(temporary.path(), &path, name).context(failed).hint(full)?;
        self.newest = Some((state.steps, path.clone()));
        Ok(path)
    }

    fn fill(&self, folder: &Path, snapshot: Snapshot, state: &State) -> Result<()> {
        let twin = self.newest.as_ref().filter(|(steps, _)| *steps == state.steps);
        let shared = match twin {
            Some((_, twin)) => share(twin, folder, self.disk.link)?,
            None => false,
        };
        if !shared {
            snapshot.student.save(folder, self.tokenizer)?;
            write_moments(snapshot, &folder.join(MOMENTS_FILE))?;
            for file in TOKENIZER_FILES {
                if self.source.join(file).exists() {
                    fs::copy(self.source.join(file), folder.join(file))?;
                }
            }
        }
        fs::write(folder.join(STATE_FILE), serde_json::to_string_pretty(state)? + "\n")?;
        for entry in fs::read_dir(folder)? {
            File::open(entry?.path())?.sync_all()?;
        }
        // The names in it, too, before it takes the place of another.
        Ok((self.disk.sync_dir)(folder)?)
    }

    /// Gives the finished folder its name.
    fn put(&self, temporary: &Path, path: &Path, name: &str) -> Result<()> {
        // A folder cannot replace another in one step: the old one is renamed first, and removed at the end.
        let aside = self.dir.join(format!("{ASIDE}{name}"));
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        if path.exists() {
            fs::rename(path, &aside)?;
        }
        // tempfile makes folders for the owner alone; a checkpoint is for whoever may read the run.
        #[cfg(unix)]
        fs::set_permissions(temporary, fs::metadata(&self.dir)?.permissions())?;
        if let Err(error) = fs::rename(temporary, path) {
            if aside.exists() {
                fs::rename(&aside, path)?;
            }
            return Err(error.into());
        }
        (self.disk.sync_dir)(&self.dir)?;
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        Ok(())
    }
}

/// `epoch=E_train-loss=L`, as the original names them.
fn name_of(measured: &Measured) -> String {
    format!("epoch={}_{}={:.4}", measured.epoch, measured.monitor.replace('/', "-"), measured.value)
}

/// Makes hard links in `to` to the files of a checkpoint of the same step, all but the state: files are never changed once
/// written. Where one cannot be made, none is left (to write to it would be to write to the other checkpoint), and it
/// returns false.
fn share(from: &Path, to: &Path, link: fn(&Path, &Path) -> io::Result<()>) -> io::Result<bool> {
    let entries = fs::read_dir(from).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut files = entries.unwrap_or_default().into_iter().filter(|entry| entry.file_name() != STATE_FILE).peekable();
    let is_there = files.peek().is_some();
    if is_there && files.all(|file| link(&file.path(), &to.join(file.file_name())).is_ok()) {
        return Ok(true);
    }
    for entry in fs::read_dir(to)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(false)
}

/// Undoes what a killed run left half done: removes half-written folders, and restores an old one whose successor never
/// got its name. The caller holds the lock of the run.
pub fn tidy(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        if name.starts_with(WRITING) {
            fs::remove_dir_all(&path)?;
        } else if let Some(name) = name.strip_prefix(ASIDE) {
            if dir.join(name).exists() { fs::remove_dir_all(&path)? } else { fs::rename(&path, dir.join(name))? }
        }
    }
    Ok(())
}

/// The best checkpoints of a folder with their states.
fn list_best(dir: &Path) -> Result<Vec<(PathBuf, State)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(|| format!("cannot read {}", dir.display()))?.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with("epoch=") && path.join(HEAD_FILE).exists() {
            match read_state(&path) {
                Ok(state) => found.push((path, state)),
                Err(error) if path.exists() => return Err(error),
                Err(_) => {} // A run in training has just removed it.
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// The checkpoint to test: the best one of a run's `checkpoints` folder, else `last`.
pub fn find_best(dir: &Path) -> Result<PathBuf> {
    let mut best: Option<(Measured, PathBuf)> = None;
    for (path, state) in if dir.is_dir() { list_best(dir)? } else { Vec::new() } {
        let Some(measured) = state.measured else { continue };
        if best.as_ref().is_none_or(|(best, _)| measured.better_than(best)) {
            best = Some((measured, path));
        }
    }
    if let Some((_, path)) = best {
        return Ok(path);
    }
    find_last(dir).ok_or_else(|| {
        Error::new(format!("no checkpoint in {}", dir.display()))
            .hint("the run may have been stopped before its first epoch ended; train again, or choose another version")
    })
}

/// The newest checkpoint of a run's `checkpoints` folder, if there is one: where somebody removed `last`, the newest of the
/// best that a run can be resumed from.
pub fn find_last(dir: &Path) -> Option<PathBuf> {
    // `.old-last` is what is left if a run was killed between the two renames of a replacement, and what `last` is
    // called for a moment in a run that is training.
    let names = [LAST.to_owned(), format!("{ASIDE}{LAST}"), LAST.to_owned()];
    let is_there = |path: &PathBuf| path.join(HEAD_FILE).exists();
    names.into_iter().map(|name| dir.join(name)).find(is_there).or_else(|| {
        // (A finished one may be that of an epoch that max-steps cut, which is to be continued within.)
        let best = list_best(dir).unwrap_or_default().into_iter().filter(|(_, state)| !state.finished);
        best.max_by_key(|(_, state)| state.steps).map(|(path, _)| path)
    })
}

/// The state of the checkpoint in `folder`.
pub fn read_state(folder: &Path) -> Result<State> {
    parse_json(&folder.join(STATE_FILE)).hint(|| {
        let folder = folder.display();
        format!("this checkpoint is damaged: without the folder {folder}, another of the run's is taken")
    })
}

/// Fills the optimizer's `moments` (see [`Snapshot`]) from the checkpoint that `student` was loaded from.
pub fn restore(folder: &Path, student: &Student, moments: Vec<(&'static str, &mut Vec<Tensor>)>) -> Result<()> {
    let path = folder.join(MOMENTS_FILE);
    let failed = || format!("cannot read the optimizer's moments from {}", path.display());
    let tensors = candle_core::safetensors::load(&path, student.device()).context(failed)?;
    for (slot, list) in moments {
        for (entry, tensor) in student.params().iter().zip(list).filter(|(entry, _)| entry.trainable) {
            let part = |(name, _)| {
                let name = format!("{slot}.{name}");
                tensors
                    .get(&name)
                    .ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")).context(failed()))
            };
            let parts = entry.parts(tensor)?.into_iter().map(part).collect::<Result<Vec<_>>>()?;
            let whole = Tensor::cat(&parts, 0)?;
            if whole.shape() != tensor.shape() {
                return Err(Error::new(format!("`{}` has another shape", entry.name())).context(failed()));
            }
            *tensor = whole;
        }
    }
    Ok(())
}

/// Writes the optimizer's tensors as `SLOT.PARAMETER`.
fn write_moments(snapshot: Snapshot, path: &Path) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (slot, list) in snapshot.moments {
        for (entry, tensor) in snapshot.student.params().iter().zip(*list).filter(|(entry, _)| entry.trainable) {
            for (name, part) in entry.parts(tensor)? {
                tensors.insert(format!("{slot}.{name}"), part.to_device(&Device::Cpu)?.contiguous()?);
            }
        }
    }
    write_tensors(tensors, None, path)
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
