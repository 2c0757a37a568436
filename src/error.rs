//! The one error type: what failed, why, and what to do about it.
//!
//! `main` prints `error: what: cause`, a blank line and `hint: ...`, and exits with [`Error::exit_code`].

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure for a person to read: the innermost cause first, then what was being done, outermost last.
#[derive(Debug)]
pub struct Error {
    layers: Vec<String>,
    hint: Option<String>,
    kind: Kind,
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something did not work.
    Failure,
    /// themo was called or configured wrongly.
    Usage,
    /// The work was ended on request.
    Stopped,
}

impl Error {
    /// A failure described by `what` (no final full stop; name the path or the flag).
    pub fn new(what: impl Into<String>) -> Self {
        Self { layers: vec![what.into()], hint: None, kind: Kind::Failure }
    }

    /// A mistake in how themo was called or configured (exit code 2).
    pub fn usage(what: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::new(what) }
    }

    /// Work that was ended on request.
    pub fn stopped(what: impl Into<String>) -> Self {
        Self { kind: Kind::Stopped, ..Self::new(what) }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds what was being done when this failed.
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        self.layers.push(doing.into());
        self
    }

    /// Adds what the user can do about it; the first, most specific hint stays.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The advice to print after the message.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// 2 for wrong usage, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        if self.kind == Kind::Usage { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, layer) in self.layers.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            f.write_str(layer)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

macro_rules! from_error {
    ($($source:ty),+ $(,)?) => {$(
        impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::new(error.to_string())
            }
        }
    )+};
}
from_error!(std::io::Error, serde_json::Error, safetensors::SafeTensorError);

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        match error {
            // A backtrace is for us, not for the user.
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            other => Self::new(other.to_string()),
        }
    }
}

/// For implementations of candle's traits. (The hint is kept in the text: candle's errors have none.)
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error.advice() {
            Some(hint) => Self::wrap(format!("{error} ({hint})")),
            None => Self::wrap(error.to_string()),
        }
    }
}

/// Adds context and hints on the way up.
pub trait ResultExt<T> {
    /// Says what was being done when this failed.
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
    /// Says what the user can do about it.
    fn hint<S: Into<String>>(self, hint: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().context(doing()))
    }

    fn hint<S: Into<String>>(self, hint: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().hint(hint()))
    }
}

/// The first three of many things for a message: `a, b, c and 7 more`.
pub(crate) fn first_few<T: std::fmt::Display>(items: &[T]) -> String {
    let shown: Vec<_> = items.iter().take(3).map(T::to_string).collect();
    match items.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
