//! The one error type: what failed, why, and what to do about it.
//!
//! `main` prints `error: what: cause`, a blank line and `hint: ...`, and exits with [`Error::exit_code`].

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with a message for the user: the innermost cause first, then what was being done, outermost last.
#[derive(Debug)]
pub struct Error {
    layers: Vec<String>,
    hint: Option<String>,
    kind: Kind,
}

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An operation failed.
    Failure,
    /// themo was called or configured wrongly.
    Usage,
    /// The work was ended on request.
    Stopped,
}

impl Error {
    /// Describes a failure. `what` names the path or the flag, without a full stop: `Display` joins the layers with colons.
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
            f.write_str(&visible_lines(layer))?;
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
            // A backtrace does not help the user.
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            candle_core::Error::Io(error) => match error.downcast::<Carried>() {
                Ok(Carried(error)) => error,
                Err(other) => Self::from(other),
            },
            other => Self::new(other.to_string()),
        }
    }
}

/// An [`Error`] inside one of candle's, which has no hint: there it stands in the text.
#[derive(Debug)]
struct Carried(Error);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.advice() {
            Some(hint) => write!(f, "{} ({hint})", self.0),
            None => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Carried {}

/// For implementations of candle's traits. (Of candle's variants, only that of I/O gives back what it wraps.)
impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        Self::Io(std::io::Error::other(Carried(error)))
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

/// `text` with every control character escaped, and those that turn the direction of writing: a name from outside (of a
/// file, a tensor, a server's listing) must neither act on the terminal nor look like another line of a message.
pub fn visible(text: &str) -> String {
    let acts = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// [`visible`] for each line of a message.
pub fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// The first three of many things for a message, [`visible`]: `a, b, c and 7 more`.
pub(crate) fn first_few<T: std::fmt::Display>(items: &[T]) -> String {
    let shown: Vec<_> = items.iter().take(3).map(|item| visible(&item.to_string())).collect();
    match items.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_back_whole_from_candle() {
        let error = || Error::usage("no tensor").context("model.safetensors").hint("fetch it again");
        let candles = candle_core::Error::from(error()).bt();
        assert!(candles.to_string().starts_with("model.safetensors: no tensor (fetch it again)"), "{candles}");
        let back = Error::from(candles);
        assert_eq!(format!("{back:?}"), format!("{:?}", error()));
        let other = Error::from(candle_core::Error::from(std::io::Error::other("no disk")));
        assert_eq!((other.to_string(), other.advice()), ("no disk".to_owned(), None));
    }

    #[test]
    fn what_comes_from_outside_cannot_act_on_the_terminal() {
        let hostile = "a\u{1b}[2J\rb\u{9b}c\u{202e}d";
        let shown = r"a\u{1b}[2J\rb\u{9b}c\u{202e}d";
        assert_eq!(visible(hostile), shown);
        assert_eq!(Error::new(hostile).context("two\nlines").to_string(), format!("two\nlines: {shown}"));
        assert_eq!(first_few(&["ñ 月 \u{301}", "x\n\nhint: y"]), "ñ 月 \u{301}, x\\n\\nhint: y");
    }
}
