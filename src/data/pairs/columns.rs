//! Which columns of a file hold the two texts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The names of the Spanish and the English column: those of a header, dotted paths into nested columns
/// (`translation.es`), or the numbers of columns of a TSV without a header, from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Columns {
    /// Of the Spanish texts.
    pub es: String,
    /// Of the English texts.
    pub en: String,
}

/// The names that are looked for if none are given; the first that a file has.
const KNOWN: [(&str, &str); 4] =
    [("es", "en"), ("spanish", "english"), ("translation.es", "translation.en"), ("non_english", "english")];

impl Columns {
    fn new(es: &str, en: &str) -> Self {
        Self { es: es.into(), en: en.into() }
    }

    /// The two as numbers of columns, from 0.
    pub(super) fn numbers(&self) -> Option<[usize; 2]> {
        let number = |name: &str| name.parse::<usize>().ok()?.checked_sub(1);
        Some([number(&self.es)?, number(&self.en)?])
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "es={},en={}", self.es, self.en)
    }
}

impl From<Columns> for String {
    fn from(columns: Columns) -> Self {
        columns.to_string()
    }
}

impl TryFrom<String> for Columns {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Columns {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // A name may hold commas; the one before `en=` or `es=` parts the two.
        let wrong = || {
            Error::usage(format!("`{text}` does not name two columns"))
                .hint("such as es=translation.es,en=translation.en: first the Spanish column, then the English one")
        };
        let sides = |first: &str, second: &str| {
            let (a, b) = text.strip_prefix(first)?.split_once(second)?;
            Some((a.trim(), b.trim())).filter(|(a, b)| !a.is_empty() && !b.is_empty() && a != b)
        };
        let found = sides("es=", ",en=").or_else(|| sides("en=", ",es=").map(|(en, es)| (es, en)));
        found.map(|(es, en)| Self::new(es, en)).ok_or_else(wrong)
    }
}

/// What to look for in a file: the columns given, or else the known ones.
pub(super) struct Wanted {
    pub(super) columns: Option<Columns>,
}

impl Wanted {
    /// Where the two texts are among the columns `names` of a file; `None` if they are missing. The letters' case counts
    /// only where names differ in nothing else.
    pub(super) fn find<S: AsRef<str>>(&self, names: &[S]) -> Result<Option<[usize; 2]>> {
        let known;
        let candidates = match &self.columns {
            Some(given) => std::slice::from_ref(given),
            None => {
                known = KNOWN.map(|(es, en)| Columns::new(es, en));
                &known[..]
            }
        };
        for Columns { es, en } in candidates {
            let found = [position(names, es), position(names, en)];
            // Two of one name are no fault of a file that is without the other.
            if found.iter().any(|place| matches!(place, Ok(None))) {
                continue;
            }
            let [es, en] = found;
            return Ok(es?.zip(en?).map(|(es, en)| [es, en]));
        }
        Ok(None)
    }

    /// The columns given as numbers, from 0.
    pub(super) fn numbers(&self) -> Option<[usize; 2]> {
        self.columns.as_ref()?.numbers()
    }

    /// The refusal of a file with the columns `names`, which are not those wanted.
    pub(super) fn missing<S: AsRef<str>>(&self, file: &str, names: &[S]) -> Error {
        let wanted = match &self.columns {
            Some(Columns { es, en }) => format!("{es} and {en}"),
            None => {
                "es and en (or spanish and english, translation.es and translation.en, non_english and english)".into()
            }
        };
        let shown: Vec<&str> = names.iter().map(AsRef::as_ref).take(20).collect();
        let more =
            if names.len() > shown.len() { format!(" and {} more", names.len() - shown.len()) } else { String::new() };
        let columns = format!("it has {}{more}", shown.join(", "));
        let [es, en] = [0, 1].map(|i| shown.get(i).copied().unwrap_or("NAME"));
        Error::new(format!("{file} has no columns {wanted}; {columns}"))
            .hint(format!("name the Spanish and the English column, such as: --columns es={es},en={en}"))
    }
}

/// Where `wanted` is among the names.
fn position<S: AsRef<str>>(names: &[S], wanted: &str) -> Result<Option<usize>> {
    let equal = |same: &dyn Fn(&str) -> bool| {
        let found: Vec<usize> = (0..names.len()).filter(|i| same(names[*i].as_ref().trim())).collect();
        match found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Error::new(format!("{} columns are called {wanted}", found.len()))
                .hint("rename them in the file, so that one is left of that name")),
        }
    };
    match equal(&|name| name == wanted)? {
        Some(found) => Ok(Some(found)),
        None => equal(&|name| name.to_lowercase() == wanted.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(columns: Option<&str>, names: &[&str]) -> Result<Option<[usize; 2]>> {
        Wanted { columns: columns.map(|text| text.parse().unwrap()) }.find(names)
    }

    #[test]
    fn the_known_names_are_found() {
        for (names, expected) in [
            (&["id", "es", "en"][..], Some([1, 2])),
            (&["en", "es"], Some([1, 0])),
            (&["English", "SPANISH "], Some([1, 0])),
            (&["translation.en", "translation.es"], Some([1, 0])),
            (&["english", "non_english"], Some([1, 0])),
            (&["english", "non_english", "es", "en"], Some([2, 3])),
            (&["es", "english"], None),
            (&["es", "es", "un gato"], None),
            (&["ES", "es", "en"], Some([1, 2])),
            (&[], None),
        ] {
            assert_eq!(find(None, names).unwrap(), expected, "{names:?}");
        }
        for names in [&["es", "en", "es"][..], &["ES", "Es", "en"]] {
            assert!(find(None, names).unwrap_err().to_string().contains("2 columns are called es"), "{names:?}");
        }
    }

    #[test]
    fn given_names_are_the_only_ones() {
        assert_eq!(find(Some("es=target,en=source"), &["source", "target", "es", "en"]).unwrap(), Some([1, 0]));
        assert_eq!(find(Some("en=Source,es=a,b"), &["a,b", "source"]).unwrap(), Some([0, 1]));
        assert_eq!(find(Some("es=x,en=y"), &["es", "en"]).unwrap(), None);
        let error = Wanted { columns: Some(Columns::new("x", "y")) }.missing("f.csv", &["a", "b"]);
        assert_eq!(error.to_string(), "f.csv has no columns x and y; it has a, b");
        assert!(error.advice().unwrap().ends_with("--columns es=a,en=b"));
        for text in ["", "a,b", "es=a", "es=,en=b", "en=a,en=b", "es=a;en=b", "es=a,en=a"] {
            let error = text.parse::<Columns>().unwrap_err();
            assert!(error.exit_code() == 2 && error.advice().is_some(), "{text}");
        }
    }
}
