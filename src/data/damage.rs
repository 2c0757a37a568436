//! What an unpacker's error says of the bytes before it.

use std::error::Error;
use std::fmt;
use std::io;

/// Packed data that is cut short, or not as it was written; stands inside an [`io::Error`].
///
/// A cut shows where it is, and what was unpacked before is right. Changed bytes seldom show at once: Huffman codes fall
/// into step again, and what is unpacked may be wrong from there on until the checksum at the end.
#[derive(Debug)]
pub(super) struct Damage {
    /// Whether the data just ends.
    pub(super) is_cut: bool,
    /// How many of the bytes unpacked belong to whole members or frames, with the right checksum if they have one.
    pub(super) checked: u64,
    what: String,
}

impl Damage {
    /// `error` of an unpacker as damage, unless the system reported it (a disk, a network).
    pub(super) fn wrap(error: io::Error, checked: u64) -> io::Error {
        let causes = causes(&error);
        if causes.iter().any(|io| io.raw_os_error().is_some() || io.kind() == io::ErrorKind::Interrupted) {
            return error;
        }
        let is_cut = causes.iter().any(|io| io.kind() == io::ErrorKind::UnexpectedEof);
        io::Error::new(io::ErrorKind::InvalidData, Self { is_cut, checked, what: error.to_string() })
    }

    /// The damage that `error` is about.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Damage {}

/// The I/O errors among `error` and what it wraps.
fn causes(error: &io::Error) -> Vec<&io::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    let mut causes = Vec::new();
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        causes.extend(io);
        // An `io::Error` names as its source that of the error inside it, not that error.
        next = match io.and_then(io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{gzip::Members, zstd::Frames};
    use std::io::{BufReader, Read};

    /// The bytes, and then the error of a disk.
    struct Disk<'a>(&'a [u8]);

    impl Read for Disk<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::from_raw_os_error(5)) } else { self.0.read(buffer) }
        }
    }

    #[test]
    fn cuts_changed_bytes_and_bad_disks_are_told_apart() {
        let text: Vec<u8> =
            (0..30_000_u32).flat_map(|k| format!("{} ", k.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::Write::write_all(&mut packer, &text).expect("in memory");
        let gzip = packer.finish().expect("in memory");
        let zstd = ruzstd::encoding::compress_to_vec(&text[..], ruzstd::encoding::CompressionLevel::Fastest);
        let read = |packed: &[u8], is_gzip: bool, is_cut: Option<usize>| {
            let disk = BufReader::new(Disk(&packed[..is_cut.unwrap_or(packed.len())]));
            let mut unpacked = Vec::new();
            let whole = BufReader::new(packed);
            let result = match (is_gzip, is_cut) {
                (true, Some(_)) => Members::new(disk).read_to_end(&mut unpacked),
                (true, None) => Members::new(whole).read_to_end(&mut unpacked),
                (false, Some(_)) => Frames::new(disk).read_to_end(&mut unpacked),
                (false, None) => Frames::new(whole).read_to_end(&mut unpacked),
            };
            (result.expect_err("damaged"), unpacked)
        };
        for (packed, is_gzip) in [(&gzip, true), (&zstd, false)] {
            let (error, _) = read(packed, is_gzip, Some(packed.len() / 2));
            assert!(Damage::of(&error).is_none(), "{error:?}");
            for keep in [packed.len() / 2, packed.len() - 3] {
                let two = [&packed[..], &packed[..keep]].concat();
                let (error, unpacked) = read(&two, is_gzip, None);
                let damage = Damage::of(&error).expect("damage");
                assert!(damage.is_cut && damage.checked == text.len() as u64, "{damage:?}");
                let (first, second) = unpacked.split_at(text.len());
                assert!(first == text && text.starts_with(second));
            }
            let mut bent = packed.to_vec();
            bent[packed.len() - 6] ^= 1;
            let (error, _) = read(&bent, is_gzip, None);
            assert!(Damage::of(&error).is_some_and(|damage| !damage.is_cut && damage.checked == 0), "{error:?}");
            let (error, unpacked) = read(&[&packed[..], b"rubbish rubbish rubbish"].concat(), is_gzip, None);
            let damage = Damage::of(&error).expect("damage");
            assert!(!damage.is_cut && damage.checked == text.len() as u64 && unpacked == text, "{damage:?}");
        }
    }
}
