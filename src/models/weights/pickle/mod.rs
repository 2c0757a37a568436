//! PyTorch's checkpoints (`pytorch_model.bin`, `torch.save`, PyTorch Lightning's `.ckpt`), read without Python.
//!
//! There are two formats, both of `torch/serialization.py`: a zip (`archive.rs`) since PyTorch 1.6, and a row of
//! pickles and raw storages (`legacy.rs`) before. In both one pickle describes the tensors: `machine.rs` runs it,
//! `state.rs` finds the state dict in what it builds. The opcodes are those of Python's `pickletools`. Nothing that a
//! pickle names is ever imported or called: the few globals that build tensors are interpreted here, and others are
//! carried as inert markers, which may not be part of the state dict.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use memmap2::Mmap;
use safetensors::Dtype;

mod archive;
mod legacy;
mod machine;
mod state;

use crate::error::{Error, Result, ResultExt};

/// How many times the file's size an inflated entry may be, and all tensors together (they may share storages).
const GROWTH: usize = 32;
/// The largest pickle; those of models with thousands of tensors have less than 1 MiB.
const PICKLE: usize = 32 << 20;
/// How a zip file begins.
const ZIP: &[u8] = b"PK\x03\x04";

/// Types of elements that are read, with PyTorch's names of their storages and dtypes.
const DTYPES: [(Dtype, &str, &str); 10] = [
    (Dtype::F32, "FloatStorage", "float32"),
    (Dtype::F16, "HalfStorage", "float16"),
    (Dtype::BF16, "BFloat16Storage", "bfloat16"),
    (Dtype::F64, "DoubleStorage", "float64"),
    (Dtype::I64, "LongStorage", "int64"),
    (Dtype::I32, "IntStorage", "int32"),
    (Dtype::U8, "ByteStorage", "uint8"),
    (Dtype::BOOL, "BoolStorage", "bool"),
    (Dtype::I16, "ShortStorage", "int16"),
    (Dtype::I8, "CharStorage", "int8"),
];

/// Bytes of an element.
fn size(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}

/// A tensor of the state dict.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its key in the state dict.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions; none for a scalar.
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    storage: Span,
}

/// Where a storage's bytes are in the file.
#[derive(Clone, Debug)]
struct Span {
    start: usize,
    /// Its bytes in the file.
    packed: usize,
    /// Its bytes, inflated.
    len: usize,
    deflated: bool,
}

/// A memory-mapped checkpoint and the tensors of its state dict.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    map: Mmap,
    tensors: Vec<TensorInfo>,
}

impl Checkpoint {
    /// Opens a file of `torch.save`. The state dict is the pickled dictionary, or its item `state_dict` (as in
    /// Lightning's checkpoints), `model_state_dict` or `model`, whichever is a dictionary of tensors; two of these are
    /// an error. Only beside such an item may objects of other classes stand, which are ignored.
    #[doc(hidden)]
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(path, map(path)?)
    }

    /// [`Self::open`] for a file that is mapped already.
    pub(super) fn of(path: &Path, map: Mmap) -> Result<Self> {
        let tensors = match legacy::start(&map) {
            Some(start) => legacy::read(&map, start),
            None if is_tar(&map) => {
                let hint =
                    "if you trust it, torch.load it with weights_only=False, and torch.save its state dict again";
                fail("this is the tar format of PyTorch 0.1, which is not read").hint(|| hint)
            }
            None => archive::read(&map),
        };
        let tensors = tensors.context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), map, tensors })
    }

    /// Whether a file begins as those of `torch.save` do, in today's format or an old one.
    pub(super) fn is_one(file: &[u8]) -> bool {
        file.starts_with(ZIP) || is_tar(file) || legacy::start(file).is_some()
    }

    /// Bytes of the file.
    #[allow(clippy::len_without_is_empty)] // an empty file is no checkpoint
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The tensors, in the state dict's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor `name`.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The elements of a tensor in row-major order, as little-endian bytes of its type; borrowed from the file where
    /// they lie there in this order.
    pub fn bytes(&self, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        self.gather(tensor).context(|| format!("{}: the tensor `{}`", self.path.display(), tensor.name))
    }

    fn gather(&self, tensor: &TensorInfo) -> Result<Cow<'_, [u8]>> {
        let (size, shape, mut at) = (size(tensor.dtype), &tensor.shape, tensor.offset);
        let (numel, strides) = layout(shape, &tensor.strides, at, tensor.storage.len / size)?;
        if numel == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let data = tensor.storage.read(&self.map)?;
        let mut follows = 1;
        let contiguous = shape.iter().zip(&strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == follows;
            follows *= dim;
            fits
        });
        if contiguous {
            let range = at * size..(at + numel) * size;
            return Ok(match data {
                Cow::Borrowed(data) => Cow::Borrowed(&data[range]),
                Cow::Owned(data) => Cow::Owned(data[range].to_vec()),
            });
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
        Ok(Cow::Owned(bytes))
    }
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: the map is read-only. (That another program truncates the file meanwhile, no program can prevent.)
    unsafe { Mmap::map(&file) }.context(|| format!("cannot map {}", path.display()))
}

fn is_tar(file: &[u8]) -> bool {
    file.get(257..262) == Some(b"ustar") && !file.starts_with(ZIP)
}

impl Span {
    fn read<'a>(&self, map: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        // A caller may pass another checkpoint's tensor, whose span may lie outside this map.
        let packed = map.get(self.start..self.start.saturating_add(self.packed));
        let packed = packed.ok_or_else(|| Error::new("its data is not in this file"))?;
        if !self.deflated {
            return Ok(Cow::Borrowed(packed));
        }
        let mut bytes = Vec::new();
        let read = DeflateDecoder::new(packed).take(self.len as u64 + 1).read_to_end(&mut bytes);
        match read.context(|| "cannot inflate its data")? == self.len {
            true => Ok(Cow::Owned(bytes)),
            false => fail("its data inflates to another size than the zip states"),
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
