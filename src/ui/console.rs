//! Bar bars and log lines on stderr, which do not garble each other. Results go to stdout elsewhere.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::log_file::LogFile;
use crate::error::{Error, Result, visible};

/// All bars of the program; log lines are written while they are taken off the screen.
/// indicatif draws nothing when stderr is not a terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Starts logging. `verbosity` is -1 for warnings without bars, 0 for `info`, 1 for `debug`, 2 for `trace`; at 0,
/// `RUST_LOG` decides if it is set. The log file has the same lines, and `info` at least. Later calls only hide the bars.
pub fn init(verbosity: i8) {
    if verbosity < 0 {
        BARS.set_draw_target(ProgressDrawTarget::hidden());
    }
    let level = match verbosity {
        ..0 => "warn",
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // Only themo's own messages: a dependency's details help nobody.
    let own = |level: &str| EnvFilter::new(format!("warn,themo={level}"));
    let named = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|_| verbosity == 0);
    let (filter, wrong) = match named.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (own(level), Some(error)),
        None => (own(level), None),
    };
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let screen = fmt::layer()
        .with_writer(AboveBars)
        .with_ansi(colours)
        .with_target(verbosity > 0)
        .without_time()
        // It would report a closed stderr with eprintln!, which then panics.
        .log_internal_errors(false)
        .with_filter(filter);
    let file = fmt::layer()
        .with_writer(LogFile)
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false)
        .with_filter(own(if verbosity < 0 { "info" } else { level }));
    let started = tracing_subscriber::registry().with(screen).with(file).try_init();
    if let (Ok(()), Some(error)) = (started, wrong) {
        tracing::warn!("RUST_LOG is ignored: {error}");
    }
}

/// Writes a result to stdout, with a line end. A reader that has gone away is no error.
pub fn print(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::from(e).context("cannot write to standard output").hint("is the disk that it goes to full?"))
        }
        _ => Ok(()),
    }
}

/// Writes to stderr above the bars.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AboveBars {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// A bar with count, rate and remaining time; it leaves the screen when dropped.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

/// Starts a bar of `len` units (steps, images, ...), named `what`.
pub fn progress(len: u64, what: &str) -> Bar {
    bar(len, what, TEMPLATE)
}

/// Shows downloads, a bar for each file: called with its name, the bytes done and the bytes in all.
pub fn download_bars() -> impl Fn(&str, u64, u64) {
    let current: RefCell<Option<(String, Bar)>> = RefCell::default();
    move |file, done, total| {
        let mut current = current.borrow_mut();
        if current.as_ref().is_none_or(|(name, _)| name != file) {
            *current = Some((file.to_owned(), bar(total, file, BYTES_TEMPLATE)));
        }
        current.iter().for_each(|(_, bar)| bar.set(done));
        if done >= total {
            *current = None;
        }
    }
}

const TEMPLATE: &str = "{prefix} [{wide_bar}] {human_pos}/{human_len} {per_sec}, {eta} left {msg}";
const BYTES_TEMPLATE: &str =
    "{prefix} [{wide_bar}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left";

fn bar(len: u64, what: &str, template: &str) -> Bar {
    let bar = BARS.add(ProgressBar::new(len).with_prefix(visible(what)));
    // (A test checks that both templates parse.)
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    Bar { bar }
}

impl Bar {
    /// `n` more units are done.
    pub fn inc(&self, n: u64) {
        self.bar.inc(n);
    }

    /// `done` units are done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// There are `len` units, as far as is known now.
    pub fn set_length(&self, len: u64) {
        self.bar.set_length(len);
    }

    /// Shows a few words behind the bar, such as the loss.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        BARS.remove(&self.bar);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_counts_and_leaves() {
        assert!([TEMPLATE, BYTES_TEMPLATE].iter().all(|template| ProgressStyle::with_template(template).is_ok()));
        let progress = progress(10, "images");
        progress.inc(3);
        progress.message("loss 0.1".into());
        let bar = progress.bar.clone();
        assert_eq!((bar.position(), bar.prefix().as_str(), bar.message().as_str()), (3, "images", "loss 0.1"));
        drop(progress);
        assert!(bar.is_finished());
    }

    #[test]
    fn starting_twice_is_harmless() {
        init(0);
        init(-1);
    }
}
