//! The forms with a row on each line: TSV, JSON lines and the two files of moses.

use serde_json::Value;

use super::columns::Wanted;
use super::output::{MISSING, NO_JSON, NO_TEXT, NULS, Output, WIDTH};
use crate::data::text::{self, Lines};
use crate::error::{Error, Result};

/// A line with NULs of at least this many bytes shows its encoding.
const MIN_GUESS_BYTES: usize = 32;

/// The next line, `false` at the end. A text that begins with NULs, or is UTF-16 or UTF-32 from here on, is an error.
fn advance(lines: &mut Lines) -> Result<bool> {
    if !lines.advance()? {
        return Ok(false);
    }
    let (line, is_first) = (lines.line(), lines.number() == 1);
    let shows_encoding = || is_first || line.len() >= MIN_GUESS_BYTES && text::guess(line).is_some();
    match line.contains(&0) && shows_encoding() {
        true => Err(lines.nul_bytes()),
        false => Ok(true),
    }
}

/// Lines of `width` fields with tabs between and without quoting; the texts are the fields `at`.
pub(super) fn read_tsv(mut lines: Lines, header: bool, width: usize, at: [usize; 2], out: &mut Output) -> Result<()> {
    let mut quoted = 0u64;
    while advance(&mut lines)? {
        let (line, number) = (lines.line(), lines.number());
        if line.is_empty() || header && number == 1 {
            continue;
        }
        let (mut count, mut found) = (0, [None; 2]);
        for field in line.split(|byte| *byte == b'\t') {
            found.iter_mut().zip(at).filter(|(_, at)| *at == count).for_each(|(found, _)| *found = Some(field));
            count += 1;
        }
        match (count == width, found) {
            (true, [Some(es), Some(en)]) => {
                quoted += u64::from(is_quoted(es) || is_quoted(en));
                out.put(number, es, en)?;
            }
            _ => out.reject(if line.contains(&0) { NULS } else { WIDTH }, number, line),
        }
    }
    if quoted > 0 {
        tracing::warn!(
            "{}: {quoted} lines have fields in \"quotes\" with \"\" inside, which is how CSV writes a quote; TSV is read \
             without quoting (a name that ends in .csv has it read as CSV, tabs too)",
            lines.name()
        );
    }
    Ok(())
}

/// Whether a field is written as CSV writes one that holds a quote.
fn is_quoted(field: &[u8]) -> bool {
    let inside = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\""));
    inside.is_some_and(|inside| inside.windows(2).any(|two| two == b"\"\""))
}

/// A text in a JSON object: the keys that lead to it.
type Keys = Vec<String>;

/// A JSON object on each line. The first one that has the wanted columns decides where they are.
pub(super) fn read_jsonl(mut lines: Lines, wanted: &Wanted, out: &mut Output) -> Result<()> {
    let (mut at, mut first): (Option<[Keys; 2]>, Option<Vec<String>>) = (None, None);
    while advance(&mut lines)? {
        let (line, number) = (lines.line(), lines.number());
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(line) else {
            out.reject(if line.contains(&0) { NULS } else { NO_JSON }, number, line);
            continue;
        };
        let object = Value::Object(object);
        if at.is_none() {
            let mut leaves = Vec::new();
            collect(&object, &mut Vec::new(), &mut leaves);
            let names: Vec<String> = leaves.iter().map(|keys: &Keys| keys.join(".")).collect();
            let found = wanted.find(&names)?;
            found.iter().for_each(|[es, en]| out.found(&names[*es], &names[*en]));
            at = found.map(|at| at.map(|i| leaves[i].clone()));
            first = first.or(Some(names));
        }
        let Some(at) = &at else {
            out.reject(MISSING, number, line);
            continue;
        };
        match at.each_ref().map(|keys| keys.iter().try_fold(&object, |value, key| value.get(key))) {
            [Some(Value::String(es)), Some(Value::String(en))] => out.put(number, es.as_bytes(), en.as_bytes())?,
            [None | Some(Value::Null), _] | [_, None | Some(Value::Null)] => out.reject(MISSING, number, line),
            _ => out.reject(NO_TEXT, number, line),
        }
    }
    match (at, first) {
        (None, Some(names)) => Err(wanted.missing(lines.name(), &names)),
        _ => Ok(()),
    }
}

/// The keys of everything in `value` that is no object.
fn collect(value: &Value, keys: &mut Keys, leaves: &mut Vec<Keys>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                keys.push(key.clone());
                collect(value, keys, leaves);
                keys.pop();
            }
        }
        _ => leaves.push(keys.clone()),
    }
}

/// Two files whose lines of one number belong together.
pub(super) fn read_moses(mut sides: [Lines; 2], out: &mut Output) -> Result<()> {
    loop {
        let [es, en] = &mut sides;
        let more = [advance(es)?, advance(en)?];
        match more {
            [true, true] => out.put(es.number(), es.line(), en.line())?,
            [false, false] => return Ok(()),
            _ => break,
        }
    }
    for side in &mut sides {
        while side.advance()? {}
    }
    let [es, en] = &sides;
    let what = format!(
        "{} has {} lines and {} has {}: lines of one number must belong together",
        es.name(),
        es.number(),
        en.name(),
        en.number()
    );
    Err(Error::new(what).hint("fetch both files again, of one release"))
}
