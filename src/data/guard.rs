//! Decoders of other crates that panic on damaged data: an error, and nothing on the terminal.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    /// Whether a panic of this thread is caught and named: then the usual hook prints nothing.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `decode` gives; a panic in it is an error.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
    GUARDED.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(false);
    result.unwrap_or_else(|panic| Err(Error::new(format!("the decoder gave up: {}", message(&*panic)))))
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        for (decode, words) in [
            ((|| panic!("row {}", 7)) as fn() -> Result<()>, "row 7"),
            (|| [0u8; 3].get(3).map(drop).ok_or(()).map_err(|()| unreachable!("no row")), "no row"),
            (|| panic::panic_any(7), "without words"),
        ] {
            let error = guarded(decode).expect_err("it panics");
            assert!(error.to_string().contains("gave up") && error.to_string().contains(words), "{error}");
        }
        assert!(!GUARDED.get());
        assert!(guarded(|| Ok(3)).is_ok_and(|three| three == 3));
    }
}
