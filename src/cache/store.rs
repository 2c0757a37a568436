//! What a model computed: rows of numbers, found by the digest of the content that they were computed from.
//!
//! A store is one file for each model, which only grows. It begins with `MAGIC`; then come blocks:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `BLOCK` |
//! | 8 | rows of the block (u64) |
//! | 4 | width of a row (u32) |
//! | 4 | CRC-32C of the table (u32) |
//! | 4 | CRC-32C of the 24 bytes before (u32) |
//! | 4 | 0 |
//! | 20 rows | the table: of each row the digest of its content (16 bytes) and the CRC-32C of its numbers (u32) |
//! | 4 width rows | the rows (f32) |
//!
//! Numbers are little-endian. A block counts once it is whole: a process that was killed leaves a piece at the end, which
//! the next writer cuts off. A row is checked whenever it is read. A damaged row, table or header is named in a warning and
//! its rows are computed again; later rows of the same content take the place of earlier ones.
//!
//! Processes take turns by a lock of the file. What is computed is computed under the lock ([`Store::fill`]), so two that
//! need the same rows compute each once. Readers take no lock: what has been written whole is never changed.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crc32c::crc32c;
use hashbrown::HashTable;
use memmap2::Mmap;

use super::Key;
use crate::error::{Error, Result};

const MAGIC: &[u8; 16] = b"themo rows   v1\n";
const BLOCK: &[u8; 8] = b"\x89block1\n";
const HEADER: usize = 32;
const ENTRY: usize = 20;

/// The digest of a content.
pub type Digest = [u8; 16];

/// The digest of `content`: the first half of its BLAKE3.
pub fn digest(content: &[u8]) -> Digest {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(content).as_bytes()[..16]);
    half
}

/// The rows of one model.
pub struct Store {
    path: PathBuf,
    file: File,
    width: usize,
    map: Option<Mmap>,
    /// Where whole blocks end.
    end: usize,
    blocks: Vec<Block>,
    /// Numbers of rows, by their digests.
    index: HashTable<u32>,
    rows: usize,
}

/// A whole block of the file.
#[derive(Clone, Copy)]
struct Block {
    first_row: usize,
    rows: usize,
    /// Where its table begins.
    table: usize,
}

impl Store {
    /// The store `dir/KEY.rows` of rows of `width` numbers; an empty one where there is no file.
    pub fn open(dir: &Path, key: &Key, width: usize) -> Result<Self> {
        let path = dir.join(format!("{}.rows", key.name()));
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = match std::fs::create_dir_all(dir).and_then(|()| open()) {
            // What is there can be read where nothing may be written.
            Err(e) if matches!(e.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
                File::open(&path).map_err(|_| e)
            }
            file => file,
        };
        let file = file.map_err(|e| failed(e, &path))?;
        let (map, end, index) = (None, MAGIC.len(), HashTable::new());
        let mut store = Self { path, file, width, map, end, blocks: Vec::new(), index, rows: 0 };
        store.read_new().map_err(|e| failed(e, &store.path))?;
        Ok(store)
    }

    /// The width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the content `digest` has a sound row.
    pub fn has(&self, digest: &Digest) -> bool {
        self.bytes_of(digest).is_some()
    }

    /// Adds the row of the content `digest` to `out`; false where there is none.
    pub fn append_to(&self, digest: &Digest, out: &mut Vec<f32>) -> bool {
        let Some(bytes) = self.bytes_of(digest) else { return false };
        out.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        true
    }

