//! The tensors of a state dict, from what the pickle machine has built.

use std::collections::HashSet;

use super::machine::{Known, Machine, Value};
use super::{Entry, GROWTH, Kind, Span, fail, layout};
use crate::error::{Error, Result, ResultExt};

/// The most dimensions of a tensor.
const RANK: usize = 32;
/// Where a checkpoint of more than the weights has its state dict: Lightning's and many others' key, that of PyTorch's
/// tutorials, and that of fairseq, timm and others.
const NESTED: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// What a persistent id tells of a storage.
pub(super) struct Storage<'a> {
    /// The type of its elements; none where only the tensor tells it.
    pub kind: Option<Kind>,
    pub key: &'a str,
    pub bytes: usize,
    /// The part of it that the tensor's storage is.
    pub view: Option<View<'a>>,
}

/// A storage that is a part of another one, as PyTorch before 0.4 knew them. Numbers are bytes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct View<'a> {
    pub key: &'a str,
    pub offset: usize,
    pub bytes: usize,
}

fn number(n: &Value) -> Option<usize> {
    if let Value::Int(n) = n { usize::try_from(*n).ok() } else { None }
}

impl<'a> Machine<'a> {
    /// The error that names an object of another class among `values` or directly inside them, or says `otherwise`.
    pub(super) fn refuse(&self, values: &[Value<'a>], otherwise: &str) -> Error {
        let of = |value: &Value<'a>| if let Value::Opaque(id) = *value { Some(self.others[id]) } else { None };
        let found = values.iter().find_map(|value| match *value {
            Value::Tuple(id) | Value::List(id) | Value::Storage(id) | Value::Tensor(id) | Value::Typed(id) => {
                self.seqs[id].iter().find_map(of)
            }
            Value::Dict(id) => self.dicts[id].iter().find_map(|(key, value)| of(key).or_else(|| of(value))),
            _ => of(value),
        });
        let what =
            found.map(|(module, name)| format!("{module}.{name} is not read: only tensors and plain values are"));
        Error::new(what.unwrap_or_else(|| otherwise.to_owned()))
            .hint("in Python, torch.save(model.state_dict(), ...) writes a file of tensors alone")
    }

    /// The last item with this key of what is a dictionary.
    pub(super) fn item(&self, of: Value<'a>, key: &str) -> Option<Value<'a>> {
        let Value::Dict(id) = of else { return None };
        self.dicts[id]
            .iter()
            .rev()
            .find(|(name, _)| matches!(name, Value::Str(name) if *name == key))
            .map(|item| item.1)
    }

    /// A storage by its persistent id: `("storage", class, key, location, elements)`, before 1.6 with a sixth item,
    /// None or the view `(key, offset, elements)`.
    pub(super) fn storage(&self, id: usize) -> Option<Storage<'a>> {
        let [_, Value::Known(class), Value::Str(key), _, len, view @ ..] = &*self.seqs[id] else { return None };
        let kind = match class {
            Known::Storage(kind) => Some(*kind),
            Known::Untyped => None,
            _ => return None,
        };
        let bytes = |n: &Value| number(n)?.checked_mul(kind.map_or(1, Kind::size));
        let view = match view {
            [] | [Value::Plain] => None,
            [Value::Tuple(id)] => match &*self.seqs[*id] {
                [Value::Str(key), offset, len] => Some(View { key, offset: bytes(offset)?, bytes: bytes(len)? }),
                _ => return None,
            },
            _ => return None,
        };
        Some(Storage { kind, key, bytes: bytes(len)?, view })
    }

    /// Reads the state dict in what the pickle built, for a file of `len` bytes. `find` finds a storage in the file,
    /// of as many bytes as its id tells.
    pub(super) fn entries(
        &self, top: Value<'a>, len: usize, mut find: impl FnMut(&Storage<'a>) -> Result<Span>,
    ) -> Result<Vec<Entry>> {
        let (mut entries, mut names, mut total) = (Vec::new(), HashSet::new(), 0usize);
        for (key, value) in self.state_dict(top)? {
            let Value::Str(name) = *key else {
                return Err(self.refuse(&[*key], "a name in the state dict is not a string"));
            };
            let entry = self.entry(name, *value, &mut find).context(|| format!("`{name}` of the state dict"))?;
            total = total.saturating_add(entry.as_ref().map_or(0, |(_, bytes)| *bytes));
            if !names.insert(name) || total / GROWTH > len {
                return fail(format!("the state dict repeats itself at `{name}`"));
            }
            entries.extend(entry.map(|(entry, _)| entry));
        }
        if entries.is_empty() { fail("the state dict has no tensors") } else { Ok(entries) }
    }

