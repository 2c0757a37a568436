//! One output file that the user named: opened before any work, written in pieces, and there as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{folder_of, put, temporary_for, write_error_at};
use crate::error::{Error, Result};

/// More links than this, one after another, are a circle.
const MAX_LINKS: usize = 40;

/// An output that is being written. A regular file is replaced at the end, under the links that lead to it; standard
/// output (`-`, `/dev/stdout`), devices, pipes and open descriptors (`/dev/fd/3`) get the whole content at the end.
pub struct Output {
    path: PathBuf,
    elsewhere: &'static str,
    place: Place,
}

enum Place {
    /// Written beside `target`, which it becomes.
    Replaced { temporary: NamedTempFile, target: PathBuf, made: Folders },
    /// Written to a file without a name, then copied.
    Through { spool: File, sink: Box<dyn Write>, is_stdout: bool },
}

/// Folders that were made for the output, outermost first; they go again if it does not come about.
struct Folders(Vec<PathBuf>);

impl Drop for Folders {
    fn drop(&mut self) {
        // One that others have used in the meantime is not empty and stays.
        self.0.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

impl Output {
    /// Opens the output at `path`; `elsewhere` says how the user chooses another (`with --output`).
    pub fn open(path: &Path, elsewhere: &'static str) -> Result<Self> {
        let failed = |e| write_error_at(path, e, elsewhere);
        let place = match find(path).map_err(failed)? {
            Found::Folder => {
                return Err(Error::usage(format!("{} is a folder, not a file to write", super::shown(path)))
                    .hint(format!("give the name of a file, such as vectors.safetensors ({elsewhere})")));
            }
            Found::Stdout if io::stdout().is_terminal() => {
                return Err(Error::usage("the output is binary, and standard output is a terminal")
                    .hint(format!("redirect it, or give the name of a file ({elsewhere})")));
            }
            Found::Stdout => through(Box::new(io::stdout()), true)?,
            Found::Descriptor => through(Box::new(OpenOptions::new().append(true).open(path).map_err(failed)?), false)?,
            Found::Special => through(Box::new(OpenOptions::new().write(true).open(path).map_err(failed)?), false)?,
            Found::Regular(target) => {
                let made = make_folders(&target).map_err(failed)?;
                Place::Replaced { temporary: temporary_for(&target).map_err(failed)?, target, made }
            }
        };
        Ok(Self { path: path.to_owned(), elsewhere, place })
    }

    /// Where the content is put together. It is read from its beginning when all is there.
    pub fn file(&mut self) -> &mut File {
        match &mut self.place {
            Place::Replaced { temporary, .. } => temporary.as_file_mut(),
            Place::Through { spool, .. } => spool,
        }
    }

    /// The error of a failed write to [`Self::file`].
    pub fn failed(&self, error: io::Error) -> Error {
        match self.place {
            Place::Replaced { .. } => write_error_at(&self.path, error, self.elsewhere),
            Place::Through { .. } => cannot_spool(error),
        }
    }

    /// Whether the content goes to standard output, where nothing else may stand then.
    pub fn is_stdout(&self) -> bool {
        matches!(self.place, Place::Through { is_stdout: true, .. })
    }

    /// What to do if the program is ended before [`Self::finish`]: takes away what was made.
    pub fn undo(&self) -> impl FnOnce() + Send + 'static {
        let made = match &self.place {
            Place::Replaced { temporary, made, .. } => Some((temporary.path().to_owned(), made.0.clone())),
            Place::Through { .. } => None,
        };
        move || {
            if let Some((file, folders)) = made {
                drop(fs::remove_file(file));
                drop(Folders(folders));
            }
        }
    }

    /// All has been written: gives it its name, or sends it on.
    pub fn finish(self) -> Result<()> {
        let Self { path, elsewhere, place } = self;
        let failed = |e| write_error_at(&path, e, elsewhere);
        match place {
            Place::Replaced { temporary, target, mut made } => {
                put(temporary, &target).map_err(failed)?;
                made.0.clear();
                Ok(())
            }
            Place::Through { mut spool, mut sink, .. } => {
                spool.rewind().map_err(cannot_spool)?;
                io::copy(&mut spool, &mut sink).and_then(|_| sink.flush()).map_err(failed)
            }
        }
    }
}

fn through(sink: Box<dyn Write>, is_stdout: bool) -> Result<Place> {
    Ok(Place::Through { spool: tempfile::tempfile().map_err(cannot_spool)?, sink, is_stdout })
}

fn cannot_spool(error: io::Error) -> Error {
    write_error_at(&std::env::temp_dir(), error, "the variable TMPDIR names the folder of temporary files")
}

/// What an output is.
enum Found {
    Folder,
    Stdout,
    /// A regular file that this process was given open, by the path of the descriptor.
    Descriptor,
    /// A device or a pipe.
    Special,
    /// A regular file at this path, there or to be made.
    Regular(PathBuf),
}

fn find(path: &Path) -> io::Result<Found> {
    if path == Path::new("-") {
        return Ok(Found::Stdout);
    }
    let metadata = match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        other => Some(other?),
    };
    if metadata.as_ref().is_some_and(is_stdout) {
        return Ok(Found::Stdout);
    }
    if metadata.as_ref().is_some_and(fs::Metadata::is_dir) || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Ok(Found::Folder);
    }
    if metadata.is_some_and(|metadata| !metadata.is_file()) {
        return Ok(Found::Special);
    }
    Ok(follow(path)?.map_or(Found::Descriptor, Found::Regular))
}

