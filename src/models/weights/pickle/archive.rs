//! The format of PyTorch since 1.6: a zip with a pickle, `PREFIX/data.pkl`, and the raw elements of each storage,
//! `PREFIX/data/KEY`. As in PyTorch, the zip's checksums are not verified
//! (`torch.serialization.set_crc32_options(False)` leaves them out).

use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use super::machine::Machine;
use super::{GROWTH, PICKLE, Span, TensorInfo, fail};
use crate::error::{Error, Result, ResultExt};

/// The zip of a checkpoint.
struct Archive<'a> {
    map: &'a [u8],
    zip: ZipArchive<Cursor<&'a [u8]>>,
    prefix: String,
}

impl Archive<'_> {
    /// The place of an entry, checked against the file.
    fn find(&mut self, name: &str) -> Result<Span> {
        let index = self.zip.index_for_name(&format!("{}{name}", self.prefix)).ok_or_else(|| Error::new("not found"));
        let entry = index.and_then(|i| self.zip.by_index_raw(i).map_err(|e| Error::new(e.to_string())));
        let entry = entry.context(|| format!("the zip's entry {name}"))?;
        let deflated = entry.compression() == CompressionMethod::DEFLATE;
        if entry.encrypted() || !(deflated || entry.compression() == CompressionMethod::STORE) {
            return fail(format!("the zip's entry {name} is encrypted, or compressed in a way that is not read"));
        }
        let numbers = [entry.data_start().unwrap_or(u64::MAX), entry.compressed_size(), entry.size()];
        let [start, packed, len] = numbers.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let sized = if deflated { len / GROWTH <= self.map.len() } else { len == packed };
        match start.checked_add(packed) {
            Some(end) if end <= self.map.len() && sized => Ok(Span { start, packed, len, deflated }),
            _ => fail(format!("the zip's entry {name} does not fit into the file")),
        }
    }
}

/// The tensors of the state dict in the zip file `map`.
pub(super) fn read(map: &[u8]) -> Result<Vec<TensorInfo>> {
    let zip = ZipArchive::new(Cursor::new(map)).map_err(|e| Error::new(e.to_string()));
    let zip = zip
        .context(|| "this is not a whole zip file, as torch.save writes")
        .hint(|| "fetch the file again; it may have been cut short")?;
    let names = zip.file_names_raw().filter_map(|name| str::from_utf8(name).ok()?.strip_suffix("data.pkl"));
    let prefixes: Vec<String> = names.filter(|prefix| prefix.ends_with('/')).map(str::to_owned).collect();
    let ([prefix], false) = (&*prefixes, zip.has_duplicate_names()) else {
        return fail("the zip has not one data.pkl, so torch.save did not write it");
    };
    let mut archive = Archive { map, zip, prefix: prefix.clone() };
    if archive.zip.index_for_name(&format!("{prefix}byteorder")).is_some()
        && *archive.find("byteorder")?.read(map)? != *b"little"
    {
        return fail("its numbers are big-endian, which is not supported");
    }
    let span = archive.find("data.pkl")?;
    if span.len > PICKLE {
        return fail(format!("data.pkl has {} bytes, more than the {PICKLE} that are read", span.len));
    }
    let pickle = span.read(map).context(|| "data.pkl")?;
    let mut machine = Machine::new(&pickle);
    let top = machine.run();
    let top = top.context(|| format!("data.pkl, before byte {}", machine.read()))?;
    machine.tensors(top, map.len(), |storage| {
        let span = archive.find(&format!("data/{}", storage.key))?;
        match storage.view {
            None if span.len == storage.bytes => Ok(span),
            None => fail(format!("its storage {} has {} bytes, not {}", storage.key, span.len, storage.bytes)),
            Some(_) => fail(format!("its storage {} is a part of another one, as in no zip file", storage.key)),
        }
    })
}