    /// The items of the state dict in what the pickle built.
    fn state_dict(&self, top: Value<'a>) -> Result<&[(Value<'a>, Value<'a>)]> {
        let Value::Dict(whole) = top else {
            return Err(self.refuse(&[top], "it is not a dictionary of tensors"));
        };
        let nested: Vec<_> = NESTED.iter().filter_map(|key| Some((*key, self.item(top, key)?))).collect();
        let dicts = nested.iter().filter_map(|&(key, value)| match value {
            Value::Dict(id) => Some((key, id)),
            _ => None,
        });
        let tensors = |id: usize| self.dicts[id].iter().any(|(_, v)| matches!(v, Value::Tensor(_) | Value::Typed(_)));
        // One dictionary may stand under several keys, and settings may have one of these names.
        let mut filled: Vec<_> = dicts.clone().filter(|&(_, id)| tensors(id)).collect();
        filled.dedup_by_key(|&mut (_, id)| id);
        if let [(first, _), (second, _), ..] = *filled {
            return fail(format!("it has two state dicts, `{first}` and `{second}`"))
                .hint(|| "in Python, torch.save the right one to a file of its own");
        }
        let other = nested.iter().map(|(_, value)| *value).find(|value| matches!(value, Value::Opaque(_)));
        match filled.first().copied().or_else(|| dicts.clone().next()) {
            Some((_, id)) => Ok(&self.dicts[id]),
            None if self.others.is_empty() => Ok(&self.dicts[whole]),
            None => Err(self.refuse(&[other.unwrap_or(Value::Opaque(0))], "")),
        }
    }

    /// Reads an item of the state dict, a tensor and its number of bytes; plain values are none.
    fn entry(
        &self, name: &str, value: Value<'a>, find: &mut impl FnMut(&Storage<'a>) -> Result<Span>,
    ) -> Result<Option<(Entry, usize)>> {
        let (args, typed) = match value {
            Value::Plain | Value::Bool(_) | Value::Int(_) | Value::Str(_) => return Ok(None),
            Value::Tensor(id) => (&*self.seqs[id], false),
            Value::Typed(id) => (&*self.seqs[id], true),
            _ => return Err(self.refuse(&[value], "it is neither a tensor nor a plain value")),
        };
        let malformed = || self.refuse(args, "the tensor is not pickled as torch.save does");
        let [Value::Storage(id), offset, Value::Tuple(shape), Value::Tuple(strides), rest @ ..] = args else {
            return Err(malformed());
        };
        if rest.iter().any(|value| matches!(value, Value::Opaque(_))) {
            return Err(malformed());
        }
        // After the strides: requires_grad, hooks, the type of `_rebuild_tensor_v3`, flags.
        let storage = self.storage(*id).ok_or_else(malformed)?;
        let (kind, flags) = match (storage.kind, rest) {
            (Some(kind), rest) if !typed => (kind, rest.get(2)),
            (None, [_, _, Value::Known(Known::Type(kind)), ..]) if typed => (*kind, rest.get(3)),
            _ => return Err(malformed()),
        };
        match flags {
            None | Some(Value::Plain) => {}
            Some(Value::Dict(id)) if self.dicts[*id].is_empty() => {}
            Some(Value::Dict(_)) => {
                return fail("it is stored as the negative or the conjugate of its values, which is not read")
                    .hint(|| "call .resolve_conj().resolve_neg() on it before torch.save");
            }
            _ => return Err(malformed()),
        }
        let numbers = |id: usize| match &*self.seqs[id] {
            dims if dims.len() > RANK => None,
            dims => dims.iter().map(number).collect::<Option<Vec<_>>>(),
        };
        let (Some(shape), Some(strides), Some(offset)) = (numbers(*shape), numbers(*strides), number(offset)) else {
            return Err(malformed());
        };
        let storage = find(&storage)?;
        let (numel, _) = layout(&shape, &strides, offset, storage.len / kind.size())?;
        Ok(Some((Entry { name: name.to_owned(), kind, shape, strides, offset, storage }, numel * kind.size())))
    }
}
