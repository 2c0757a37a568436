//! `train.log`: the log of a training run, at level info at least, in its folder.
//!
//! Lines from before the folder is known are kept in memory. A log that cannot be written does not stop the run.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::error::Result;
use crate::fs::write_error;

enum Sink {
    Waiting(Vec<u8>),
    File(File),
}

static SINK: Mutex<Sink> = Mutex::new(Sink::Waiting(Vec::new()));

/// Bytes kept in memory at most: commands other than `themo train` never open a log.
const MOST_WAITING: usize = 1 << 20;

fn sink() -> MutexGuard<'static, Sink> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on lines are added to the file at `path`, after those that waited.
pub fn open(path: &Path) -> Result<()> {
    let failed = |e| write_error(path, e);
    let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
    let mut sink = sink();
    if let Sink::Waiting(lines) = &*sink {
        // (On a full disk, the write of a checkpoint fails with an error of its own.)
        let _ = file.write_all(lines);
    }
    *sink = Sink::File(file);
    Ok(())
}

/// Adds a line that the user sees elsewhere: an error, or the result.
pub fn note(line: &str) {
    let _ = LogFile.write_all(format!("{line}\n").as_bytes());
}

/// Writes to the log.
pub struct LogFile;

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *sink() {
            Sink::File(file) => file.write(line),
            Sink::Waiting(lines) => {
                if lines.len() + line.len() <= MOST_WAITING {
                    lines.extend(line);
                }
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_for_the_file_and_then_are_added_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.log");
        std::fs::write(&path, "from before\n").unwrap();
        note("early");
        open(&path).unwrap();
        note("late");
        let text = std::fs::read_to_string(&path).unwrap();
        let at = |line: &str| text.find(line).unwrap();
        assert!(text.starts_with("from before\n") && at("early\n") < at("late\n"), "{text}");
        assert!(open(&dir.path().join("no/such")).is_err());
    }
}
