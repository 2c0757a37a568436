//! `metrics.csv`: one row per logged step, with empty cells for what was not measured.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::Logged;
use super::append::AppendFile;
use crate::error::Result;
use crate::fs::write_error;

/// The file's name in the folder of a run.
pub const METRICS: &str = "metrics.csv";

/// An open metrics.csv.
#[derive(Debug)]
pub struct Metrics {
    file: AppendFile,
    rows: usize,
    columns: usize,
}

impl Metrics {
    /// Opens the file, cut back to its header and `rows` rows; starts it if there is none. The last column is there
    /// only `with_recall`.
    pub fn open(path: &Path, rows: usize, with_recall: bool) -> Result<Self> {
        let failed = |e| write_error(path, e);
        let options = || File::options().read(true).write(true).create(true).truncate(false).open(path);
        let (mut file, mut bytes) = (options().map_err(failed)?, Vec::new());
        file.read_to_end(&mut bytes).map_err(failed)?;
        let names = Logged::default().values().map(|(name, _)| name);
        let columns = names.len() - usize::from(!with_recall);
        let header: Vec<&str> = ["epoch", "step"].into_iter().chain(names).take(2 + columns).collect();
        let mut found = records(&bytes);
        let mut kept = found.next().filter(|(first, _)| *first == header).map_or(0, |(_, end)| end);
        let mut there = 0;
        for (_, end) in found.take(if kept > 0 { rows } else { 0 }) {
            (kept, there) = (end, there + 1);
        }
        if there < rows {
            tracing::warn!("{} has lost {} rows", path.display(), rows - there);
        }
        let mut metrics = Self { file: AppendFile::new(path, file, kept as u64)?, rows: there, columns };
        if kept == 0 {
            metrics.file.push(&line(&header));
            metrics.flush()?;
        }
        Ok(metrics)
    }

    /// Adds the row of one step. Numbers have as many digits as it takes to read the same value back.
    pub fn write(&mut self, logged: &Logged) {
        let mut row = vec![logged.epoch.to_string(), logged.step.to_string()];
        // Debug, unlike Display, writes 1e-10 and not 0.0000000001.
        let cell = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:?}"));
        row.extend(logged.values().into_iter().take(self.columns).map(|(_, value)| cell(value)));
        self.file.push(&line(&row));
        self.rows += 1;
    }

    /// Makes what is written outlast a power cut.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }

    /// Writes the rows that could not be written yet.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    /// Rows below the header.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// Epoch and step of the last row of a metrics.csv.
pub fn last_row(path: &Path) -> Option<(usize, usize)> {
    let (last, _) = records(&std::fs::read(path).ok()?).last()?;
    let number = |cell: &[u8]| std::str::from_utf8(cell).ok()?.parse().ok();
    Some((number(last.get(0)?)?, number(last.get(1)?)?))
}

/// A line with these cells.
fn line(cells: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _ = writer.write_record(cells);
    writer.into_inner().unwrap_or_default()
}

/// The records of the whole lines in `bytes`, each with the offset at which it ends. A last line without its end, which
/// a killed run left, is none.
fn records(bytes: &[u8]) -> impl Iterator<Item = (csv::ByteRecord, usize)> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // No cell is ever quoted: a quotation mark is damage, and must not hide the lines that follow.
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).quoting(false).from_reader(&bytes[..whole]);
    std::iter::from_fn(move || {
        let mut record = csv::ByteRecord::new();
        let is_one = reader.read_byte_record(&mut record).ok()?;
        is_one.then(|| (record, reader.position().byte() as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_there_at_once_and_read_back_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        let mut metrics = Metrics::open(&path, 0, false).unwrap();
        let loss = f64::from(0.1f32) / 3.0;
        metrics.write(&Logged { step: 50, train_loss: Some(loss), lr: Some(8e-5), ..Logged::default() });
        metrics.write(&Logged { epoch: 1, step: 99, val_loss: Some(2.0), ..Logged::default() });
        metrics.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "epoch,step,train/loss,val/loss,lr,tokens_per_sec");
        let cells: Vec<_> = lines[1].split(',').collect();
        assert_eq!(cells[2].parse::<f64>().unwrap(), loss);
        assert_eq!((cells[0], cells[1], cells[3], cells[4], cells[5]), ("0", "50", "", "8e-5", ""));
        assert_eq!(lines[2], "1,99,,2.0,,");
        assert_eq!(last_row(&path), Some((1, 99)));
    }

    #[test]
    fn a_resumed_run_cuts_the_file_back_to_whole_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        let mut metrics = Metrics::open(&path, 0, false).unwrap();
        (1..=3).for_each(|step| metrics.write(&Logged { step, ..Logged::default() }));
        metrics.flush().unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for (tail, rows) in [("", 3), ("0,4,", 3), ("0,4,,,,\n0,5,,,,\n", 3), ("", 2), ("", 0)] {
            std::fs::write(&path, whole.clone() + tail).unwrap();
            let mut metrics = Metrics::open(&path, rows, false).unwrap();
            metrics.write(&Logged { step: rows + 1, ..Logged::default() });
            metrics.flush().unwrap();
            let steps = (1..=rows + 1).map(|step| format!("0,{step},,,,\n")).collect::<String>();
            assert!(std::fs::read_to_string(&path).unwrap().ends_with(&("tokens_per_sec\n".to_owned() + &steps)));
        }
        // Damage in a row leaves the number of rows as it is.
        std::fs::write(&path, whole.replace("0,1,", "\"0,1")).unwrap();
        assert_eq!(Metrics::open(&path, 2, false).unwrap().rows(), 2);
        std::fs::write(&path, "epoch,st").unwrap();
        assert_eq!(Metrics::open(&path, 0, false).unwrap().rows(), 0);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("tokens_per_sec\n"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_and_the_rows_wait() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut metrics =
            Metrics { file: AppendFile::new(Path::new("/dev/full"), file, 0).unwrap(), rows: 0, columns: 4 };
        metrics.write(&Logged::default());
        for _ in 0..2 {
            let error = metrics.flush().unwrap_err();
            assert!(error.to_string().contains("/dev/full") && error.advice().unwrap().contains("full"));
        }
        assert_eq!(metrics.file.len(), "0,0,,,,\n".len() as u64);
    }
}
