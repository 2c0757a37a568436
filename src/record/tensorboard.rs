//! TensorBoard event files: scalars as hand-encoded protocol buffers in TFRecord frames.
//!
//! The formats are TensorFlow's: frames as in `tensorflow/core/lib/io/record_writer.h`, masked checksums as in
//! `tensorflow/core/lib/hash/crc32c.h`, messages as in `tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto` (TensorBoard keeps copies under `tensorboard/compat/proto`).

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::Logged;
use super::append::AppendFile;
use super::hparams::Hparams;
use super::protobuf::{FIXED_32, VARINT, bytes, double, key, number, varint};
use crate::clock;
use crate::error::Result;
use crate::fs::write_error;

const PREFIX: &str = "events.out.tfevents.";

/// An open event file.
#[derive(Debug)]
pub struct EventFile {
    file: AppendFile,
}

impl EventFile {
    /// Starts `events.out.tfevents.SECONDS.HOST.PID.0` in the folder of a run, after those that are there: TensorBoard
    /// reads them in the order of their names. A reader that has seen later steps than `step` forgets them.
    pub fn create(run: &Path, step: usize) -> Result<Self> {
        let seconds = |name: &String| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok();
        let latest: Option<u64> = names(run)?.iter().filter_map(seconds).max();
        let now = clock::now();
        let after = now.as_secs().max(latest.map_or(0, |latest| latest + 1));
        let path = run.join(format!("{PREFIX}{after}.{}.{}.0", host(), std::process::id()));
        let file = File::create_new(&path).map_err(|e| write_error(&path, e))?;
        let mut events = Self { file: AppendFile::new(&path, file, 0)? };
        let mut version = event(now, 0);
        bytes(&mut version, 3, b"brain.Event:2"); // Event.file_version
        events.frame(&version);
        if step > 0 {
            // It forgets those of this step and later ones; what was logged at `step` itself is still in the files.
            let mut start = event(now, step as u64 + 1);
            let mut log = Vec::new();
            number(&mut log, 1, 1); // SessionLog.status = START
            bytes(&mut start, 7, &log); // Event.session_log
            events.frame(&start);
        }
        events.flush()?;
        Ok(events)
    }

    /// Adds the values measured at one step.
    pub fn write(&mut self, logged: &Logged) {
        let values: Vec<_> = logged.values().into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect();
        self.scalars(logged.step, &values);
    }

    /// Adds scalars of one step under their tags.
    pub fn scalars(&mut self, step: usize, values: &[(&str, f64)]) {
        if values.is_empty() {
            return;
        }
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut scalar = Vec::new();
            bytes(&mut scalar, 1, tag.as_bytes()); // Summary.Value.tag
            key(&mut scalar, 2, FIXED_32); // Summary.Value.simple_value
            scalar.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &scalar); // Summary.value
        }
        let mut event = event(clock::now(), step as u64);
        bytes(&mut event, 5, &summary); // Event.summary
        self.frame(&event);
    }

    /// Adds what the HPARAMS tab shows of a run that starts.
    pub fn write_hparams(&mut self, hparams: &Hparams) {
        let now = clock::now();
        self.hparams(now, "_hparams_/experiment", 2, &hparams.experiment(now.as_secs_f64()));
        self.hparams(now, "_hparams_/session_start_info", 3, &hparams.session_start(now.as_secs_f64()));
    }

    /// Adds how a run ended.
    pub fn write_end(&mut self, success: bool) {
        let (now, mut end) = (clock::now(), Vec::new());
        number(&mut end, 1, if success { 1 } else { 2 }); // SessionEndInfo.status
        double(&mut end, 2, now.as_secs_f64()); // SessionEndInfo.end_time_secs
        self.hparams(now, "_hparams_/session_end_info", 4, &end);
    }

    /// Adds a summary that holds nothing but data for the hparams plugin: `message` as this field of its
    /// HParamsPluginData.
    fn hparams(&mut self, now: Duration, tag: &str, field: u64, message: &[u8]) {
        let (mut data, mut plugin, mut metadata, mut value, mut summary) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        bytes(&mut data, field, message);
        bytes(&mut plugin, 1, b"hparams"); // PluginData.plugin_name
        bytes(&mut plugin, 2, &data); // PluginData.content
        bytes(&mut metadata, 1, &plugin); // SummaryMetadata.plugin_data
        bytes(&mut value, 1, tag.as_bytes()); // Summary.Value.tag
        bytes(&mut value, 9, &metadata); // Summary.Value.metadata
        bytes(&mut summary, 1, &value); // Summary.value
        let mut event = event(now, 0);
        bytes(&mut event, 5, &summary); // Event.summary
        self.frame(&event);
    }

    /// Makes what is written outlast a power cut.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }

    /// Writes the records that could not be written yet.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    /// The file's name and length.
    pub fn position(&self) -> (String, u64) {
        let name = self.file.path().file_name().map(|name| name.to_string_lossy().into_owned());
        (name.unwrap_or_default(), self.file.len())
    }

    /// Adds one record: length, checksum of the length, data, checksum of the data.
    fn frame(&mut self, data: &[u8]) {
        let length = (data.len() as u64).to_le_bytes();
        let mut frame = Vec::with_capacity(data.len() + 16);
        frame.extend(length);
        frame.extend(masked_crc(&length).to_le_bytes());
        frame.extend(data);
        frame.extend(masked_crc(data).to_le_bytes());
        self.file.push(&frame);
    }
}