    /// Computes and keeps the rows that are missing of `wanted`: `compute` is given the places in `wanted` of contents that
    /// have none, each content once, and returns their rows. Returns how many there were.
    pub fn fill(&mut self, wanted: &[Digest], compute: impl FnOnce(&[usize]) -> Result<Vec<f32>>) -> Result<usize> {
        if self.missing(wanted).is_empty() {
            return Ok(0);
        }
        let _lock = Lock::of(&self.file, &self.path)?;
        // Another process may have computed them meanwhile.
        self.read_new().map_err(|e| failed(e, &self.path))?;
        let missing = self.missing(wanted);
        if missing.is_empty() {
            return Ok(0);
        }
        let rows = compute(&missing)?;
        if rows.len() != missing.len() * self.width {
            return Err(Error::new(format!("{} numbers for {} rows of {}", rows.len(), missing.len(), self.width)));
        }
        let digests: Vec<Digest> = missing.iter().map(|i| wanted[*i]).collect();
        self.write(&digests, &rows).map_err(|e| failed(e, &self.path))?;
        Ok(missing.len())
    }

    /// The places in `wanted` of contents without a row, each content once.
    fn missing(&self, wanted: &[Digest]) -> Vec<usize> {
        let mut seen = std::collections::HashSet::new();
        (0..wanted.len()).filter(|i| !self.has(&wanted[*i]) && seen.insert(wanted[*i])).collect()
    }

    /// Writes a block behind the last whole one, under the lock.
    fn write(&mut self, digests: &[Digest], rows: &[f32]) -> io::Result<()> {
        let row_bytes: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut table = Vec::with_capacity(digests.len() * ENTRY);
        for (digest, row) in digests.iter().zip(row_bytes.chunks_exact(self.width * 4)) {
            table.extend_from_slice(digest);
            table.extend_from_slice(&crc32c(row).to_le_bytes());
        }
        let mut header = BLOCK.to_vec();
        header.extend((digests.len() as u64).to_le_bytes());
        header.extend((self.width as u32).to_le_bytes());
        header.extend(crc32c(&table).to_le_bytes());
        header.extend(crc32c(&header).to_le_bytes());
        header.resize(HEADER, 0);
        self.file.set_len(self.end as u64)?; // a piece of a block, from a process that was killed
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(MAGIC)?;
        self.file.seek(SeekFrom::Start(self.end as u64))?;
        [header, table, row_bytes].iter().try_for_each(|part| self.file.write_all(part))?;
        self.read_new()
    }

    /// Takes in the whole blocks that have been written since the last look.
    fn read_new(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len() as usize;
        if length <= self.end {
            return Ok(());
        }
        // SAFETY: the map is read-only, and only whole blocks of it are looked at, which are never changed. (A file that
        // another program shortens meanwhile ends the process; nothing can be done about that with a map.)
        let map = unsafe { Mmap::map(&self.file) }?;
        let is_first = self.map.is_none();
        let (known, mut damaged) =
            (self.blocks.len(), if is_first && map[..self.end] != MAGIC[..] { self.end } else { 0 });
        while let Some(found) = Found::next(&map, self.end, self.width) {
            damaged += found.start - self.end;
            self.end = found.end;
            if !found.is_sound(&map) {
                damaged += found.end - found.start;
                continue;
            }
            self.blocks.push(Block { first_row: self.rows, rows: found.rows, table: found.table });
            self.rows += found.rows;
        }
        if damaged > 0 {
            let path = self.path.display();
            tracing::warn!("{path}: {damaged} bytes are damaged; what is lost with them will be computed again");
        }
        self.map = Some(map);
        (known..self.blocks.len()).for_each(|block| self.enter(block));
        Ok(())
    }

    /// Enters the rows of a block into the index.
    fn enter(&mut self, block: usize) {
        let Self { map: Some(map), blocks, index, .. } = self else { return };
        let Block { first_row, rows, .. } = blocks[block];
        index.reserve(rows, |row| hash_of(entry(map, blocks, *row as usize)));
        for row in first_row..first_row + rows {
            let own = entry(map, blocks, row);
            let same = |other: &u32| entry(map, blocks, *other as usize)[..16] == own[..16];
            match index.find_mut(hash_of(own), same) {
                Some(earlier) => *earlier = row as u32,
                None => {
                    index.insert_unique(hash_of(own), row as u32, |row| hash_of(entry(map, blocks, *row as usize)));
                }
            }
        }
    }

