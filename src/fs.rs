//! Files that are either old or new, never half written.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

/// Writes `bytes` to `path` so that a crash leaves the old file or the new one; makes missing folders.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// [`write_atomic`] of `value` as indented JSON with a final line end.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
}

/// [`write_atomic`] for content that is produced piece by piece.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
    replace(path, write).map_err(|e| write_error(path, e))
}

fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let prefix = format!(".{}.", name.to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // tempfile makes private files; results are as readable as the umask allows, like any other output.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = builder.tempfile_in(dir)?;
    let mut buffered = BufWriter::new(temporary.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|e| e.error)?;
    sync_dir(dir)
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

/// The error of a failed write to `path`, with the advice that its cause allows.
pub fn write_error(path: &Path, error: io::Error) -> Error {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, or choose another disk (for a run, with --log-dir or --cache-dir)"
        }
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            "choose a folder that you may write to (for a run, with --log-dir or --cache-dir)"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
            "part of this path exists as something else; choose another (for a run, with --log-dir or --cache-dir)"
        }
        _ => "choose another folder (for a run, with --log-dir or --cache-dir)",
    };
    Error::from(error).context(format!("cannot write {}", path.display())).hint(hint)
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
}
