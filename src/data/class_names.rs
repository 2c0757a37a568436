//! Spanish class names with their grammar, and the prompts that are made of them.
//!
//! The bundled list `configs/prompts/imagenet_es.tsv` names all 1000 ImageNet classes; it was written for this project.
//! A name's gender and number decide the articles in a prompt: `{un}`, `{el}`, `{del}`, `{al}`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use super::first_few;
use super::text::{read_lines, to_nfc};
use crate::error::{Error, Result, ResultExt};

const BUNDLED_NAMES: &str = include_str!("../../configs/prompts/imagenet_es.tsv");
const BUNDLED_PROMPTS: &str = include_str!("../../configs/prompts/es.toml");

/// A class; its index is its line in `LOC_synset_mapping.txt`, for names are not unique (crane, maillot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// WordNet id, e.g. `n02012849`.
    pub wnid: String,
    /// The English names, the usual one first; none where the classes are those of the bundled list.
    pub names: Vec<String>,
}

/// Gender and number of a noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grammar {
    feminine: bool,
    plural: bool,
}

/// What a class is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassName {
    /// The noun phrase, without an article.
    pub name: String,
    /// Unknown where the names came as plain lines.
    pub grammar: Option<Grammar>,
}

/// The prompts of `configs/prompts/es.toml`.
#[derive(Deserialize)]
struct Prompts {
    ensemble: Vec<String>,
}

/// The name of each of `classes`: from `path`, a text file of one name a line or a table like the bundled one, else
/// from the bundled table; tables are looked up by wnid. Names that two classes share are warned about. `normalize`
/// brings names into Unicode's normal form C.
pub fn load(path: Option<&Path>, classes: &[Class], normalize: bool) -> Result<Vec<ClassName>> {
    let mut names = read(path, classes)?;
    let of = path.map_or("the bundled list".to_owned(), |path| path.display().to_string());
    if normalize {
        let changed = names.iter_mut().map(|class| to_nfc(&mut class.name)).filter(|changed| *changed).count();
        if changed > 0 {
            tracing::info!("{of}: normalised {changed} class names to NFC (--no-normalize keeps them)");
        }
    }
    let shared = shared_names(&names, classes);
    if !shared.is_empty() {
        tracing::warn!("{of}: classes of one name cannot be distinguished: {}", first_few(&shared));
    }
    Ok(names)
}

/// `"name" twice: wnid (English name) and ...` for each name of two classes or more, in the order of the classes.
fn shared_names(names: &[ClassName], classes: &[Class]) -> Vec<String> {
    let mut classes_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    names.iter().enumerate().for_each(|(k, class)| classes_of.entry(folded(&class.name)).or_default().push(k));
    let mut shared: Vec<Vec<usize>> = classes_of.into_values().filter(|of| of.len() > 1).collect();
    shared.sort();
    let class = |k: &usize| match classes[*k].names.first() {
        Some(english) => format!("{} ({english})", classes[*k].wnid),
        None => classes[*k].wnid.clone(),
    };
    let line = |of: &Vec<usize>| {
        let times = if of.len() == 2 { "twice".to_owned() } else { format!("{} times", of.len()) };
        format!("\"{}\" {times}: {}", names[of[0]].name, of.iter().map(class).collect::<Vec<_>>().join(" and "))
    };
    shared.iter().map(line).collect()
}

/// A name as a tokenizer may see it: case, spaces and forms of accents do not distinguish two names.
fn folded(name: &str) -> String {
    let mut name = name.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    to_nfc(&mut name);
    name
}

/// The wnids of ImageNet's 1000 classes, in their order.
pub(super) fn bundled_wnids() -> impl Iterator<Item = &'static str> {
    BUNDLED_NAMES.lines().skip(1).filter_map(|line| line.split('\t').nth(1))
}

/// What the classes are called in English. The original takes the first of a class's names; where that is the first name
/// of another class, too, the class takes its next name that is free (maillot: tank suit). Those that have no other
/// (crane) keep it, and are warned about where they are more than one.
pub fn english(classes: &[Class]) -> Result<Vec<ClassName>> {
    let firsts: Option<Vec<&String>> = classes.iter().map(|class| class.names.first()).collect();
    let Some(firsts) = firsts else {
        return Err(Error::new("the classes have no English names without LOC_synset_mapping.txt")
            .hint("put Kaggle's LOC_synset_mapping.txt into the folder imagenet, or leave --with-teacher out"));
    };
    let mut count: HashMap<String, usize> = HashMap::new();
    firsts.iter().for_each(|name| *count.entry(folded(name)).or_default() += 1);
    let mut taken: HashSet<String> = count.keys().cloned().collect();
    let (mut names, mut changed) = (Vec::with_capacity(classes.len()), Vec::new());
    for (class, first) in classes.iter().zip(firsts) {
        let mut free = || class.names[1..].iter().find(|name| taken.insert(folded(name)));
        let other = if count[&folded(first)] > 1 { free() } else { None };
        if let Some(other) = other {
            changed.push(format!("{first} ({}) is called {other}", class.wnid));
        }
        names.push(ClassName::plain(other.unwrap_or(first)));
    }
    if !changed.is_empty() {
        let n = changed.len();
        tracing::info!("{n} English class names are another class's, too; the next synonym: {}", first_few(&changed));
    }
    let shared = shared_names(&names, classes);
    if !shared.is_empty() {
        tracing::warn!("English classes of one name, without another, cannot be distinguished: {}", first_few(&shared));
    }
    Ok(names)
}

