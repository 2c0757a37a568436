//! TensorBoard event files: scalars as hand-encoded protocol buffers in TFRecord frames.
//!
//! The formats are TensorFlow's: frames as in `tensorflow/core/lib/io/record_writer.h`, masked checksums as in
//! `tensorflow/core/lib/hash/crc32c.h`, messages as in `tensorflow/core/util/event.proto` and
//! `tensorflow/core/framework/summary.proto` (TensorBoard keeps copies under `tensorboard/compat/proto`).

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Logged;
use super::append::AppendFile;
use crate::error::Result;
use crate::run_dir::write_error;

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
        let now = since_epoch();
        let after = now.as_secs().max(latest.map_or(0, |latest| latest + 1));
        let path = run.join(format!("{PREFIX}{after}.{}.{}.0", host(), std::process::id()));
        let file = File::create_new(&path).map_err(|e| write_error(&path, e))?;
        let mut events = Self { file: AppendFile::new(&path, file, 0)? };
        let mut version = event(now, 0);
        bytes(&mut version, 3, b"brain.Event:2"); // Event.file_version
        events.frame(&version);
        if step > 0 {
            let mut start = event(now, step as u64);
            bytes(&mut start, 7, &[VARINT as u8 | 1 << 3, 1]); // Event.session_log, SessionLog.status = START
            events.frame(&start);
        }
        events.flush()?;
        Ok(events)
    }

    /// Adds the values measured at one step.
    pub fn write(&mut self, logged: &Logged) {
        let mut summary = Vec::new();
        for (tag, value) in logged.values() {
            let Some(value) = value else { continue };
            let mut scalar = Vec::new();
            bytes(&mut scalar, 1, tag.as_bytes()); // Summary.Value.tag
            key(&mut scalar, 2, FIXED_32); // Summary.Value.simple_value
            scalar.extend((value as f32).to_le_bytes());
            bytes(&mut summary, 1, &scalar); // Summary.value
        }
        if summary.is_empty() {
            return;
        }
        let mut event = event(since_epoch(), logged.step as u64);
        bytes(&mut event, 5, &summary); // Event.summary
        self.frame(&event);
    }

    /// Writes what waits.
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

// Wire types, https://protobuf.dev/programming-guides/encoding/
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// The start of an Event: its wall_time and step.
fn event(time: Duration, step: u64) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, 1, FIXED_64);
    out.extend(time.as_secs_f64().to_le_bytes());
    key(&mut out, 2, VARINT);
    varint(&mut out, step);
    out
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The time since 1970; a clock set before it counts as 1970.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
    use super::*;

    /// One field of a message: its number and its bytes (a varint as 8 bytes).
    fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data);
            let length = match key & 7 {
                VARINT => {
                    found.push((key >> 3, varint(&mut data).to_le_bytes().to_vec()));
                    continue;
                }
                FIXED_64 => 8,
                FIXED_32 => 4,
                BYTES => varint(&mut data) as usize,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = data.split_at(length);
            found.push((key >> 3, value.to_vec()));
            data = rest;
        }
        found
    }

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
        assert!((time - since_epoch().as_secs_f64()).abs() < 60.0);
        assert_eq!(event[1], (2, 300u64.to_le_bytes().to_vec()));
        assert_eq!(event[2].0, 5);
        let scalar = |tag: &str, value: f32| vec![(1, tag.as_bytes().to_vec()), (2, value.to_le_bytes().to_vec())];
        let values: Vec<_> = fields(&event[2].1).iter().map(|(_, value)| fields(value)).collect();
        assert_eq!(values, [scalar("train/loss", 0.25), scalar("lr", 5e-4)]);
    }

    #[test]
    fn a_resumed_run_cuts_back_and_goes_on_in_a_later_file() {
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
        assert_eq!(start[1..], [(2, 2u64.to_le_bytes().to_vec()), (7, vec![8, 1])]);
    }

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720 B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