/// Whether this is the file that standard output goes to.
#[cfg(unix)]
fn is_stdout(metadata: &fs::Metadata) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let own = io::stdout().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    own.is_ok_and(|own| (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn is_stdout(_: &fs::Metadata) -> bool {
    false
}

/// The path behind all links, whether there is a file or not; none where a link is an open descriptor, whose file may
/// have no name any more.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        let folder = folder_of(&at)?.canonicalize().unwrap_or_default();
        if folder == Path::new("/dev/fd") || (folder.starts_with("/proc") && folder.ends_with("fd")) {
            return Ok(None);
        }
        match fs::read_link(&at) {
            Ok(next) => at = at.parent().unwrap_or(Path::new("")).join(next),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => return Ok(Some(at)),
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("too many links, one after another"))
}

/// Makes the folders that `target` lacks.
fn make_folders(target: &Path) -> io::Result<Folders> {
    let mut missing: Vec<_> =
        folder_of(target)?.ancestors().take_while(|folder| !folder.as_os_str().is_empty()).collect();
    missing.retain(|folder| !folder.exists());
    let mut made = Folders(Vec::new());
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(e) => return Err(e),
            Ok(()) => made.0.push(folder.to_owned()),
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_does_not_come_about_leaves_nothing() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("new/folders/file");
        let begun = || -> Result<Output> {
            let mut output = Output::open(&path, "with --output")?;
            output.file().write_all(b"half")?;
            Ok(output)
        };
        drop(begun()?);
        assert!(!dir.path().join("new").exists());
        // The program is ended: nothing is dropped then.
        let output = std::mem::ManuallyDrop::new(begun()?);
        output.undo()();
        assert!(!dir.path().join("new").exists());
        // What somebody else has put there stays.
        let output = begun()?;
        fs::write(dir.path().join("new/other"), "")?;
        drop(output);
        assert!(dir.path().join("new/other").exists() && !dir.path().join("new/folders").exists());

        begun()?.finish()?;
        assert_eq!(fs::read(&path)?, b"half");
        drop(begun()?);
        assert_eq!(fs::read(&path)?, b"half");
        assert_eq!(fs::read_dir(dir.path().join("new/folders"))?.count(), 1);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn outputs_are_told_apart() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("folder"))?;
        fs::write(at("file"), "")?;
        for (link, target) in [("a", "folder/../file"), ("b", "a"), ("gone", "folder/new"), ("c", "folder"), ("d", "d")]
        {
            std::os::unix::fs::symlink(target, at(link))?;
        }
        let regular = |path: &Path| match find(path) {
            Ok(Found::Regular(target)) => Some(target),
            _ => None,
        };
        assert_eq!(regular(&at("b")), Some(at("folder/../file")));
        assert_eq!(regular(&at("gone")), Some(at("folder/new")));
        assert!(matches!(find(&at("c")), Ok(Found::Folder)) && matches!(find(&at("new/")), Ok(Found::Folder)));
        assert!(matches!(find(Path::new("-")), Ok(Found::Stdout)));
        assert!(find(&at("d")).is_err() && find(Path::new("")).is_err());
        // (Opened for writing here and never written.)
        let file = File::options().write(true).open(at("file"))?;
        if cfg!(target_os = "linux") {
            let path = PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
            assert!(matches!(find(&path), Ok(Found::Descriptor)));
        }
        Ok(())
    }
}
