//! Ctrl-C and SIGTERM: the first asks a training run to stop after its step, the second ends the program at once, as
//! the first does where nothing could be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Result, ResultExt};

/// Watches for signals while it lives, and after.
pub struct Signals {
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// From now on the first signal is only noted; the next ends the program with 128 + its number.
    pub fn watch() -> Result<Self> {
        let (received, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            let number = signal as usize;
            flag::register_conditional_shutdown(signal, 128 + signal, again.clone())
                .and_then(|_| flag::register(signal, again.clone()))
                .and_then(|_| flag::register_usize(signal, received.clone(), number))
                .context(|| "cannot watch for Ctrl-C")?;
        }
        Ok(Self { received })
    }

    /// The exit code that the signal received asks for, if there was one.
    pub fn exit_code(&self) -> Option<u8> {
        match self.received.load(Ordering::Relaxed) {
            0 => None,
            number => Some(128 + number as u8),
        }
    }
}

/// From now on the first Ctrl-C, SIGTERM or SIGHUP ends the program after `last` with 128 + its number.
#[cfg(unix)]
pub fn end_after(last: impl FnOnce() + Send + 'static) -> Result<()> {
    use signal_hook::consts::SIGHUP;
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).context(|| "cannot watch for Ctrl-C")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            last();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// (Elsewhere the program ends as it always does.)
#[cfg(not(unix))]
pub fn end_after(_: impl FnOnce() + Send + 'static) -> Result<()> {
    Ok(())
}