    /// The bytes of the row of the content `digest`, if there is a sound one.
    fn bytes_of(&self, digest: &Digest) -> Option<&[u8]> {
        let (map, blocks) = (self.map.as_ref()?, &self.blocks);
        let same = |row: &u32| entry(map, blocks, *row as usize)[..16] == digest[..];
        let row = *self.index.find(hash_of(digest), same)? as usize;
        let block = block_of(blocks, row);
        let at = block.table + block.rows * ENTRY + (row - block.first_row) * self.width * 4;
        let bytes = &map[at..at + self.width * 4];
        let is_sound = entry(map, blocks, row)[16..] == crc32c(bytes).to_le_bytes();
        if !is_sound {
            tracing::warn!("{}: a row is damaged; it will be computed again", self.path.display());
        }
        is_sound.then_some(bytes)
    }
}

/// The block that holds row `row`.
fn block_of(blocks: &[Block], row: usize) -> Block {
    blocks[blocks.partition_point(|block| block.first_row <= row) - 1]
}

/// The entry of row `row` in its table.
fn entry<'a>(map: &'a [u8], blocks: &[Block], row: usize) -> &'a [u8] {
    let block = block_of(blocks, row);
    &map[block.table + (row - block.first_row) * ENTRY..][..ENTRY]
}

/// A digest is as good as random: its first bytes serve as its hash.
fn hash_of(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// A whole block whose header is sound.
struct Found {
    start: usize,
    rows: usize,
    table: usize,
    table_crc: u32,
    end: usize,
}

impl Found {
    /// The next one of `bytes` from `at` on.
    fn next(bytes: &[u8], at: usize, width: usize) -> Option<Self> {
        let mut start = at;
        loop {
            match Self::at(bytes, start, width) {
                Ok(found) => return found,
                Err(()) => start += 1 + bytes.get(start + 1..)?.windows(BLOCK.len()).position(|some| some == BLOCK)?,
            }
        }
    }

    /// The one that begins at `start`; none if `bytes` end before it does, and an error if there is none.
    fn at(bytes: &[u8], start: usize, width: usize) -> Result<Option<Self>, ()> {
        let Some(header) = bytes.get(start..start + HEADER) else { return Ok(None) };
        let number = |at: usize| header[at..].first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
        let rows = (u64::from(number(12)) << 32 | u64::from(number(8))) as usize;
        let is_sound = header[..8] == BLOCK[..] && number(24) == crc32c(&header[..24]) && number(28) == 0;
        if !is_sound || number(16) as usize != width {
            return Err(());
        }
        let table = start + HEADER;
        let end = rows.checked_mul(ENTRY + width * 4).and_then(|size| size.checked_add(table)).ok_or(())?;
        Ok((end <= bytes.len()).then_some(Self { start, rows, table, table_crc: number(20), end }))
    }

    fn is_sound(&self, bytes: &[u8]) -> bool {
        crc32c(&bytes[self.table..self.table + self.rows * ENTRY]) == self.table_crc
    }
}

/// The right to write, until it is dropped.
struct Lock(Option<File>);

impl Lock {
    /// Waits for other processes. A file system without locks is warned about, and trusted to have one process only.
    fn of(file: &File, path: &Path) -> Result<Self> {
        let own = file.try_clone().map_err(|e| failed(e, path))?;
        let locked = crate::fs::lock(&own, path, "another themo is computing the same");
        Ok(Self((locked == crate::fs::Lock::Ours).then_some(own)))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock that cannot be given back goes with the process.
        self.0.as_ref().map(File::unlock);
    }
}

fn failed(error: io::Error, path: &Path) -> Error {
    Error::from(error)
        .context(format!("cannot keep what was computed in {}", path.display()))
        .hint("check the free space and the permissions, or choose another place with --cache-dir")
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
