//! The format of PyTorch before 1.6 (and of `torch.save(..., _use_new_zipfile_serialization=False)`): one after
//! another, the pickles of a magic number, of the format's version, of the system's properties, of the objects, and of
//! the list of storages; then each of these storages, its number of elements (i64) and the raw elements.

use std::collections::BTreeMap;

use super::machine::{Machine, Object};
use super::state::{Storage, View};
use super::{Dtype, PICKLE, Span, TensorInfo, fail, size};
use crate::error::{Error, Result, ResultExt};

/// The number 0x1950a86a20f9469cfc6c and the end of its pickle.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The format's only version.
const VERSION: i64 = 1001;

/// Where the pickle after the magic number begins, if `file` is of this format. Before the number is the opcode PROTO,
/// and in the pickles of protocol 4 and 5 FRAME.
pub(super) fn start(file: &[u8]) -> Option<usize> {
    let magic = |at: &usize| file.get(*at..).is_some_and(|rest| rest.starts_with(MAGIC));
    let at = [2, 11].into_iter().find(magic)?;
    (file[0] == 0x80).then_some(at + MAGIC.len())
}

/// Runs the pickle at `at`, which becomes its end.
fn run<'a>(file: &'a [u8], at: &mut usize, what: &str) -> Result<(Machine<'a>, Object<'a>)> {
    let (start, rest) = (*at, &file[*at..]);
    let mut machine = Machine::new(&rest[..rest.len().min(PICKLE)]);
    let top = machine.run();
    *at += machine.read();
    let top =
        top.context(|| format!("the pickle of {what} (at most {PICKLE} bytes from {start}), before byte {at}"))?;
    Ok((machine, top))
}

/// The tensors of the state dict in the file `map`, whose second pickle begins at `start`.
pub(super) fn read(map: &[u8], start: usize) -> Result<Vec<TensorInfo>> {
    let mut at = start;
    let (_, version) = run(map, &mut at, "the format's version")?;
    if !matches!(version, Object::Int(VERSION)) {
        return fail(format!("it has another version than {VERSION} of the format of PyTorch before 1.6"));
    }
    let (system, properties) = run(map, &mut at, "the system's properties")?;
    if let Some(Object::Bool(false)) = system.item(properties, "little_endian") {
        return fail("it was written on a big-endian machine, which is not supported");
    }
    let (machine, top) = run(map, &mut at, "the objects")?;
    let (declared, views) = declared(&machine)?;
    let (list, keys) = run(map, &mut at, "the list of storages")?;
    let Object::List(keys) = keys else { return fail("it has no list of storages") };
    let found = find(map, at, &list.seqs[keys], &declared)?;
    if let Some(key) = declared.keys().find(|key| !found.contains_key(*key)) {
        return fail(format!("the storage {key} is not in the file's list of storages"));
    }
    if let Some(key) = views.keys().find(|key| declared.contains_key(*key)) {
        return fail(format!("the storage {key} is also a part of another one"));
    }
    machine.tensors(top, map.len(), |storage| {
        let whole = found.get(storage.key).ok_or_else(|| Error::new("its storage is not found"))?;
        let (offset, len) = storage.view.map_or((0, whole.len), |view| (view.offset, view.bytes));
        Ok(Span { start: whole.start + offset, packed: len, len, deflated: false })
    })
}

/// For each storage in a persistent id: the bytes of an element, by the first such id, and of the whole.
type Declared<'a> = BTreeMap<&'a str, (usize, usize)>;
/// The storages that are parts of others: of which one, where, and the type of their elements.
type Views<'a> = BTreeMap<&'a str, (&'a str, View<'a>, Dtype)>;

/// The storages of all persistent ids, those of objects beside the state dict too: all are in the file.
fn declared<'a>(machine: &Machine<'a>) -> Result<(Declared<'a>, Views<'a>)> {
    let (mut declared, mut views) = (Declared::new(), Views::new());
    for &id in &machine.storages {
        let malformed = || machine.refuse(&[Object::Storage(id)], "a storage is not pickled as torch.save does");
        let Storage { dtype: Some(dtype), key, bytes, view } = machine.storage(id).ok_or_else(malformed)? else {
            return fail("it has an untyped storage, which PyTorch does not read in this format")
                .hint(|| "torch.save it without _use_new_zipfile_serialization=False");
        };
        if declared.entry(key).or_insert((size(dtype), bytes)).1 != bytes {
            return fail(format!("the storage {key} has two sizes"));
        }
        let Some(view) = view else { continue };
        if view.offset.checked_add(view.bytes).is_none_or(|end| end > bytes) {
            return fail(format!("the storage {} is outside {key}, of which it is a part", view.key));
        }
        if *views.entry(view.key).or_insert((key, view, dtype)) != (key, view, dtype) {
            return fail(format!("the storage {} is two different parts of others", view.key));
        }
    }
    Ok((declared, views))
}

/// The storages with these `keys`, which lie in `map` from `at` on.
fn find<'a>(map: &[u8], mut at: usize, keys: &[Object<'a>], declared: &Declared) -> Result<BTreeMap<&'a str, Span>> {
    let mut found = BTreeMap::new();
    for key in keys {
        let Object::Str(key) = *key else { return fail("the name of a storage in the list is not a string") };
        let Some(&(unit, len)) = declared.get(key) else {
            return fail(format!("the storage {key} is in the file's list of storages, but no tensor has it"));
        };
        let cut = || {
            Error::new(format!("the file ends within the storage {key}"))
                .hint("fetch the file again; it may have been cut short")
        };
        let count = map[at..].first_chunk().map(|count| i64::from_le_bytes(*count)).ok_or_else(cut)?;
        if usize::try_from(count).ok().and_then(|count| count.checked_mul(unit)) != Some(len) {
            return fail(format!("the storage {key} has {count} elements, its tensors ask for {}", len / unit));
        }
        let start = at + size_of::<i64>();
        at = start.checked_add(len).filter(|end| *end <= map.len()).ok_or_else(cut)?;
        if found.insert(key, Span { start, packed: len, len, deflated: false }).is_some() {
            return fail(format!("the storage {key} is twice in the file's list of storages"));
        }
    }
    Ok(found)
}
