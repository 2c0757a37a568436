//! Spanish class names with their grammar, and the prompts that are made of them.
//!
//! The bundled list `configs/prompts/imagenet_es.tsv` names all 1000 ImageNet classes; it was written for this project.
//! A name's gender and number decide the articles in a prompt: `{un}`, `{el}`, `{del}`, `{al}`.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::imagenet::Class;
use super::{first_few, text::read_lines};
use crate::error::{Error, Result, ResultExt};

const BUNDLED_NAMES: &str = include_str!("../../configs/prompts/imagenet_es.tsv");
const BUNDLED_PROMPTS: &str = include_str!("../../configs/prompts/es.toml");

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
/// from the bundled table; tables are looked up by wnid.
pub fn load(path: Option<&Path>, classes: &[Class]) -> Result<Vec<ClassName>> {
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
        names.insert(row.0, row.1);
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
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<&'static str>> {
        BUNDLED_NAMES.lines().skip(1).map(|line| line.split('\t').collect()).collect()
    }

    fn names(wnids: &[&str]) -> Vec<ClassName> {
        let class = |wnid: &&str| Class { wnid: (*wnid).to_owned(), names: vec!["x".into()] };
        load(None, &wnids.iter().map(class).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_bundled_list_has_every_class_once() {
        let rows = rows();
        assert_eq!(rows.len(), 1000);
        let mut seen = std::collections::HashSet::new();
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), 6, "{row:?}");
            assert_eq!(row[0], index.to_string());
            assert!(row[1].len() == 9 && row[1].starts_with('n') && row[1][1..].bytes().all(|b| b.is_ascii_digit()));
            assert!(index == 0 || rows[index - 1][1] < row[1], "wnids are in ImageNet's order, which ascends");
            assert!(!row[2].is_empty() && row[2].trim() == row[2] && !row[2].contains("  "), "{row:?}");
            assert!(seen.insert(row[2].to_lowercase()), "{} twice", row[2]);
            for article in ["un ", "una ", "el ", "la ", "los ", "las "] {
                assert!(!row[2].starts_with(article), "{row:?}");
            }
        }
        // The wnids themselves, against ImageNet's own list of 1000 (its hash, for the list is not ours to ship).
        let wnids: Vec<&str> = rows.iter().map(|row| row[1]).collect();
        assert_eq!(blake3::hash(wnids.join("\n").as_bytes()).to_hex()[..16], *WNIDS_HASH);
    }

    const WNIDS_HASH: &str = "75239416efa062b1";

    #[test]
    fn genders_agree_with_the_endings_of_the_nouns() {
        // Nouns whose ending tells another gender than they have.
        let masculine = [
            "agama",
            "equidna",
            "koala",
            "chihuahua",
            "lhasa",
            "dálmata",
            "terranova",
            "pomerania",
            "puma",
            "impala",
            "gorila",
            "panda",
            "semioruga",
            "pijama",
            "tranvía",
            "crucigrama",
        ];
        let feminine = ["radio", "moto", "coliflor"];
        for row in rows() {
            let (first, gender, number) = (row[2].split(' ').next().unwrap(), row[3], row[4]);
            assert!(["m", "f"].contains(&gender) && ["s", "p"].contains(&number), "{row:?}");
            let expected = match first {
                _ if masculine.contains(&first) => "m",
                _ if feminine.contains(&first) => "f",
                _ if first.ends_with(['o', 'ó']) || first.ends_with("or") || first.ends_with("aje") => "m",
                _ if first.ends_with('a') || first.ends_with("ción") || first.ends_with("dad") => "f",
                _ => gender,
            };
            assert_eq!(gender, expected, "{row:?}");
            assert!(number == "s" || first.ends_with('s'), "{row:?}");
        }
    }

    #[test]
    fn articles_agree() {
        let all = names(&["n02012849", "n03126707", "n01614925", "n04356056", "n01514668", "n03495258"]);
        let said: Vec<String> = all.iter().map(|name| name.fill("{un} {name} / {del} {}").unwrap()).collect();
        assert_eq!(
            said,
            [
                "una grulla / de la grulla",
                "una grúa / de la grúa",
                "un águila calva / del águila calva",
                "unas gafas de sol / de las gafas de sol",
                "un gallo / del gallo",
                "un arpa / del arpa"
            ]
        );
        assert_eq!(all[0].fill("una foto de {un} {name}").unwrap(), "una foto de una grulla");
        assert_eq!(ClassName::plain("luna").fill("una imagen de {}").unwrap(), "una imagen de luna");
        for (name, template) in [(ClassName::plain("luna"), "{un} {}"), (all[0].clone(), "una imagen de")] {
            let error = name.fill(template).unwrap_err();
            assert!(error.exit_code() == 2 && error.advice().is_some(), "{error}");
        }
    }

    #[test]
    fn every_bundled_prompt_fills_for_every_class() {
        let wnids: Vec<&str> = rows().iter().map(|row| row[1]).collect();
        let names = names(&wnids);
        let ensemble = templates("ensemble").unwrap();
        assert!(ensemble.len() >= 24 && ensemble.contains(&"una imagen de {un} {name}".to_owned()));
        for template in &ensemble {
            for name in &names {
                assert!(!name.fill(template).unwrap().contains(['{', '}']), "{template}");
            }
        }
        assert_eq!(templates("una {}").unwrap(), ["una {}"]);
    }

    #[test]
    fn unknown_classes_and_broken_tables_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let class = Class { wnid: "n9".into(), names: vec!["x".into()] };
        assert!(load(None, std::slice::from_ref(&class)).unwrap_err().to_string().contains("n9"));
        for (text, part) in [
            ("index\twnid\tname\n0\tn9\tluna\n", "line 2"),
            ("index\twnid\tname\n0\tn8\tluna\tf\ts\t\n", "n9"),
            ("luna\nsol\n", "names 2 classes"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load(Some(&path), std::slice::from_ref(&class)).unwrap_err();
            assert!(error.to_string().contains(part) && error.advice().is_some(), "{error}");
        }
        std::fs::write(&path, "index\twnid\tname\n0\tn9\tluna\tf\ts\t\n").unwrap();
        assert_eq!(load(Some(&path), &[class]).unwrap()[0].fill("{el} {}").unwrap(), "la luna");
    }
}
