//! The pickle machine: runs the opcodes of a pickle and builds tensors and plain values, nothing else.

use std::collections::HashMap;

use super::{DTYPES, Dtype, fail};
use crate::error::{Error, Result, ResultExt};

/// The most objects on the stack, in the memo and of each sort of container.
const OBJECTS: usize = 4 << 20;
/// Modules that run programs or reach the system: a file that names one is an attack.
const MODULES: &str = "os posix nt subprocess _posixsubprocess _winapi winreg sys shutil runpy socket _socket \
    importlib _frozen_importlib imp pkgutil pty webbrowser code codeop ctypes _ctypes commands popen2 pickle _pickle \
    marshal pdb bdb timeit profile cProfile pip urllib http ftplib smtplib requests multiprocessing asyncio";
/// Python's built-in functions that do the same.
const BUILTINS: &str = "eval exec execfile compile open file getattr setattr delattr __import__ input breakpoint \
    globals locals vars apply";

/// What a pickle builds. Containers are indices into the machine's arenas, so nothing nests or has two owners.
#[derive(Clone, Copy)]
pub(super) enum Object<'a> {
    /// None, a float, bytes or another thing that holds no others.
    Plain,
    Bool(bool),
    Int(i64),
    Str(&'a str),
    Tuple(usize),
    /// A list or a set, which may still grow.
    List(usize),
    Dict(usize),
    Known(Known),
    /// A storage by its persistent id, which is a tuple.
    Storage(usize),
    /// A tensor by the arguments of `_rebuild_tensor` or `_rebuild_tensor_v2`; in files from before these, a new one by
    /// its type, until BUILD replaces that by the arguments.
    Tensor(usize),
    /// A tensor by the arguments of `_rebuild_tensor_v3`, which has the element type beside the storage.
    Typed(usize),
    /// A global that is not interpreted, or what was made with it.
    Opaque(usize),
}

/// The globals that are interpreted.
#[derive(Clone, Copy)]
#[rustfmt::skip]
pub(super) enum Known {
    OrderedDict, Rebuild, RebuildV2, RebuildV3, Parameter, ParameterClass, Class(Dtype), Size, Device, Untyped,
    Storage(Dtype), Type(Dtype),
}

/// The pickle machine: see Python's pickletools.
#[derive(Default)]
pub(super) struct Machine<'a> {
    /// The bytes that were not read yet.
    pickle: &'a [u8],
    /// Bytes of the whole pickle.
    len: usize,
    stack: Vec<Object<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u64, Object<'a>>,
    pub(super) seqs: Vec<Vec<Object<'a>>>,
    pub(super) dicts: Vec<Vec<(Object<'a>, Object<'a>)>>,
    /// The persistent ids of storages, in the pickle's order.
    pub(super) storages: Vec<usize>,
    /// The module and the name of the globals that are not interpreted.
    pub(super) others: Vec<(&'a str, &'a str)>,
    /// How many items were copied from lists into dictionaries.
    copied: usize,
}

