//! PyTorch's zip checkpoints (`pytorch_model.bin`, `torch.save`, PyTorch Lightning's `.ckpt`), read without Python.
//!
//! The format is that of `torch/serialization.py`: a zip with a pickle, `PREFIX/data.pkl`, and the raw elements of each
//! storage, `PREFIX/data/KEY`. The opcodes are those of Python's `pickletools`. Nothing that a pickle names is ever
//! imported or called: the few globals that build tensors are interpreted here, and others are carried as inert
//! marks, which may not be part of the state dict. As in PyTorch, the zip's checksums are not verified
//! (`torch.serialization.set_crc32_options(False)` leaves them out).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use memmap2::Mmap;
use zip::{CompressionMethod, ZipArchive};

mod machine;

use machine::{Machine, Value};

use crate::error::{Error, Result, ResultExt};

/// How many times the file's size an inflated entry may be, and all tensors together (they may share storages).
const GROWTH: usize = 32;
/// The largest `data.pkl`; those of models with thousands of tensors have less than 1 MiB.
const PICKLE: usize = 32 << 20;
/// How the files of PyTorch before 1.6 begin: the pickled number 0x1950a86a20f9469cfc6c.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rustfmt::skip]
pub enum Kind { F32, F16, BF16, F64, I64, I32, U8, Bool, I16, I8 }

/// The kinds with their sizes, storage classes and dtypes.
const KINDS: [(Kind, usize, &str, &str); 10] = [
    (Kind::F32, 4, "FloatStorage", "float32"),
    (Kind::F16, 2, "HalfStorage", "float16"),
    (Kind::BF16, 2, "BFloat16Storage", "bfloat16"),
    (Kind::F64, 8, "DoubleStorage", "float64"),
    (Kind::I64, 8, "LongStorage", "int64"),
    (Kind::I32, 4, "IntStorage", "int32"),
    (Kind::U8, 1, "ByteStorage", "uint8"),
    (Kind::Bool, 1, "BoolStorage", "bool"),
    (Kind::I16, 2, "ShortStorage", "int16"),
    (Kind::I8, 1, "CharStorage", "int8"),
];

impl Kind {
    /// Bytes per element.
    pub fn size(self) -> usize {
        KINDS.iter().find(|kind| kind.0 == self).map_or(8, |kind| kind.1)
    }
}

/// A tensor of the state dict.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    storage: Span,
}

/// Where a zip entry's bytes are in the file.
#[derive(Clone, Debug)]
struct Span {
    start: usize,
    packed: usize,
    len: usize,
    deflated: bool,
}

/// A memory-mapped checkpoint and the tensors of its state dict.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    map: Mmap,
    entries: Vec<Entry>,
}

impl Checkpoint {
    /// Opens a file of `torch.save`. The state dict is the pickled dictionary, or its item `state_dict` if there is
    /// one, as in Lightning's checkpoints; only beside that may objects of other classes stand, which are ignored.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context(|| format!("cannot open {}", path.display()))?;
        // SAFETY: the map is read-only; a file that others truncate meanwhile is outside what a program can defend.
        let map = unsafe { Mmap::map(&file) }.context(|| format!("cannot map {}", path.display()))?;
        let entries = read_entries(&map).context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), map, entries })
    }

    /// Bytes of the file.
    #[allow(clippy::len_without_is_empty)] // a file of nothing is no checkpoint
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The tensors, in the state dict's order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The elements of an entry in row-major order, as little-endian bytes of its kind.
    pub fn bytes(&self, entry: &Entry) -> Result<Vec<u8>> {
        self.gather(entry).context(|| format!("{}: the tensor `{}`", self.path.display(), entry.name))
    }

    fn gather(&self, entry: &Entry) -> Result<Vec<u8>> {
        let (size, shape, mut at) = (entry.kind.size(), &entry.shape, entry.offset);
        let (numel, strides) = layout(shape, &entry.strides, at, entry.storage.len / size)?;
        if numel == 0 {
            return Ok(Vec::new());
        }
        let data = entry.storage.read(&self.map)?;
        let mut follows = 1;
        let contiguous = shape.iter().zip(&strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == follows;
            follows *= dim;
            fits
        });
        if contiguous {
            return Ok(data[at * size..][..numel * size].to_vec());
        }
        let (mut bytes, mut index) = (Vec::with_capacity(numel * size), vec![0; shape.len()]);
        for _ in 0..numel {
            bytes.extend_from_slice(&data[at * size..][..size]);
            for (d, i) in index.iter_mut().enumerate().rev() {
                (*i, at) = (*i + 1, at + strides[d]);
                if *i < shape[d] {
                    break;
                }
                (*i, at) = (0, at - strides[d] * shape[d]);
            }
        }
        Ok(bytes)
    }
}

