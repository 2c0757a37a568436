//! What themo makes of texts with a model folder, for the scripts beside this file that compare it with transformers:
//! `dump tokens FOLDER MAX` gives the ids of each text, `dump pooled FOLDER MAX` a BERT's mean-pooled states.
//! Texts come as a JSON list on standard input, the answer is JSON on standard output.

use std::io::stdin;
use std::path::Path;

use candle_core::Device;
use themo::compute::Compute;
use themo::data::tokens::TextTokenizer;
use themo::error::{Error, Result};
use themo::models::Student;
use themo::models::student::Head;
use themo::nn::{Pooling, Tokens};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, what, folder, max] = &args[..] else {
        return Err(Error::usage("dump tokens|pooled FOLDER MAX < TEXTS.json"));
    };
    let (folder, max) = (Path::new(folder), max.parse().map_err(|_| Error::usage("MAX is a number"))?);
    let texts: Vec<String> = serde_json::from_reader(stdin().lock())?;
    let ids = TextTokenizer::from_folder(folder, max)?.encode(&texts)?;
    if what == "tokens" {
        println!("{}", serde_json::to_string(&ids)?);
        return Ok(());
    }
    let student = Student::load(folder, Head::new(Pooling::Mean, 1), 0, &Compute::new(Device::Cpu))?;
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for ids in ids.chunks(64) {
        rows.extend(student.pooled(&Tokens::pack(ids, 0)?)?.to_vec2()?);
    }
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}
