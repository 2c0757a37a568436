//! The tensors of a state dict, from what the pickle machine has built.

use std::collections::HashSet;

use super::machine::{Known, Machine, Object};
use super::{Dtype, GROWTH, Span, TensorInfo, fail, layout, size};
use crate::error::{Error, Result, ResultExt};

/// The most dimensions of a tensor.
const RANK: usize = 32;
/// Where a checkpoint of more than the weights has its state dict: Lightning's and many others' key, that of PyTorch's
/// tutorials, and that of fairseq, timm and others.
const NESTED: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// What a persistent id says about a storage.
pub(super) struct Storage<'a> {
    /// The type of its elements; `None` where only the tensor has it.
    pub dtype: Option<Dtype>,
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

fn number(n: &Object) -> Option<usize> {
    if let Object::Int(n) = n { usize::try_from(*n).ok() } else { None }
}

impl<'a> Machine<'a> {
    /// The error that names an object of another class among `values` or directly inside them, or says `otherwise`.
    pub(super) fn refuse(&self, values: &[Object<'a>], otherwise: &str) -> Error {
        let of = |value: &Object<'a>| if let Object::Opaque(id) = *value { Some(self.others[id]) } else { None };
        let found = values.iter().find_map(|value| match *value {
            Object::Tuple(id) | Object::List(id) | Object::Storage(id) | Object::Tensor(id) | Object::Typed(id) => {
                self.seqs[id].iter().find_map(of)
            }
            Object::Dict(id) => self.dicts[id].iter().find_map(|(key, value)| of(key).or_else(|| of(value))),
            _ => of(value),
        });
        let what =
            found.map(|(module, name)| format!("{module}.{name} is not read: only tensors and plain values are"));
        Error::new(what.unwrap_or_else(|| otherwise.to_owned()))
            .hint("in Python, torch.save(model.state_dict(), ...) writes a file of tensors alone")
    }

    /// The last item with this key of what is a dictionary.
    pub(super) fn item(&self, of: Object<'a>, key: &str) -> Option<Object<'a>> {
        let Object::Dict(id) = of else { return None };
        self.dicts[id]
            .iter()
            .rev()
            .find(|(name, _)| matches!(name, Object::Str(name) if *name == key))
            .map(|item| item.1)
    }

    /// A storage by its persistent id: `("storage", class, key, location, elements)`, before 1.6 with a sixth item,
    /// None or the view `(key, offset, elements)`.
    pub(super) fn storage(&self, id: usize) -> Option<Storage<'a>> {
        let [_, Object::Known(class), Object::Str(key), _, len, view @ ..] = &*self.seqs[id] else { return None };
        let dtype = match class {
            Known::Storage(dtype) => Some(*dtype),
            Known::Untyped => None,
            _ => return None,
        };
        let bytes = |n: &Object| number(n)?.checked_mul(dtype.map_or(1, size));
        let view = match view {
            [] | [Object::Plain] => None,
            [Object::Tuple(id)] => match &*self.seqs[*id] {
                [Object::Str(key), offset, len] => Some(View { key, offset: bytes(offset)?, bytes: bytes(len)? }),
                _ => return None,
            },
            _ => return None,
        };
        Some(Storage { dtype, key, bytes: bytes(len)?, view })
    }

    /// Reads the state dict in what the pickle built, for a file of `len` bytes. `find` locates a storage in the file
    /// and checks its size.
    pub(super) fn tensors(
        &self, top: Object<'a>, len: usize, mut find: impl FnMut(&Storage<'a>) -> Result<Span>,
    ) -> Result<Vec<TensorInfo>> {
        let (mut tensors, mut names, mut total) = (Vec::new(), HashSet::new(), 0usize);
        for (key, value) in self.state_dict(top)? {
            let Object::Str(name) = *key else {
                return Err(self.refuse(&[*key], "a name in the state dict is not a string"));
            };
            let tensor = self.tensor(name, *value, &mut find).context(|| format!("`{name}` of the state dict"))?;
            total = total.saturating_add(tensor.as_ref().map_or(0, |(_, bytes)| *bytes));
            if !names.insert(name) || total / GROWTH > len {
                return fail(format!("the state dict repeats itself at `{name}`"));
            }
            tensors.extend(tensor.map(|(tensor, _)| tensor));
        }
        if tensors.is_empty() { fail("the state dict has no tensors") } else { Ok(tensors) }
    }

