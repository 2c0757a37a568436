//! zstd files as a stream: one frame after another (RFC 8878), each checked against its checksum where it has one.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::damage::Damage;

/// Decodes the frames of `source`; skippable ones are skipped.
pub(super) struct Frames<R> {
    source: R,
    frame: FrameDecoder,
    is_open: bool,
    unpacked: u64,
    checked: u64,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, frame: FrameDecoder::new(), is_open: false, unpacked: 0, checked: 0 }
    }

    /// Begins the next frame; `false` at the end.
    fn open(&mut self) -> io::Result<bool> {
        while !self.is_open && !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => self.is_open = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(self.is_open)
    }
}

impl Frames<()> {
    /// Whether a file that begins with `head` is of zstd frames.
    pub(super) fn are_in(head: &[u8]) -> bool {
        let skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        skippable || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
    }
}

impl<R: BufRead> Frames<R> {
    fn unpack(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() && self.open()? {
            if self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let block = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.source, block).map_err(io::Error::other)?;
            }
            let n = self.frame.read(buffer)?;
            self.unpacked += n as u64;
            if n > 0 {
                return Ok(n);
            }
            if self.frame.is_finished() && self.frame.can_collect() == 0 {
                let written = self.frame.get_checksum_from_data();
                if written.is_some() && written != self.frame.get_calculated_checksum() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "wrong checksum"));
                }
                self.is_open = false;
                self.checked = self.unpacked;
            }
        }
        Ok(0)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.unpack(buffer).map_err(|error| Damage::wrap(error, self.checked))
    }
}
