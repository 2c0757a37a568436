//! A file that grows by whole records. A record that does not fit on a full disk is written later.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fs::write_error;

/// An open file at whose end records are written.
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
    /// Where the last whole record ends.
    end: u64,
    /// Records that could not be written yet.
    waiting: Vec<u8>,
}

impl AppendFile {
    /// Writes to `file`, opened from `path`, from byte `end` on; what is behind it goes.
    pub fn new(path: &Path, file: File, end: u64) -> Result<Self> {
        let cut = || -> io::Result<()> {
            if file.metadata()?.len() > end {
                file.set_len(end)?;
            }
            (&file).seek(SeekFrom::Start(end))?;
            Ok(())
        };
        cut().map_err(|e| write_error(path, e))?;
        Ok(Self { path: path.to_owned(), file, end, waiting: Vec::new() })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length with all that waits.
    pub fn len(&self) -> u64 {
        self.end + self.waiting.len() as u64
    }

    /// Adds a record, which [`Self::flush`] writes.
    pub fn push(&mut self, record: &[u8]) {
        self.waiting.extend(record);
    }

    /// Writes what waits with one unbuffered write, so that readers never see half a record; what fails stays waiting.
    pub fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&self.waiting) {
            // Half of it may be there; if this fails too, a resume cuts it off.
            let _ = self.file.set_len(self.end).and_then(|()| self.file.seek(SeekFrom::Start(self.end)));
            return Err(write_error(&self.path, error));
        }
        self.end += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Writes what waits, and makes all of it outlast a power cut.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync_data().map_err(|e| write_error(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_written_before_it_is_synced_or_the_sync_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut open = AppendFile::new(&path, File::create(&path).unwrap(), 0).unwrap();
        open.push(b"row\n");
        open.sync().unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), open.len()), (b"row\n".to_vec(), 4));
        // A file that cannot be written, as on a full disk.
        let mut closed = AppendFile::new(&path, File::open(&path).unwrap(), 4).unwrap();
        closed.push(b"lost\n");
        assert!(closed.sync().unwrap_err().to_string().contains("cannot write"));
        assert_eq!(std::fs::read(&path).unwrap(), b"row\n");
    }
}
