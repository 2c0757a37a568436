//! What themo makes of its input, for the scripts beside this file that compare it with the reference implementations:
//! `dump tokens FOLDER MAX` gives the ids of each text with a model folder, `dump pooled FOLDER MAX` a BERT's mean-pooled
//! states; texts come as a JSON list on standard input. `dump pairs FILE [COLUMNS [RATIO MIN MAX]]` gives the pairs of a file
//! as read, and cleaned where the three limits are given. The answer is JSON on standard output.

use std::io::{Write, stdin, stdout};
use std::path::Path;

use candle_core::Device;
use serde_json::{Value, json};
use themo::compute::Compute;
use themo::data::cleaning::{Cleaner, Rules};
use themo::data::pairs::{self, Columns, Row};
use themo::data::tokens::TextTokenizer;
use themo::error::{Error, Result};
use themo::models::Student;
use themo::models::student::Head;
use themo::nn::{Pooling, Tokens};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().map_err(|_| Error::usage(format!("{text} is no number")));
    let answer = match args[..] {
        ["tokens", folder, max] => json!(tokens(folder, number(max)?)?),
        ["pooled", folder, max] => json!(pooled(folder, number(max)?)?),
        ["pairs", file] => json!(read(file, None, None)?),
        ["pairs", file, columns] => json!(read(file, Some(columns.parse()?), None)?),
        ["pairs", file, columns, ratio, min, max] => {
            let (min_chars, max_chars) = (Some(number(min)?), Some(number(max)?));
            let rules = Rules { max_length_ratio: ratio.parse().ok(), min_chars, max_chars, ..Rules::default() };
            let columns = Some(columns).filter(|columns| *columns != "-").map(str::parse).transpose()?;
            json!(read(file, columns, Some(rules))?)
        }
        _ => return Err(Error::usage("dump tokens|pooled FOLDER MAX < TEXTS.json, or dump pairs FILE ...")),
    };
    Ok(writeln!(stdout(), "{answer}")?)
}

fn tokens(folder: &str, max: usize) -> Result<Vec<Vec<u32>>> {
    let texts: Vec<String> = serde_json::from_reader(stdin().lock())?;
    TextTokenizer::from_folder(Path::new(folder), max)?.encode(&texts)
}

fn pooled(folder: &str, max: usize) -> Result<Vec<Vec<f32>>> {
    let ids = tokens(folder, max)?;
    let student = Student::load(Path::new(folder), Head::new(Pooling::Mean, 1), 0, &Compute::new(Device::Cpu))?;
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for ids in ids.chunks(64) {
        rows.extend(student.pooled(&Tokens::pack(ids, 0)?)?.to_vec2()?);
    }
    Ok(rows)
}

fn read(file: &str, columns: Option<Columns>, rules: Option<Rules>) -> Result<Value> {
    let mut cleaner = rules.map(Cleaner::new);
    let mut found: Vec<[String; 2]> = Vec::new();
    let mut sink = |Row { es, en, number, .. }: Row| {
        let kept = match &mut cleaner {
            Some(cleaner) => cleaner.clean(es, en, || number.to_string()),
            None => Some((es, en)),
        };
        found.extend(kept.map(|(es, en)| [es.to_owned(), en.to_owned()]));
        Ok(())
    };
    let report = pairs::read(Path::new(file), columns.as_ref(), &mut sink)?;
    Ok(json!({"pairs": found, "read": report, "cleaning": cleaner.map(|cleaner| cleaner.report().clone())}))
}