/// The event files of a run.
fn names(run: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(run).map_err(|e| write_error(run, e))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(PREFIX)).collect())
}

/// Cuts the event files of a run back to these, with these lengths; others are of steps that will be done again.
pub fn cut_back(run: &Path, kept: &[(String, u64)]) -> Result<()> {
    for name in names(run)? {
        let path = run.join(&name);
        let cut = match kept.iter().find(|(kept, _)| *kept == name) {
            Some((_, length)) => File::options()
                .write(true)
                .open(&path)
                .and_then(|file| if file.metadata()?.len() > *length { file.set_len(*length) } else { Ok(()) }),
            None => std::fs::remove_file(&path),
        };
        cut.map_err(|e| write_error(&path, e))?;
    }
    Ok(())
}

/// The start of an Event: its wall_time and step.
fn event(time: Duration, step: u64) -> Vec<u8> {
    let mut out = Vec::new();
    double(&mut out, 1, time.as_secs_f64());
    // Written also where it is 0.
    key(&mut out, 2, VARINT);
    varint(&mut out, step);
    out
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A name for this machine that can stand in a file name.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok()))
        .unwrap_or_default();
    let plain: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    if plain.is_empty() { "localhost".into() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::tests::fields;
    use super::*;

    fn frames(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            assert_eq!(file[8..12], masked_crc(&file[..8]).to_le_bytes());
            let (data, rest) = file[12..].split_at(length);
            assert_eq!(rest[..4], masked_crc(data).to_le_bytes());
            found.push(data.to_vec());
            file = &rest[4..];
        }
        found
    }

    #[test]
    fn the_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), 0).unwrap();
        let logged = Logged { step: 300, train_loss: Some(0.25), lr: Some(5e-4), ..Logged::default() };
        events.write(&logged);
        events.write(&Logged { step: 301, ..Logged::default() });
        events.flush().unwrap();

        let frames = frames(&std::fs::read(events.file.path()).unwrap());
        assert_eq!(frames.len(), 2, "a step without values writes nothing");
        assert_eq!(fields(&frames[0])[2], (3, b"brain.Event:2".to_vec()));
        let event = fields(&frames[1]);
        let time = f64::from_le_bytes(event[0].1.clone().try_into().unwrap());
        assert!((time - clock::now().as_secs_f64()).abs() < 60.0);
        assert_eq!(event[1], (2, 300u64.to_le_bytes().to_vec()));
        assert_eq!(event[2].0, 5);
        let scalar = |tag: &str, value: f32| vec![(1, tag.as_bytes().to_vec()), (2, value.to_le_bytes().to_vec())];
        let values: Vec<_> = fields(&event[2].1).iter().map(|(_, value)| fields(value)).collect();
        assert_eq!(values, [scalar("train/loss", 0.25), scalar("lr", 5e-4)]);
    }

    #[test]
    fn a_resumed_run_cuts_back_and_continues_in_a_later_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = |events: &mut EventFile, step| {
            events.write(&Logged { step, train_loss: Some(0.5), ..Logged::default() });
            events.flush().unwrap();
        };
        let mut first = EventFile::create(dir.path(), 0).unwrap();
        log(&mut first, 1);
        let kept = first.position();
        log(&mut first, 2);
        let lost = EventFile::create(dir.path(), 2).unwrap();
        assert!(lost.position().0 > kept.0, "the second of a second comes after the first");
        cut_back(dir.path(), std::slice::from_ref(&kept)).unwrap();
        let second = EventFile::create(dir.path(), 2).unwrap();
        let mut names = names(dir.path()).unwrap();
        names.sort();
        assert_eq!(names, [kept.0.clone(), second.position().0]);
        assert_eq!(frames(&std::fs::read(dir.path().join(&kept.0)).unwrap()).len(), 2);
        let start = fields(&frames(&std::fs::read(second.file.path()).unwrap())[1]);
        assert_eq!(start[1..], [(2, 3u64.to_le_bytes().to_vec()), (7, vec![8, 1])]);
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720 B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