impl<'a> Machine<'a> {
    /// A machine that will run `pickle`.
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self { pickle, len: pickle.len(), ..Self::default() }
    }

    /// How many bytes it has read.
    pub(super) fn read(&self) -> usize {
        self.len - self.pickle.len()
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(len).ok().and_then(|len| self.pickle.split_at_checked(len));
        let (bytes, rest) = split
            .ok_or_else(|| Error::new("the pickle ends too early"))
            .hint(|| "fetch the file again; it may have been cut short")?;
        self.pickle = rest;
        Ok(bytes)
    }

    fn number(&mut self, len: u64) -> Result<u64> {
        Ok(self.take(len)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'a str> {
        let len = self.pickle.iter().position(|&byte| byte == b'\n').unwrap_or(self.pickle.len());
        let line = self.take(len as u64)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| Error::new("the name of a global is not UTF-8"))
    }

    fn pop(&mut self) -> Result<Object<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = if self.stack.len() > floor { self.stack.pop() } else { None };
        value.ok_or_else(|| Error::new("the pickle takes from an empty stack"))
    }

    fn pop_some(&mut self, n: usize) -> Result<Vec<Object<'a>>> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Object<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| Error::new("the pickle lacks a mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, items: Vec<Object<'a>>) -> Object<'a> {
        self.seqs.push(items);
        Object::Tuple(self.seqs.len() - 1)
    }

    fn list(&mut self, items: Vec<Object<'a>>) -> Object<'a> {
        self.seqs.push(items);
        Object::List(self.seqs.len() - 1)
    }

    fn dict(&mut self) -> Object<'a> {
        self.dicts.push(Vec::new());
        Object::Dict(self.dicts.len() - 1)
    }

    /// Puts items into the list (or set) or the dictionary on the stack, and returns that.
    fn fill(&mut self, items: &[Object<'a>], mapping: bool) -> Result<Object<'a>> {
        let container = self.pop()?;
        match (container, mapping, items.as_chunks()) {
            (Object::List(id), false, _) => self.seqs[id].extend_from_slice(items),
            (Object::Dict(id), true, (pairs, [])) => {
                self.dicts[id].extend(pairs.iter().map(|&[key, item]| (key, item)))
            }
            (Object::Opaque(_), ..) => {}
            _ => return fail("the pickle puts items into what is not a list or a dictionary"),
        }
        Ok(container)
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<Object<'a>> {
        let root = |path: &'a str| path.split('.').next().unwrap_or(path);
        let among = |names: &str, path| names.split(' ').any(|name| name == root(path));
        if among(MODULES, module) || (among("builtins __builtin__", module) && among(BUILTINS, name)) {
            return fail(format!("it names {module}.{name}, which no checkpoint needs and could run programs"))
                .hint(|| "do not load this file with PyTorch either; use a safetensors file from a source you trust");
        }
        let dtype = |name| DTYPES.iter().find(|row| row.1 == name || row.2 == name).map(|row| (row.0, row.1 == name));
        let class = |name: &str| {
            let of = name.strip_suffix("Tensor")?;
            DTYPES.iter().find(|row| row.1.strip_suffix("Storage") == Some(of)).map(|row| Known::Class(row.0))
        };
        let known = match (module, name) {
            ("collections", "OrderedDict") => Some(Known::OrderedDict),
            ("torch._utils", "_rebuild_tensor") => Some(Known::Rebuild),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Known::RebuildV2),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Known::RebuildV3),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(Known::Parameter),
            ("torch.nn.parameter", "Parameter") => Some(Known::ParameterClass),
            ("torch", "Size") => Some(Known::Size),
            ("torch", "device") => Some(Known::Device),
            ("torch.storage", "UntypedStorage") => Some(Known::Untyped),
            ("torch" | "torch.cuda", _) => dtype(name)
                .map(|(dtype, storage)| if storage { Known::Storage(dtype) } else { Known::Type(dtype) })
                .or_else(|| class(name)),
            _ => None,
        };
        if known.is_none() {
            self.others.push((module, name));
        }
        Ok(known.map_or(Object::Opaque(self.others.len().saturating_sub(1)), Object::Known))
    }

    /// REDUCE and NEWOBJ (`new`): only calls that build tensors and dictionaries are carried out.
    fn call(&mut self, callable: Object<'a>, args: Object<'a>, new: bool) -> Result<Object<'a>> {
        let (known, id) = match (callable, args) {
            (Object::Opaque(_), _) => return Ok(callable),
            (Object::Known(known), Object::Tuple(id)) => (known, id),
            _ => return fail("the pickle calls what is not a class"),
        };
        match (known, &*self.seqs[id]) {
            (Known::OrderedDict, []) => Ok(self.dict()),
            (Known::OrderedDict, &[Object::List(items)]) if !new => self.ordered_dict(items),
            (Known::Rebuild, [_, _, _, _]) => Ok(Object::Tensor(id)),
            (Known::RebuildV2, [_, _, _, _, _, _] | [_, _, _, _, _, _, _]) => Ok(Object::Tensor(id)),
            (Known::RebuildV3, [_, _, _, _, _, _, _] | [_, _, _, _, _, _, _, _]) => Ok(Object::Typed(id)),
            (
                Known::Parameter | Known::ParameterClass,
                &[data @ (Object::Tensor(_) | Object::Typed(_) | Object::Opaque(_)), ..],
            ) => Ok(data),
            (Known::ParameterClass, []) => Ok(self.new_tensor(Dtype::F32)),
            (Known::Class(dtype), []) => Ok(self.new_tensor(dtype)),
            (Known::Size, &[sizes @ Object::Tuple(_)]) => Ok(sizes),
            (Known::Device, _) => Ok(Object::Plain),
            (_, args) => Err(self.refuse(args, "the pickle calls a class of torch otherwise than torch.save does")),
        }
    }

    fn new_tensor(&mut self, dtype: Dtype) -> Object<'a> {
        self.seqs.push(vec![Object::Known(Known::Type(dtype))]);
        Object::Tensor(self.seqs.len() - 1)
    }

    /// An OrderedDict of a list of pairs, as Python 2 pickles it. The same list may be passed many times, so that a
    /// small pickle would build much: a pair that is written out takes more than four bytes of the pickle.
    fn ordered_dict(&mut self, list: usize) -> Result<Object<'a>> {
        self.copied += self.seqs[list].len();
        if self.copied > self.read() / 4 {
            return fail("the pickle makes many dictionaries of one list");
        }
        let pair = |item: &Object<'a>| match item {
            Object::List(id) | Object::Tuple(id) => {
                <[Object<'a>; 2]>::try_from(&*self.seqs[*id]).ok().map(|[key, value]| (key, value))
            }
            _ => None,
        };
        let pairs: Option<Vec<_>> = self.seqs[list].iter().map(pair).collect();
        self.dicts.push(pairs.ok_or_else(|| Error::new("the pickle makes a dictionary of what is not pairs"))?);
        Ok(Object::Dict(self.dicts.len() - 1))
    }

    /// BUILD: gives a new tensor what it is a view of (before 0.2 the arguments of `_rebuild_tensor`, or those of a
    /// Variable: the data, the gradient, hooks, `requires_grad` and `volatile`); other attributes are dropped.
    fn build(&mut self, object: Object<'a>, state: Object<'a>) -> Result<Object<'a>> {
        let (id, state) = match (object, state) {
            (_, Object::Opaque(_)) => return Ok(state),
            (Object::Opaque(_) | Object::Dict(_), _) => return Ok(object),
            (Object::Tensor(id) | Object::Typed(id), Object::Tuple(state)) => (id, &*self.seqs[state]),
            _ => return fail("the pickle gives attributes to what has none"),
        };
        let otherwise = || self.refuse(state, "the pickle builds a tensor otherwise than torch.save does");
        let args = match (&*self.seqs[id], state) {
            // A Variable's `requires_grad`, `volatile` and hooks.
            (_, [Object::Bool(_), _, _]) => return Ok(object),
            ([Object::Known(Known::Type(_))], [Object::Tensor(data), _, _, _, _]) => self.seqs[*data].clone(),
            ([Object::Known(Known::Type(dtype))], [Object::Storage(storage), _, _, _]) => {
                let same = self.storage(*storage).is_some_and(|storage| storage.dtype == Some(*dtype));
                if same { state.to_vec() } else { return Err(otherwise()) }
            }
            _ => return Err(otherwise()),
        };
        self.seqs[id] = args;
        Ok(object)
    }

    /// BINPERSID: a storage, or, where a whole model was saved, the class of a module beside its source.
    fn persistent(&mut self, id: usize) -> Result<Object<'a>> {
        match *self.seqs[id] {
            [Object::Str("storage"), ..] => {
                self.storages.push(id);
                Ok(Object::Storage(id))
            }
            [Object::Str("module"), class @ Object::Opaque(_), ..] => Ok(class),
            _ => fail("the pickle has a persistent id that is not a storage's"),
        }
    }

    /// Runs the pickle and returns what it builds.
    pub(super) fn run(&mut self) -> Result<Object<'a>> {
        loop {
            let op = self.number(1)? as u8;
            let n = self.number(match op {
                0x80 | b'K' | 0x8a | 0x8c | b'U' | b'C' | b'q' | b'h' => 1,
                b'M' => 2,
                b'J' | b'X' | b'T' | b'B' | b'r' | b'j' => 4,
                0x95 | b'G' | 0x8d | 0x8e | 0x96 => 8,
                _ => 0,
            })?;
            let value = match op {
                // FRAME, PROTO, MARK, POP, POP_MARK
                0x95 => continue,
                0x80 if n <= 5 => continue,
                b'(' | b'0' | b'1' => {
                    match op {
                        b'(' => self.marks.push(self.stack.len()),
                        b'0' if self.marks.last() != Some(&self.stack.len()) => drop(self.pop()?),
                        _ => drop(self.pop_to_mark()?),
                    }
                    continue;
                }
                // NONE, NEWTRUE, NEWFALSE, BINFLOAT, BININT1, BININT2, BININT, LONG1
                b'N' | b'G' => Object::Plain,
                0x88 | 0x89 => Object::Bool(op == 0x88),
                b'K' | b'M' => Object::Int(n as i64),
                b'J' => Object::Int((n as u32 as i32).into()),
                0x8a => match (self.number(n)? as i64, 64 - 8 * n.min(8) as u32) {
                    _ if n > 8 => Object::Plain,
                    (bits, unused) => Object::Int(bits.unbounded_shl(unused).unbounded_shr(unused)),
                },
                // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; Python 2's SHORT_BINSTRING, BINSTRING; SHORT_BINBYTES,
                // BINBYTES, BINBYTES8, BYTEARRAY8
                0x8c | b'X' | 0x8d | b'U' | b'T' => str::from_utf8(self.take(n)?).map_or(Object::Plain, Object::Str),
                b'C' | b'B' | 0x8e | 0x96 => self.take(n).map(|_| Object::Plain)?,
                // EMPTY_LIST, EMPTY_SET, FROZENSET; EMPTY_DICT; EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
                b']' | 0x8f => self.list(Vec::new()),
                0x91 => self.pop_to_mark().map(|items| self.list(items))?,
                b'}' => self.dict(),
                b')' => self.tuple(Vec::new()),
                b't' => self.pop_to_mark().map(|items| self.tuple(items))?,
                0x85..=0x87 => self.pop_some(usize::from(op - 0x84)).map(|items| self.tuple(items))?,
                // APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS
                b'a' => self.pop_some(1).and_then(|items| self.fill(&items, false))?,
                b'e' | 0x90 => self.pop_to_mark().and_then(|items| self.fill(&items, false))?,
                b's' => self.pop_some(2).and_then(|items| self.fill(&items, true))?,
                b'u' => self.pop_to_mark().and_then(|items| self.fill(&items, true))?,
                // BINPUT, LONG_BINPUT, MEMOIZE; DUP, BINGET, LONG_BINGET
                b'q' | b'r' | 0x94 => {
                    let value = self.pop()?;
                    self.memo.insert(if op == 0x94 { self.memo.len() as u64 } else { n }, value);
                    value
                }
                b'2' => self.pop().inspect(|value| self.stack.push(*value))?,
                b'h' | b'j' => *self.memo.get(&n).ok_or_else(|| Error::new("the pickle gets what it did not put"))?,
                // GLOBAL, STACK_GLOBAL; REDUCE, NEWOBJ; BUILD; BINPERSID
                b'c' => {
                    self.line().and_then(|module| Ok((module, self.line()?))).and_then(|(m, n)| self.global(m, n))?
                }
                0x93 | b'R' | 0x81 | b'b' | b'Q' => {
                    match (op, self.pop()?, if op == b'Q' { None } else { Some(self.pop()?) }) {
                        (0x93, Object::Str(name), Some(Object::Str(module))) => self.global(module, name)?,
                        (b'R' | 0x81, args, Some(callable)) => self.call(callable, args, op == 0x81)?,
                        (b'b', state, Some(object)) => self.build(object, state)?,
                        (b'Q', Object::Tuple(id), _) => self.persistent(id)?,
                        _ => return fail("the pickle takes a name or an id from something else"),
                    }
                }
                // STOP
                b'.' => return self.pop(),
                _ => return fail(format!("{op:#04x} is not an opcode that torch.save writes")),
            };
            self.stack.push(value);
            let counts = [self.stack.len(), self.marks.len(), self.seqs.len(), self.dicts.len(), self.memo.len()];
            if counts.into_iter().any(|n| n > OBJECTS) {
                return fail(format!("the pickle has more than {OBJECTS} objects"));
            }
        }
    }
}