impl Span {
    fn read<'a>(&self, map: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        // The entry may be another checkpoint's, so its span is not sure to be in this map.
        let packed = map.get(self.start..self.start.saturating_add(self.packed));
        let packed = packed.ok_or_else(|| Error::new("its data is not in this file"))?;
        if !self.deflated {
            return Ok(Cow::Borrowed(packed));
        }
        let mut bytes = Vec::new();
        let read = DeflateDecoder::new(packed).take(self.len as u64 + 1).read_to_end(&mut bytes);
        match read.context(|| "cannot inflate its data")? == self.len {
            true => Ok(Cow::Owned(bytes)),
            false => fail("its data inflates to another size than the zip tells"),
        }
    }
}

/// How many elements a view has, and its strides (0 where a dimension has a single index): an error unless they are
/// within a storage of `available` elements and no more than it has.
fn layout(shape: &[usize], strides: &[usize], offset: usize, available: usize) -> Result<(usize, Vec<usize>)> {
    if shape.len() != strides.len() {
        return fail("the tensor has not as many strides as dimensions");
    }
    let view = || format!("the view of the shape {shape:?} with the strides {strides:?} from {offset}");
    if shape.contains(&0) {
        return Ok((0, Vec::new()));
    }
    let strides: Vec<usize> = shape.iter().zip(strides).map(|(&d, &stride)| if d == 1 { 0 } else { stride }).collect();
    let numel = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let mut steps = shape.iter().zip(&strides).map(|(d, stride)| (d - 1).checked_mul(*stride));
    let last = steps.try_fold(offset, |at, step| at.checked_add(step?));
    match (numel, last) {
        (Some(n), Some(last)) if last < available && n <= available => Ok((n, strides)),
        (_, Some(last)) if last < available => {
            fail(view() + " repeats elements").hint(|| "expanded tensors are not read; .clone() them before torch.save")
        }
        _ => fail(view() + &format!(" is outside its storage of {available} elements")),
    }
}

fn fail<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::new(what))
}

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

fn read_entries(map: &[u8]) -> Result<Vec<Entry>> {
    if map.starts_with(LEGACY) {
        let hint = "load and torch.save it again with a current PyTorch, or use the model's safetensors file";
        return fail("this is the format of PyTorch before 1.6, which is not read").hint(|| hint);
    }
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
    let top = top.context(|| format!("data.pkl, before byte {}", pickle.len() - machine.left()))?;

    let (mut entries, mut names, mut total) = (Vec::new(), HashSet::new(), 0usize);
    for (key, value) in machine.state_dict(top)? {
        let Value::Str(name) = *key else {
            return Err(machine.refuse(&[*key], "a name in the state dict is not a string"));
        };
        let entry = machine.entry(name, *value, &mut archive).context(|| format!("`{name}` of the state dict"))?;
        let Some((entry, len)) = entry else { continue };
        total = total.saturating_add(len);
        if !names.insert(name) || total / GROWTH > map.len() {
            return fail(format!("the state dict repeats itself at `{name}`"));
        }
        entries.push(entry);
    }
    if entries.is_empty() { fail("the state dict has no tensors") } else { Ok(entries) }
}
