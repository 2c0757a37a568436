//! Files that are either old or new, never half written; and what their names look like in messages.

pub mod output;

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::{Error, Result, visible};

/// How another place is chosen for what a run writes.
const FOR_A_RUN: &str = "for a run, with --log-dir or --cache-dir";

/// Writes `bytes` to `path` so that a crash leaves the old file or the new one; makes missing folders.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// [`write_atomic`] of `value` as indented JSON with a final line end.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_json_at(path, value, FOR_A_RUN)
}

/// [`write_json`] whose error says `elsewhere`; see [`write_error_at`].
pub fn write_json_at(path: &Path, value: &impl Serialize, elsewhere: &str) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    replace(path, |file| file.write_all(text.as_bytes())).map_err(|e| write_error_at(path, e, elsewhere))
}

/// [`write_atomic`] for content that is produced piece by piece.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
    replace(path, write).map_err(|e| write_error(path, e))
}

/// [`write_atomic_with`] for callers that have advice of their own, with [`write_error_at`].
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    fs::create_dir_all(folder_of(path)?)?;
    let temporary = temporary_for(path)?;
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    put(temporary, path)
}

/// The folder that `path` lies in.
fn folder_of(path: &Path) -> io::Result<&Path> {
    path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
    Ok(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// A new file in the folder of `path`. Its own name is short: that of `path` may have all the bytes that a name can have.
fn temporary_for(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".themo-").suffix(".tmp");
    // tempfile makes private files; results are as readable as the old file was, or as the umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(folder_of(path)?)?;
    if let Ok(old) = fs::metadata(path) {
        // (Some file systems know no permissions.)
        let _ = temporary.as_file().set_permissions(old.permissions());
    }
    Ok(temporary)
}

/// Gives a finished file its name.
fn put(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    sync_dir(folder_of(path)?)
}

/// Makes names in `dir` outlast a power cut.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // Only Unix can open a folder as a file; some network file systems refuse to sync one.
    if cfg!(unix) {
        match File::open(dir)?.sync_all() {
            Err(e) if !matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The error of a failed write to `path` by a run, with the advice that its cause allows.
pub fn write_error(path: &Path, error: io::Error) -> Error {
    write_error_at(path, error, FOR_A_RUN)
}

/// The error of a failed write to `path`; `elsewhere` says how another place is chosen.
pub fn write_error_at(path: &Path, error: io::Error, elsewhere: &str) -> Error {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, or choose another disk"
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => "choose a folder that you may write to",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
            "part of this path exists as something else; choose another"
        }
        ErrorKind::InvalidFilename => "choose a shorter name",
        ErrorKind::BrokenPipe => "what reads it ended too early; start both again, or choose a file",
        _ => "choose another folder",
    };
    Error::from(error).context(format!("cannot write {}", shown(path))).hint(format!("{advice} ({elsewhere})"))
}

/// `path` for a message: names that differ look different, and nothing in them acts on the terminal.
pub fn shown(path: &Path) -> String {
    visible(&distinct(path.as_os_str()))
}

/// A name as text that no other name has: a byte that is not UTF-8 becomes U+FFFD and its two hexadecimal digits, and
/// U+FFFD itself is doubled. All other names stay as they are.
pub fn distinct(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text += &chunk.valid().replace('\u{fffd}', "\u{fffd}\u{fffd}");
        chunk.invalid().iter().for_each(|byte| text += &format!("\u{fffd}{byte:02x}"));
    }
    text
}

/// `path` as one word of a shell's command line.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Whether a file is locked for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It is.
    Ours,
    /// Another process has it.
    Theirs,
    /// Its file system has no locks.
    Unknown,
}

/// Locks `file`, opened from `path`, if no other process has it. The one rule where a file system has no locks: the user
/// is warned, and trusted to have one process only.
pub fn try_lock(file: &File, path: &Path) -> Lock {
    judge(file.try_lock(), path)
}

/// Locks `file`, opened from `path`; if another process has it, says so by `waiting`, and waits. [`Lock::Ours`], or
/// [`Lock::Unknown`] as for [`try_lock`].
pub fn lock(file: &File, path: &Path, waiting: &str) -> Lock {
    match try_lock(file, path) {
        Lock::Theirs => {
            tracing::info!("{waiting}; waiting for it");
            judge(file.lock().map_err(TryLockError::Error), path)
        }
        locked => locked,
    }
}

fn judge(locked: std::result::Result<(), TryLockError>, path: &Path) -> Lock {
    match locked {
        Ok(()) => Lock::Ours,
        Err(TryLockError::WouldBlock) => Lock::Theirs,
        Err(TryLockError::Error(error)) => {
            tracing::warn!("{} cannot be locked ({error}): do not run two themos on it at once", path.display());
            Lock::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/file.json");
        write_atomic(&path, b"old").unwrap();
        let full = |file: &mut BufWriter<&File>| {
            file.write_all(b"half")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        let error = write_atomic_with(&path, full).unwrap_err();
        assert!(error.to_string().contains("file.json") && error.advice().unwrap().contains("full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn a_name_may_have_all_the_bytes_that_a_file_system_takes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(255));
        write_atomic(&path, b"here").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"here");
        let error = write_atomic(&dir.path().join("n".repeat(256)), b"").unwrap_err();
        assert!(error.advice().unwrap().contains("shorter name"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn names_that_differ_look_different() {
        use std::os::unix::ffi::OsStrExt;
        let names =
            [&b"a\xff"[..], b"a\xfe", "a\u{fffd}".as_bytes(), b"a\\xff", "a\u{fffd}ff".as_bytes(), b"a\xef\xbf"];
        let texts: std::collections::BTreeSet<_> = names.map(|name| distinct(OsStr::from_bytes(name))).into();
        assert_eq!(texts.len(), names.len(), "{texts:?}");
        assert_eq!(distinct(OsStr::new("foto ñ.jpg")), "foto ñ.jpg");
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"a\x1b\xff"))), "a\\u{1b}\u{fffd}ff");
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_stays_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_quoted_path_is_one_word_of_a_shell() {
        for path in ["logs/demo/version_0", "a b", "it's", "$HOME/`x`\"", "a\nb", "", "~/x", "ñandú"] {
            let line = format!("printf %s {}", quoted(Path::new(path)));
            let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path, "{line}");
        }
        assert_eq!(quoted(Path::new("logs/demo/version_0")), "logs/demo/version_0");
    }

    #[test]
    fn a_file_is_locked_once_and_a_file_system_without_locks_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let [first, second] = [(); 2].map(|()| File::create(&path).unwrap());
        assert_eq!((lock(&first, &path, ""), try_lock(&second, &path)), (Lock::Ours, Lock::Theirs));
        drop(first);
        assert_eq!(lock(&second, &path, ""), Lock::Ours);
        assert_eq!(judge(Err(TryLockError::Error(ErrorKind::Unsupported.into())), &path), Lock::Unknown);
    }
}