fn read(path: Option<&Path>, classes: &[Class]) -> Result<Vec<ClassName>> {
    let Some(path) = path else {
        return from_table(BUNDLED_NAMES, classes)
            .context(|| "the bundled Spanish class names")
            .hint(|| "give the Spanish names of these classes with --class-names FILE");
    };
    let hint = || "one Spanish name a line in the order of LOC_synset_mapping.txt, or a table like configs/prompts/imagenet_es.tsv";
    let lines = read_lines(path).hint(hint)?;
    if lines.first().is_some_and(|line| line.contains('\t')) {
        return from_table(&lines.join("\n"), classes).context(|| path.display().to_string()).hint(hint);
    }
    if lines.len() != classes.len() {
        let what = format!("{} names {} classes, the data set has {}", path.display(), lines.len(), classes.len());
        return Err(Error::new(what).hint(hint()));
    }
    Ok(lines.iter().map(|line| ClassName { name: line.trim().to_owned(), grammar: None }).collect())
}

/// Rows `index wnid name gender number other_names` below a header.
fn from_table(text: &str, classes: &[Class]) -> Result<Vec<ClassName>> {
    let mut names = HashMap::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let row = match fields[..] {
            [_, wnid, name, gender @ ("m" | "f"), number @ ("s" | "p"), ..] if !name.trim().is_empty() => {
                let grammar = Some(Grammar { feminine: gender == "f", plural: number == "p" });
                (wnid, ClassName { name: name.trim().to_owned(), grammar })
            }
            _ => {
                let what = "not `index, wnid, name, m or f, s or p, other names` with tabs between";
                return Err(Error::new(format!("line {}: {what}", number + 1)));
            }
        };
        if names.insert(row.0, row.1).is_some() {
            return Err(Error::new(format!("line {}: {} has a name already", number + 1, row.0)));
        }
    }
    let unknown: Vec<&str> = classes.iter().map(|c| c.wnid.as_str()).filter(|wnid| !names.contains_key(wnid)).collect();
    if !unknown.is_empty() {
        return Err(Error::new(format!("no name for {} classes: {}", unknown.len(), first_few(&unknown))));
    }
    Ok(classes.iter().filter_map(|class| names.get(class.wnid.as_str()).cloned()).collect())
}

/// The templates that a `--prompt` stands for: itself, or all of the bundled ensemble.
pub fn templates(prompt: &str) -> Result<Vec<String>> {
    if prompt != "ensemble" {
        return Ok(vec![prompt.to_owned()]);
    }
    let prompts: Prompts =
        toml::from_str(BUNDLED_PROMPTS).map_err(|e| Error::new(e.to_string()).context("configs/prompts/es.toml"))?;
    Ok(prompts.ensemble)
}

impl ClassName {
    /// An English name, or any other that takes no articles.
    pub fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), grammar: None }
    }

    /// `template` with the name in the place of `{}` or `{name}`, and the articles that agree with it.
    pub fn fill(&self, template: &str) -> Result<String> {
        let mut text = template.replace("{name}", &self.name).replace("{}", &self.name);
        if text == template {
            let what = format!("the prompt {template:?} has no place for the class name");
            return Err(Error::usage(what).hint("write {} or {name} where it goes, as in: una imagen de {}"));
        }
        for (place, article) in [("{un}", 0), ("{el}", 1), ("{del}", 2), ("{al}", 3)] {
            if template.contains(place) {
                let grammar = self.grammar.ok_or_else(|| {
                    Error::usage(format!("the prompt {template:?} needs the gender of {:?}", self.name)).hint(
                        "use a prompt without {un}, {el}, {del} and {al}, or a table of names with gender and number",
                    )
                })?;
                text = text.replace(place, self.articles(grammar)[article]);
            }
        }
        Ok(text)
    }

    /// un, el, del, al. Before a stressed a, a feminine singular noun takes the masculine form of the articles
    /// (un águila, el hacha; RAE, Diccionario panhispánico de dudas, "el").
    fn articles(&self, grammar: Grammar) -> [&'static str; 4] {
        match (grammar.plural, grammar.feminine && !self.starts_with_stressed_a()) {
            (false, false) => ["un", "el", "del", "al"],
            (false, true) => ["una", "la", "de la", "a la"],
            (true, _) if grammar.feminine => ["unas", "las", "de las", "a las"],
            (true, _) => ["unos", "los", "de los", "a los"],
        }
    }

    fn starts_with_stressed_a(&self) -> bool {
        // Without a written accent, a word of two syllables that ends in a vowel is stressed on the first.
        const WORDS: [&str; 14] = [
            "agua", "ala", "alga", "alma", "ama", "ancla", "arma", "arpa", "asa", "asta", "aula", "ave", "hacha",
            "hada",
        ];
        let first = self.name.split([' ', '-']).next().unwrap_or_default().to_lowercase();
        first.starts_with('á') || first.starts_with("há") || WORDS.contains(&first.as_str())
    }
}

#[cfg(test)]
#[path = "class_names_tests.rs"]
mod tests;
