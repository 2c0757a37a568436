use super::*;

fn rows() -> Vec<Vec<&'static str>> {
    BUNDLED_NAMES.lines().skip(1).map(|line| line.split('\t').collect()).collect()
}

fn names(wnids: &[&str]) -> Vec<ClassName> {
    let class = |wnid: &&str| Class { wnid: (*wnid).to_owned(), names: vec!["x".into()] };
    load(None, &wnids.iter().map(class).collect::<Vec<_>>(), true).unwrap()
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
    assert!(load(None, std::slice::from_ref(&class), true).unwrap_err().to_string().contains("n9"));
    for (text, part) in [
        ("index\twnid\tname\n0\tn9\tluna\n", "line 2"),
        ("index\twnid\tname\n0\tn8\tluna\tf\ts\t\n", "n9"),
        ("index\twnid\tname\n0\tn9\tluna\tf\ts\t\n1\tn9\tsol\tm\ts\t\n", "line 3: n9 has a name already"),
        ("luna\nsol\n", "names 2 classes"),
        ("lu\0na\n", "line 1: NUL bytes"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = load(Some(&path), std::slice::from_ref(&class), true).unwrap_err();
        assert!(error.to_string().contains(part) && error.advice().is_some(), "{error}");
    }
    std::fs::write(&path, "index\twnid\tname\n0\tn9\tluna\tf\ts\t\n").unwrap();
    assert_eq!(load(Some(&path), &[class], true).unwrap()[0].fill("{el} {}").unwrap(), "la luna");
}

fn class(line: &str) -> Class {
    let (wnid, names) = line.split_once(' ').unwrap();
    Class { wnid: wnid.into(), names: names.split(", ").map(str::to_owned).collect() }
}

#[test]
fn names_of_two_classes_are_found() {
    let classes = ["n1 arrow, dart", "n2 moon", "n3 square", "n4 star"].map(class);
    let shared = |names: [&str; 4]| shared_names(&names.map(ClassName::plain), &classes);
    assert_eq!(shared(["flecha", "luna", "cuadrado", "estrella"]), [""; 0]);
    assert_eq!(
        shared(["flecha azul", "luna", "Flecha  azul", "luna"]),
        ["\"flecha azul\" twice: n1 (arrow) and n3 (square)", "\"luna\" twice: n2 (moon) and n4 (star)",]
    );
    assert_eq!(
        shared(["nin\u{303}o", "niño", "x", "NIÑO"]),
        ["\"nin\u{303}o\" 3 times: n1 (arrow) and n2 (moon) and n4 (star)"]
    );
}

#[test]
fn names_are_normalised_unless_they_are_to_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    for (text, name) in [("\u{feff}nin\u{303}o\n", "niño"), ("i\tw\tn\tg\tn\to\n0\tn9\tnin\u{303}o\tm\ts\t\n", "niño")]
    {
        std::fs::write(&path, text).unwrap();
        let load = |normalize| load(Some(&path), &[class("n9 child")], normalize).unwrap()[0].name.clone();
        assert_eq!((load(true).as_str(), load(false).as_str()), (name, "nin\u{303}o"));
    }
}

#[test]
fn english_names_that_two_classes_share_give_way_to_synonyms() {
    // These lines are ImageNet's own, in its order: the only first names that are there twice.
    let lines = [
        "n01440764 tench, Tinca tinca",
        "n02012849 crane",
        "n02113186 Cardigan, Cardigan Welsh corgi",
        "n02963159 cardigan",
        "n03126707 crane",
        "n03710637 maillot",
        "n03710721 maillot, tank suit",
    ];
    let names = |lines: &[&str]| -> Vec<String> {
        let classes: Vec<Class> = lines.iter().map(|line| class(line)).collect();
        english(&classes).unwrap().into_iter().map(|class| class.name).collect()
    };
    assert_eq!(names(&lines), ["tench", "crane", "Cardigan Welsh corgi", "cardigan", "crane", "maillot", "tank suit"]);
    // Both where both can; no synonym that is taken.
    assert_eq!(names(&["n1 crane, bird", "n2 crane, bird, hoist", "n3 hoist"]), ["bird", "crane", "hoist"]);
    assert_eq!(names(&["n1 crane, wader", "n2 crane, machine"]), ["wader", "machine"]);
}
