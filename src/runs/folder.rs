//! Run folders `LOG_DIR/NAME/version_N`.
//!
//! A run takes the number after the highest one there and never writes into another run's folder, also when two
//! runs start at once: the folder gets its number with one `rename`, which only one of them can win.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::fs::{Lock, sync_dir, try_lock, write_atomic, write_error, write_json};
use crate::record::metrics::METRICS;

const PREFIX: &str = "version_";

/// The resolved configuration, see [`RunDir::config`].
pub const CONFIG: &str = "config.toml";

/// The build, the machine, the command and the folder of a run; see [`RunDir::started_in`].
pub const ENVIRONMENT: &str = "environment.json";

/// The file that a training process holds locked.
const LOCK: &str = ".lock";

/// How many existing versions a hint names.
const LISTED: usize = 5;

/// The folder of one run.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held by the process that trains in it.
    lock: Option<File>,
    /// The folders above it that this process made, the innermost first.
    made: Vec<PathBuf>,
}

impl RunDir {
    /// Makes `log_dir/name/version_N` with N one above the highest that exists (0 for the first). It appears with its
    /// config.toml in it and locked, so that every run folder can be resumed.
    pub fn create(log_dir: &Path, name: &str, config: &str) -> Result<Self> {
        let parent = log_dir.join(name);
        let failed = |e| write_error(&parent, e);
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let made = parent.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        fs::create_dir_all(&parent).map_err(failed)?;
        let temporary = tempfile::Builder::new().prefix(".starting-").tempdir_in(&parent).map_err(failed)?;
        // tempfile makes folders for the owner alone; a run is for whoever may read its parent.
        #[cfg(unix)]
        fs::metadata(&parent).and_then(|m| fs::set_permissions(temporary.path(), m.permissions())).map_err(failed)?;
        let mut run = Self { path: temporary.path().to_owned(), lock: None, made };
        write_atomic(&run.config(), config.as_bytes())?;
        // (A name that is not Unicode cannot be kept; then paths mean the working folder.)
        let folder = std::env::current_dir().ok().and_then(|dir| dir.into_os_string().into_string().ok());
        write_json(&run.path.join(ENVIRONMENT), &json!({"folder": folder}))?;
        run.lock()?;
        loop {
            let last = versions(&parent).map_err(failed)?.pop();
            run.path = parent.join(format!("{PREFIX}{}", last.map_or(0, |(n, _)| n.saturating_add(1))));
            match fs::rename(temporary.path(), &run.path) {
                Ok(()) => {
                    sync_dir(&parent).map_err(failed).inspect_err(|_| run.discard_if_unused())?;
                    return Ok(run);
                }
                // Another run took this number since we looked.
                Err(_) if run.path.exists() => {}
                Err(e) => return Err(write_error(&run.path, e)),
            }
        }
    }

    /// Locks the folder for this process, until it ends; fails if another process trains in it.
    pub fn lock(&mut self) -> Result<()> {
        let path = self.path.join(LOCK);
        let options = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = options().map_err(|e| write_error(&path, e))?;
        // `themo runs` may hold the lock for a moment.
        for _ in 0..20 {
            match try_lock(&file, &path) {
                Lock::Theirs => std::thread::sleep(Duration::from_millis(20)),
                Lock::Ours | Lock::Unknown => {
                    self.lock = Some(file);
                    return Ok(());
                }
            }
        }
        Err(Error::new(format!("another process is training in {}", self.path.display()))
            .hint("wait until it is done, or stop it first"))
    }

