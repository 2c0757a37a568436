//! gzip files as a stream: one member after another (RFC 1952), each checked against its checksum and length.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::damage::Damage;

/// Unpacks the members of `source`.
pub(super) struct Members<R> {
    member: Option<GzDecoder<R>>,
    unpacked: u64,
    checked: u64,
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(source: R) -> Self {
        Self { member: Some(GzDecoder::new(source)), unpacked: 0, checked: 0 }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = self.member.as_mut().filter(|_| !buffer.is_empty()) {
            let n = member.read(buffer).map_err(|error| Damage::wrap(error, self.checked))?;
            self.unpacked += n as u64;
            if n > 0 {
                return Ok(n);
            }
            self.checked = self.unpacked;
            if let Some(mut source) = self.member.take().map(GzDecoder::into_inner)
                && !source.fill_buf()?.is_empty()
            {
                self.member = Some(GzDecoder::new(source));
            }
        }
        Ok(0)
    }
}
