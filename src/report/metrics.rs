//! `metrics.csv`: one row a logged step, empty where nothing was measured.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Logged;
use crate::error::Result;
use crate::run_dir::write_error;

/// An open metrics.csv.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Starts the file with its header; `path` must not exist.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|e| write_error(path, e))?;
        let mut metrics = Self { path: path.to_owned(), file };
        let columns = Logged::default().values().map(|(name, _)| name).join(",");
        metrics.line(&format!("epoch,step,{columns}\n"))?;
        Ok(metrics)
    }

    /// Adds the row of one step. Numbers have as many digits as it takes to read the same value back.
    pub fn write(&mut self, logged: &Logged) -> Result<()> {
        let mut row = format!("{},{}", logged.epoch, logged.step);
        for (_, value) in logged.values() {
            row.push(',');
            if let Some(value) = value {
                // Writing to a String cannot fail. Debug, unlike Display, writes 1e-10 and not 0.0000000001.
                let _ = write!(row, "{value:?}");
            }
        }
        row.push('\n');
        self.line(&row)
    }

    /// One unbuffered write a line, so that readers never see half of one.
    fn line(&mut self, line: &str) -> Result<()> {
        self.file.write_all(line.as_bytes()).map_err(|e| write_error(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_there_at_once_and_read_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let mut metrics = Metrics::create(&path).unwrap();
        let loss = f64::from(0.1f32) / 3.0;
        metrics.write(&Logged { step: 50, train_loss: Some(loss), lr: Some(8e-5), ..Logged::default() }).unwrap();
        metrics.write(&Logged { epoch: 1, step: 99, val_loss: Some(2.0), ..Logged::default() }).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "epoch,step,train/loss,val/loss,lr,tokens_per_sec");
        let cells: Vec<_> = lines[1].split(',').collect();
        assert_eq!(cells[2].parse::<f64>().unwrap(), loss);
        assert_eq!((cells[0], cells[1], cells[3], cells[4], cells[5]), ("0", "50", "", "8e-5", ""));
        assert_eq!(lines[2], "1,99,,2.0,,");
        assert!(Metrics::create(&path).unwrap_err().to_string().contains("metrics.csv"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let error = Metrics { path: "/dev/full".into(), file }.write(&Logged::default()).unwrap_err();
        assert!(error.to_string().contains("/dev/full") && error.advice().unwrap().contains("full"));
    }
}
