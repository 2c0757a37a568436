//! A source that is read ahead of its use, on a thread of its own: unpacking and parsing overlap.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Small enough to stay in a core's cache until it is used.
const BUFFER_BYTES: usize = 1 << 18;
/// How many buffers go round between the two threads, and so all that is ever read ahead.
const BUFFERS: usize = 4;

/// Reads what the thread has read; an error of the source arrives after all bytes before it.
pub(super) struct Ahead {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl Ahead {
    /// Starts to read `source`. The thread ends with the source, or once this reader is dropped.
    pub(super) fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (empty, to_fill) = channel();
        let (filled, full) = channel();
        for _ in 0..BUFFERS {
            let _ = empty.send(Vec::new()); // the other end is in this function
        }
        let name = "unpack".to_owned();
        thread::Builder::new().name(name).spawn(move || fill_all(source, &to_fill, &filled))?;
        Ok(Self { full, empty, buffer: Vec::new(), at: 0, is_over: false })
    }
}

/// Fills buffer after buffer; an empty one means the end.
fn fill_all(mut source: impl Read, to_fill: &Receiver<Vec<u8>>, filled: &Sender<io::Result<Vec<u8>>>) {
    for mut buffer in to_fill {
        buffer.resize(BUFFER_BYTES, 0);
        let (read, error) = read_full(&mut source, &mut buffer);
        buffer.truncate(read);
        let (is_last, failed) = (read == 0, error.is_some());
        // Nobody listens any more once the reader has been dropped.
        if (read > 0 || !failed) && filled.send(Ok(buffer)).is_err() {
            return;
        }
        if let Some(error) = error {
            let _ = filled.send(Err(error));
        }
        if is_last || failed {
            return;
        }
    }
}

/// Reads until `buffer` is full, the source ends or fails.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut read = 0;
    while read < buffer.len() {
        match source.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Some(error)),
        }
    }
    (read, None)
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() && !self.is_over {
            let used = std::mem::take(&mut self.buffer);
            self.at = 0;
            let _ = self.empty.send(used); // the thread may have ended
            let next = self.full.recv().unwrap_or_else(|_| Err(io::Error::other("the unpacking thread has ended")));
            self.is_over = next.as_ref().map_or(true, Vec::is_empty);
            self.buffer = next?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.buffer.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

/// A source whose reads are as long as they can be, whatever the pieces in which a pipe or a network hands it out: an
/// unpacker that drops a whole call's bytes at an error then drops the same ones each time.
pub(super) struct WholeReads<R>(pub(super) R);

impl<R: Read> Read for WholeReads<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match read_full(&mut self.0, buffer) {
            (0, Some(error)) => Err(error),
            (n, _) => Ok(n), // an error that lasts comes again
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is read of it, hands it out in odd pieces, and fails at the end.
    struct Pieces<'a>(&'a [u8], std::sync::mpsc::Sender<usize>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "bent"));
            }
            let most = buffer.len().min(70_001);
            let n = self.0.read(&mut buffer[..most])?;
            let _ = self.1.send(n);
            Ok(n)
        }
    }

    #[test]
    fn bytes_come_in_order_and_errors_after_them() {
        let bytes: &'static [u8] = (0..3_000_000_u32).map(|k| (k * 7919 % 251) as u8).collect::<Vec<_>>().leak();
        let (sender, pieces) = channel();
        let mut ahead = Ahead::new(Pieces(bytes, sender)).expect("a thread");
        let mut read = vec![0; 1000];
        ahead.read_exact(&mut read).expect("the first bytes");
        // No more than the buffers is read ahead, however long they lie.
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(pieces.try_iter().sum::<usize>() <= (BUFFERS + 1) * BUFFER_BYTES);
        let error = ahead.read_to_end(&mut read).expect_err("the error of the source");
        assert_eq!((error.to_string().as_str(), read == bytes), ("bent", true));
    }

    #[test]
    fn a_thread_that_dies_is_no_end() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                std::panic::resume_unwind(Box::new("quietly"));
            }
        }
        let mut ahead = Ahead::new(Panics).expect("a thread");
        assert!(ahead.read_to_end(&mut Vec::new()).is_err());
        let mut whole = Ahead::new(&b"all of it"[..]).expect("a thread");
        let mut read = Vec::new();
        assert_eq!(whole.read_to_end(&mut read).expect("no error"), 9);
        assert_eq!(whole.read(&mut [0; 4]).expect("the end stays the end"), 0);
    }

    #[test]
    fn whole_reads_fill_the_buffer() {
        let (sender, _pieces) = channel();
        let mut whole = WholeReads(Pieces(&[7; 200_000], sender));
        let sizes: Vec<_> = (0..3).map(|_| whole.read(&mut vec![0; 150_000]).ok()).collect();
        assert_eq!(sizes, [Some(150_000), Some(50_000), None]);
    }
}
