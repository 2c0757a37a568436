//! Ctrl-C, SIGTERM and SIGHUP: the first asks a training run to stop after its step, the second ends the program at once, as
//! the first does where nothing could be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGXFSZ};
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
        let mut signals = vec![SIGINT, SIGTERM];
        #[cfg(unix)]
        if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        for signal in signals {
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
    let all = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP));
    let mut signals = signal_hook::iterator::Signals::new(all).context(|| "cannot watch for Ctrl-C")?;
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

/// Makes a write beyond the limit of a file's size (`ulimit -f`) an error; it would end the process otherwise.
pub fn survive_size_limits() -> Result<()> {
    #[cfg(unix)]
    flag::register(SIGXFSZ, Arc::default()).context(|| "cannot handle SIGXFSZ")?;
    Ok(())
}

/// Whether this process was started with `signal` ignored, as nohup does with SIGHUP (known on Linux only).
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
