use std::fs;

use super::super::layout::{Format, render};
use super::*;

/// Writes `SET.queries.tsv` of ranks of captions, `each` captions an image, and `SET.json` with the image tower.
fn results(folder: &Path, set: &str, ranks: &[usize], each: usize, vision: &str) -> String {
    let mut text = "query\ttarget\trank\ttask\tcluster\n".to_owned();
    for (i, rank) in ranks.iter().enumerate() {
        let image = i / each;
        text += &format!("caption {i}\t{image}.jpg\t{rank}\ttext_to_image\t{image}\n");
    }
    fs::create_dir_all(folder.join("eval")).expect("made");
    fs::write(folder.join("eval").join(format!("{set}.queries.tsv")), text).expect("written");
    let json = json!({"measured": {"vision": vision}});
    fs::write(folder.join("eval").join(format!("{set}.json")), json.to_string()).expect("written");
    folder.display().to_string()
}

/// 40 captions: 30 hits of both, `first` of the first only, `second` of the second only, and misses.
fn planted(first: usize, second: usize) -> [Vec<usize>; 2] {
    let rank = |hit: bool| if hit { 1 } else { 3 };
    let a = (0..40).map(|i| rank(i < 20 || (20..20 + first).contains(&i)));
    let b = (0..40).map(|i| rank(i < 20 || (30..30 + second).contains(&i)));
    [a.collect(), b.collect()]
}

fn rows(names: &[&str]) -> Result<Vec<Row>> {
    compare(&read(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?)
}

#[test]
fn a_planted_difference_is_found_with_its_p_value() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [a, b] = planted(9, 1);
    let a = results(&dir.path().join("a"), "retrieval", &a, 1, "clip");
    let b = results(&dir.path().join("b"), "retrieval", &b, 1, "clip");
    let found = rows(&[&a, &b])?;
    assert_eq!((found.len(), found[0].queries, found[1].notes.len()), (2, 40, 0));
    let (name, difference) = &found[1].first_less_this.as_ref().expect("the same queries")[0];
    // Of 10 on which they differ 9 are of one: 2 (1 + 10) / 2^10.
    assert_eq!((name.as_str(), difference.value), ("recall@1", 0.2));
    assert!(difference.p_value.is_some_and(|p| (p - 22.0 / 1024.0).abs() < 1e-12), "{difference:?}");
    let [low, high] = difference.ci95;
    assert!(0.0 < low && low < 0.2 && 0.2 < high, "{difference:?}");
    let table = render(&found, Format::Table)?;
    assert!(table.contains("A is better than B in recall@1 by 20.0 points ["), "{table}");
    assert!(table.contains("], p = 0.021") && table.contains("do not differ clearly in recall@5"), "{table}");
    assert!(table.lines().skip(2).all(|line| line.chars().count() <= 80), "{table}");
    let reversed = render(&rows(&[&b, &a])?, Format::Table)?;
    let same = |text: &str| text.split("in recall@1 by ").nth(1).and_then(|rest| Some(rest.lines().next()?.to_owned()));
    assert!(reversed.contains("B is better than A in recall@1 by 20.0 points"), "{reversed}");
    assert_eq!(same(&reversed), same(&table));
    // A file serves as well as a folder.
    let file = format!("{b}/eval/retrieval.queries.tsv");
    assert_eq!(rows(&[&a, &file])?[1].first_less_this.as_ref().map(|all| all[0].1.value), Some(0.2));
    Ok(())
}

#[test]
fn captions_of_one_image_are_drawn_together_and_have_no_mcnemar() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let width = |each: usize, folder: &str| -> Result<(f64, Option<f64>)> {
        let [a, b] = planted(10, 0);
        let a = results(&dir.path().join(folder).join("a"), "retrieval", &a, each, "clip");
        let b = results(&dir.path().join(folder).join("b"), "retrieval", &b, each, "clip");
        let found = rows(&[&a, &b])?;
        let Difference { ci95: [low, high], p_value, .. } = found[1].first_less_this.as_ref().expect("paired")[0].1;
        Ok((high - low, p_value))
    };
    let (single, clustered) = (width(1, "single")?, width(5, "five")?);
    assert!(single.1.is_some() && clustered.1.is_none());
    assert!(clustered.0 > 1.5 * single.0, "{clustered:?}, {single:?}");
    Ok(())
}

#[test]
fn what_is_not_comparable_is_marked() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [a, b] = planted(9, 1);
    let first = results(&dir.path().join("a"), "retrieval", &a, 1, "clip-b");
    let tower = results(&dir.path().join("b"), "retrieval", &b, 1, "clip-l");
    let data = results(&dir.path().join("c"), "retrieval", &b[..30], 1, "clip-b");
    let found = rows(&[&first, &tower, &data])?;
    assert_eq!(found[1].notes, [r#"other vision: "clip-l", and "clip-b" of the first"#]);
    assert!(found[1].first_less_this.is_some(), "it is marked, and computed");
    assert_eq!(found[2].notes, ["other data: 30 queries, and 40 of the first"]);
    assert!(found[2].first_less_this.is_none());
    for format in [Format::Table, Format::Csv, Format::Json, Format::Markdown] {
        let text = render(&found, format)?;
        assert!(text.contains("other data: 30 queries") && text.contains("clip-l"), "{text}");
    }
    let json: Value = serde_json::from_str(&render(&found, Format::Json)?)?;
    assert_eq!(json[0]["recall@1"], 0.725);
    assert!(json[0]["ci95"]["recall@1"][0].is_f64() && json[1]["first_less_this"]["mrr"]["value"].is_f64());
    let csv = render(&found, Format::Csv)?;
    let widths: Vec<usize> = csv.lines().map(|line| line.matches(',').count()).collect();
    assert_eq!((csv.lines().count(), widths[0]), (1 + 3 * 6, 12), "{csv}");
    Ok(())
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let a = results(&dir.path().join("a"), "retrieval", &[1, 2, 3], 1, "clip");
    let other = results(&dir.path().join("b"), "flickr", &[1, 2, 3], 1, "clip");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("made");
    for (names, part) in [
        ([a.as_str(), "baseline"], "no SET.baseline.queries.tsv"),
        (["baseline", &a], "the first model is `baseline`"),
        ([&a, "/nowhere"], "cannot read /nowhere"),
        ([&a, empty.to_str().expect("UTF-8")], "no SET.queries.tsv"),
        ([&a, &other], "no other model was measured on retrieval"),
    ] {
        let error = rows(&names).expect_err(part);
        assert!(error.to_string().contains(part) && error.advice().is_some(), "{error} lacks {part}");
    }
}

#[test]
fn the_literature_stands_beside_a_run_and_is_marked() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let ranks = |n: usize| (0..n).map(|i| if i % 2 == 0 { 1 } else { 30 }).collect::<Vec<_>>();
    let of = |name: &str, n: usize| results(&dir.path().join(name), "retrieval", &ranks(n), 1, "clip");
    let found = rows(&[&of("a", 1000), "published"])?;
    assert!(found.len() > 10 && found[1].model.starts_with("Themo (Python), CLIP ViT-L/14"), "{}", found[1].model);
    assert!(found[1].notes.len() == 1 && found[1].notes[0].contains("not paired"), "{:?}", found[1].notes);
    assert_eq!(found[1].ci95.get("recall@1").map(|[low, _]| (low * 1e3).round()), Some(450.0));
    let demo = rows(&[&of("b", 240), "published"])?;
    assert_eq!(demo[1].notes[1], "other data: 1000 queries, and 240 of the first");
    assert!(render(&demo, Format::Table)?.contains("other data"));
    Ok(())
}