    /// Whether a process trains in it now.
    pub fn is_running(&self) -> bool {
        let file = File::open(self.path.join(LOCK));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The existing run folder at `path`: one that holds a `config.toml` or `checkpoints/`.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Self { path: path.to_owned(), lock: None, made: Vec::new() };
        if run.config().is_file() || run.checkpoints().is_dir() {
            return Ok(run);
        }
        let why = match fs::metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => "no such folder".to_owned(),
            Err(e) => e.to_string(),
            Ok(kind) if !kind.is_dir() => "not a folder".to_owned(),
            Ok(_) => "not the folder of a run: it has neither config.toml nor checkpoints/".to_owned(),
        };
        let near = versions_near(path);
        let hint = if near.is_empty() {
            "give the folder that `themo train` printed, such as logs/default/version_0".to_owned()
        } else {
            let skipped = if near.len() > LISTED { "..., " } else { "" };
            let names: Vec<_> = near.iter().rev().take(LISTED).rev().map(|p| p.display().to_string()).collect();
            format!("runs near by: {skipped}{}", names.join(", "))
        };
        Err(Error::new(why).context(format!("cannot open run {}", path.display())).hint(hint))
    }

    /// All runs in `dir` and up to two levels below it.
    pub fn find_all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut level = vec![dir.to_owned()];
        for depth in 0..3 {
            let mut next = Vec::new();
            for path in level {
                if path.join(CONFIG).is_file() {
                    found.push(Self { path, lock: None, made: Vec::new() });
                    continue;
                }
                match fs::read_dir(&path) {
                    Ok(entries) => {
                        next.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()))
                    }
                    Err(error) if depth == 0 => return Err(error),
                    Err(error) => tracing::warn!("{}: {error}", path.display()),
                }
            }
            // The folder of a run that is being created has a name that starts with a point.
            next.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
            next.sort();
            level = next;
        }
        Ok(found)
    }

    /// Removes the folder of a run that failed before it had anything to keep: no checkpoint, no logged step and no
    /// report of a divergence.
    pub fn discard_if_unused(&self) {
        let logged = fs::read_to_string(self.metrics()).is_ok_and(|text| text.lines().count() > 1);
        let saved = fs::read_dir(self.checkpoints())
            .is_ok_and(|entries| entries.flatten().any(|e| !e.file_name().to_string_lossy().starts_with('.')));
        if !logged && !saved && !self.diverged().exists() && fs::remove_dir_all(&self.path).is_ok() {
            // And the folders above that were made for it, if nothing else is in them.
            let _ = self.made.iter().try_for_each(fs::remove_dir);
        }
    }

    /// The run folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration, which `--config` accepts.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// The folder that the run was started in, which its relative paths mean; none if it is not known.
    pub fn started_in(&self) -> Option<PathBuf> {
        let environment: Value = serde_json::from_slice(&fs::read(self.path.join(ENVIRONMENT)).ok()?).ok()?;
        environment["folder"].as_str().map(PathBuf::from)
    }

    /// The table of logged steps.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The log of the run.
    pub fn log(&self) -> PathBuf {
        self.path.join("train.log")
    }

    /// The batch with which the run went wrong, if it did.
    pub fn diverged(&self) -> PathBuf {
        self.path.join("diverged.json")
    }

    /// Whether the run is in progress, or how it ended; see [`status`](super::status).
    pub fn status(&self) -> PathBuf {
        self.path.join("status.json")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The folder of evaluation results.
    pub fn eval(&self) -> PathBuf {
        self.path.join("eval")
    }
}

/// The entries `version_N` of `dir` by ascending number.
fn versions(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        found.extend(number.map(|n| (n, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// Runs in `path` and one level below it; if there are none, the same from its parent, and from that one's.
fn versions_near(path: &Path) -> Vec<PathBuf> {
    for base in path.ancestors().take(3).map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p }) {
        let mut dirs = vec![base.to_owned()];
        dirs.extend(fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path()));
        dirs[1..].sort();
        // Only a hint: folders that cannot be read are none.
        let runs: Vec<_> = dirs.iter().flat_map(|dir| versions(dir).unwrap_or_default()).map(|(_, p)| p).collect();
        if !runs.is_empty() {
            return runs;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_start_at_once_get_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut made: Vec<PathBuf> = std::thread::scope(|scope| {
            let create = || (0..10).map(|_| RunDir::create(dir.path(), "a", "").unwrap().path).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 80);
        assert!((0..80).all(|n| dir.path().join(format!("a/version_{n}/config.toml")).is_file()));
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 80, "something is left over");
    }

    #[test]
    fn one_process_at_a_time_trains_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), "a", "").unwrap();
        let mut other = RunDir::open(run.path()).unwrap();
        assert!(other.is_running());
        assert!(other.lock().unwrap_err().to_string().contains("another process"));
        drop(run);
        assert!(!other.is_running());
        other.lock().unwrap();
    }

    #[test]
    fn a_run_that_is_discarded_takes_only_what_was_made_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("mine");
        fs::create_dir(&logs).unwrap();
        RunDir::create(&logs, "a", "").unwrap().discard_if_unused();
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 0, "the folder of the user is empty, and there");
        RunDir::create(&dir.path().join("new/logs"), "a", "").unwrap().discard_if_unused();
        assert!(!dir.path().join("new").exists());
        let run = RunDir::create(&logs, "a", "").unwrap();
        assert_eq!(run.started_in(), std::env::current_dir().ok());
    }

    #[test]
    fn numbers_are_not_reused_and_sort_as_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for entry in ["version_9", "version_10", "version_x", "other"] {
            fs::create_dir_all(dir.path().join("a").join(entry)).unwrap();
        }
        let run = RunDir::create(dir.path(), "a", "").unwrap();
        assert!(run.path().ends_with("a/version_11"));
        assert!(RunDir::create(dir.path(), "b", "").unwrap().path().ends_with("b/version_0"));
    }

    #[test]
    fn opening_something_else_names_the_runs_near_by() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = RunDir::open(&dir.path().join("logs/a/version_0")).unwrap_err();
        assert!(nothing.advice().unwrap().contains("themo train"), "{nothing:?}");

        let run = RunDir::create(&dir.path().join("logs"), "a", "").unwrap();
        assert_eq!(RunDir::open(run.path()).unwrap().path(), run.path());
        for wrong in ["logs", "logs/a", "logs/a/version_7", "logs/b/version_0", "logs/a/version_0/config.toml"] {
            let error = RunDir::open(&dir.path().join(wrong)).unwrap_err();
            assert!(error.to_string().contains(wrong));
            assert!(error.advice().unwrap().contains("a/version_0"), "{wrong}: {error:?}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for error in [RunDir::create(&file, "a", "").unwrap_err(), write_atomic(&file.join("b"), b"").unwrap_err()] {
            assert!(error.to_string().contains(&file.display().to_string()));
            assert!(error.advice().is_some(), "{error:?}");
        }
    }
}
