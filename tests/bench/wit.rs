//! Reads a split of WIT as training does, for wit_shard.py beside this file: `wit FOLDER SPLIT [--allow-damaged]` gives
//! the seconds it took, the bytes of the pairs in memory and of their captions, and the report, as JSON.

use std::path::Path;
use std::time::Instant;

use themo::data::{Pair, wit};
use themo::error::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let (folder, split, allow_damaged) = match &args[..] {
        [_, folder, split] => (folder, split, false),
        [_, folder, split, flag] if flag == "--allow-damaged" => (folder, split, true),
        _ => return Err(Error::usage("wit FOLDER SPLIT [--allow-damaged]")),
    };
    let start = Instant::now();
    let read = wit::read_split(Path::new(folder), split, allow_damaged)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = |pair: &Pair| size_of::<Pair>() + pair.es.capacity() + pair.en.capacity();
    let pair_bytes: usize = read.pairs.iter().map(bytes).sum();
    let caption_bytes: usize = read.pairs.iter().map(|pair| pair.es.len() + pair.en.len()).sum();
    let all = serde_json::json!({
        "seconds": seconds, "pair_bytes": pair_bytes, "caption_bytes": caption_bytes, "report": read.report,
    });
    println!("{all}");
    Ok(())
}
