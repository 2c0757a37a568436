//! The form of the moses tools and of OPUS: two texts whose lines of one number belong together, as two files (`x.es` beside
//! `x.en`) or in a zip.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use crate::data::first_few;
use crate::data::text::{self, Text};
use crate::error::{Error, Result, ResultExt};

const PACKINGS: [&str; 3] = ["", ".gz", ".zst"];

/// The two files that `path` names one of: `[Spanish, English]`; `None` if its name is of another kind. The other one may
/// not be there.
pub(super) fn files(path: &Path) -> Option<[PathBuf; 2]> {
    let name = path.file_name()?.to_str()?;
    let (stem, packing) = PACKINGS.iter().rev().find_map(|packing| Some((name.strip_suffix(packing)?, *packing)))?;
    let (stem, is_es) = match stem.strip_suffix(".es") {
        Some(stem) => (stem, true),
        None => (stem.strip_suffix(".en")?, false),
    };
    let language = if is_es { "en" } else { "es" };
    // The other one is packed in the same way, if it is there twice.
    let names =
        [packing].into_iter().chain(PACKINGS).map(|packing| path.with_file_name(format!("{stem}.{language}{packing}")));
    let names: Vec<PathBuf> = names.collect();
    let other = names.iter().find(|name| name.exists()).unwrap_or(&names[0]).clone();
    Some(if is_es { [path.to_owned(), other] } else { [other, path.to_owned()] })
}

/// The texts of the one pair `NAME.es` and `NAME.en` in the zip at `path`.
pub(super) fn open_zip(path: &Path) -> Result<[Text; 2]> {
    let name = path.display();
    let file = File::open(path).context(|| format!("cannot read {name}"))?;
    let mut zip = ZipArchive::new(BufReader::new(file))
        .map_err(|e| Error::new(format!("{name} is no whole zip file: {e}")))
        .hint(|| "fetch the file again; it may have been cut short")?;
    let names: Vec<String> = zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let pairs: Vec<[String; 2]> = names
        .iter()
        .filter_map(|es| Some([es.clone(), format!("{}.en", es.strip_suffix(".es")?)]))
        .filter(|[_, en]| names.contains(en))
        .collect();
    let [[es, en]] = &pairs[..] else {
        let found = match &pairs[..] {
            [] => format!("no two texts NAME.es and NAME.en; it holds {}", first_few(&names)),
            more => format!("{} pairs of texts: {}", more.len(), first_few(&more.concat())),
        };
        return Err(Error::new(format!("{name} is a zip file with {found}"))
            .hint("unpack it, and give the file wanted, such as: --pairs NAME.es"));
    };
    Ok([member(path, &mut zip, es)?, member(path, &mut zip, en)?])
}

/// The text of one entry, as a stream of its own.
fn member(path: &Path, zip: &mut ZipArchive<BufReader<File>>, entry: &str) -> Result<Text> {
    let name = format!("{}/{entry}", path.display());
    let failed = || format!("cannot read {name}");
    let index = zip.index_for_name(entry).ok_or_else(|| Error::new("no such entry")).context(failed)?;
    let found = zip.by_index_raw(index).map_err(|e| Error::new(e.to_string())).context(failed)?;
    let (packed, len, crc) = (found.compressed_size(), found.size(), found.crc32());
    let start = found.data_start().ok_or_else(|| Error::new("its place is not known")).context(failed)?;
    let method = found.compression();
    let is_deflated = method == CompressionMethod::DEFLATE;
    if found.encrypted() || !(is_deflated || method == CompressionMethod::STORE) {
        return Err(Error::new(format!("{name} is encrypted, or compressed by {method:?}")).hint("unpack the zip"));
    }
    let mut file = File::open(path).context(failed)?;
    file.seek(SeekFrom::Start(start)).context(failed)?;
    let bytes = BufReader::with_capacity(1 << 18, file.take(packed));
    let bytes: Box<dyn Read + Send> = if is_deflated { Box::new(DeflateDecoder::new(bytes)) } else { Box::new(bytes) };
    text::from_bytes(name, Box::new(BufReader::new(Checked { bytes, sum: Crc::new(), expected: (len, crc) })))
}

/// Bytes that fail at their end if they are not those of the zip's directory.
struct Checked {
    bytes: Box<dyn Read + Send>,
    sum: Crc,
    /// Length and CRC-32.
    expected: (u64, u32),
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.sum.update(&buffer[..n]);
        // `amount` counts modulo 2^32.
        let is_whole = self.sum.amount() == self.expected.0 as u32 && self.sum.sum() == self.expected.1;
        match n == 0 && !buffer.is_empty() && !is_whole {
            true => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the zip's entry is damaged: wrong length or checksum"))
            }
            false => Ok(n),
        }
    }
}