    /// The items of the state dict in what the pickle built.
    fn state_dict(&self, top: Object<'a>) -> Result<&[(Object<'a>, Object<'a>)]> {
        let Object::Dict(whole) = top else {
            return Err(self.refuse(&[top], "it is not a dictionary of tensors"));
        };
        let nested: Vec<_> = NESTED.iter().filter_map(|key| Some((*key, self.item(top, key)?))).collect();
        let dicts = nested.iter().filter_map(|&(key, value)| match value {
            Object::Dict(id) => Some((key, id)),
            _ => None,
        });
        let tensors = |id: usize| self.dicts[id].iter().any(|(_, v)| matches!(v, Object::Tensor(_) | Object::Typed(_)));
        // One dictionary may stand under several keys, and settings may have one of these names.
        let mut filled: Vec<_> = dicts.clone().filter(|&(_, id)| tensors(id)).collect();
        filled.dedup_by_key(|&mut (_, id)| id);
        if let [(first, _), (second, _), ..] = *filled {
            return fail(format!("it has two state dicts, `{first}` and `{second}`"))
                .hint(|| "in Python, torch.save the right one to a file of its own");
        }
        let other = nested.iter().map(|(_, value)| *value).find(|value| matches!(value, Object::Opaque(_)));
        match filled.first().copied().or_else(|| dicts.clone().next()) {
            Some((_, id)) => Ok(&self.dicts[id]),
            None if self.others.is_empty() => Ok(&self.dicts[whole]),
            None => Err(self.refuse(&[other.unwrap_or(Object::Opaque(0))], "")),
        }
    }

    /// One item of the state dict: a tensor and its bytes, or `None` for a plain value.
    fn tensor(
        &self, name: &str, value: Object<'a>, find: &mut impl FnMut(&Storage<'a>) -> Result<Span>,
    ) -> Result<Option<(TensorInfo, usize)>> {
        let (args, typed) = match value {
            Object::Plain | Object::Bool(_) | Object::Int(_) | Object::Str(_) => return Ok(None),
            Object::Tensor(id) => (&*self.seqs[id], false),
            Object::Typed(id) => (&*self.seqs[id], true),
            _ => return Err(self.refuse(&[value], "it is neither a tensor nor a plain value")),
        };
        let malformed = || self.refuse(args, "the tensor is not pickled as torch.save does");
        let [Object::Storage(id), offset, Object::Tuple(shape), Object::Tuple(strides), rest @ ..] = args else {
            return Err(malformed());
        };
        if rest.iter().any(|value| matches!(value, Object::Opaque(_))) {
            return Err(malformed());
        }
        // After the strides: requires_grad, hooks, the type of `_rebuild_tensor_v3`, flags.
        let storage = self.storage(*id).ok_or_else(malformed)?;
        let (dtype, flags) = match (storage.dtype, rest) {
            (Some(dtype), rest) if !typed => (dtype, rest.get(2)),
            (None, [_, _, Object::Known(Known::Type(dtype)), ..]) if typed => (*dtype, rest.get(3)),
            _ => return Err(malformed()),
        };
        match flags {
            None | Some(Object::Plain) => {}
            Some(Object::Dict(id)) if self.dicts[*id].is_empty() => {}
            Some(Object::Dict(_)) => {
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
        let (numel, _) = layout(&shape, &strides, offset, storage.len / size(dtype))?;
        Ok(Some((TensorInfo { name: name.to_owned(), dtype, shape, strides, offset, storage }, numel * size(dtype))))
    }
}
