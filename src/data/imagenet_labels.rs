//! The labels of Kaggle's ImageNet: Pascal VOC annotations, and the solution of the challenge.

use std::collections::HashMap;
use std::path::Path;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

use super::{first_few, text::read_lines};
use crate::error::{Error, Result, ResultExt};

/// The name of each `object` of a Pascal VOC annotation; none where there is no such file.
pub(super) fn annotation(path: &Path) -> Result<Vec<String>> {
    match std::fs::read(path) {
        Ok(bytes) => names(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn names(bytes: &[u8]) -> Result<Vec<String>> {
    // (What is not UTF-8 may stand elsewhere than in a wnid.)
    let xml = String::from_utf8_lossy(bytes);
    let failed = |e: quick_xml::Error| Error::new(e.to_string());
    let (mut reader, mut names, mut open, mut root) = (Reader::from_str(&xml), Vec::new(), Vec::new(), false);
    loop {
        // The name of an object, not that of its parts.
        let name = matches!(open[..], [.., ref object, ref name] if object == "object" && name == "name");
        let mut add = |text: &str| {
            if let Some(name) = names.last_mut().filter(|_| name) {
                String::push_str(name, text);
            }
        };
        match reader.read_event().map_err(failed)? {
            Event::Text(text) => add(&text.xml10_content()),
            Event::CData(text) => add(&text.xml10_content()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(failed)? {
                Some(character) => add(character.encode_utf8(&mut [0; 4])),
                None => add(resolve_xml_entity(&reference).ok_or_else(|| Error::new("an unknown entity"))?),
            },
            Event::Start(tag) => {
                root = true;
                open.push(tag.local_name().as_ref().to_owned());
                if let [.., object, name] = &open[..]
                    && (object.as_str(), name.as_str()) == ("object", "name")
                {
                    names.push(String::new());
                }
            }
            Event::Empty(_) => root = true,
            Event::End(_) => drop(open.pop()),
            Event::Eof if open.is_empty() && root => break,
            Event::Eof => return Err(Error::new("it ends before its last element does")),
            _ => {}
        }
    }
    names.iter_mut().for_each(|name| *name = name.trim().to_owned());
    Ok(names)
}

/// `ImageId,PredictionString` with `wnid xmin ymin xmax ymax` once or more; empty where the file is missing. Other lines
/// are counted and warned about.
pub(super) fn solution(path: &Path) -> Result<HashMap<String, Vec<String>>> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let labels = |line: &str| {
        let (image, boxes) = line.split_once(',')?;
        let boxes: Vec<&str> = boxes.split_whitespace().collect();
        let whole = !boxes.is_empty() && boxes.len().is_multiple_of(5);
        whole.then(|| (image.trim().to_owned(), boxes.iter().step_by(5).map(|wnid| (*wnid).to_owned()).collect()))
    };
    let lines = read_lines(path).hint(|| "fetch the file again, or remove it where there are annotations")?;
    let (mut solution, mut bad) = (HashMap::new(), Vec::new());
    for (k, line) in lines.iter().enumerate().skip(1) {
        match labels(line) {
            Some((image, wnids)) => drop(solution.insert(image, wnids)),
            None => bad.push(k + 1),
        }
    }
    if !bad.is_empty() {
        let (n, few, name) = (bad.len(), first_few(&bad), path.display());
        tracing::warn!("{name}: skipped {n} lines that are not `image,wnid x y x y ...`: {few}");
    }
    Ok(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_whatever_stands_around() -> Result<()> {
        for (xml, expected) in [
            ("<annotation><object><name>n1</name></object></annotation>", &["n1"][..]),
            (
                "<?xml version='1.0'?><!-- <object><name>n0</name></object> --><annotation verified=\"yes\">\
                 <folder>val</folder><name>no</name>\
                 <object id=\"1\"><part><name>n9</name><bndbox/></part><name> n1\n</name></object>\
                 <object\n  id='2'><name lang='x'><![CDATA[n]]>&#50;<!-- x --></name></object>\
                 <object><pose/><name>n&amp;3</name><part><name>n8</name></part></object></annotation>\n",
                &["n1", "n2", "n&3"],
            ),
            ("\u{feff}<v:annotation><v:object><v:name>n1</v:name></v:object></v:annotation>", &["n1"]),
            ("<annotation/>", &[]),
        ] {
            let read = names(xml.as_bytes());
            assert_eq!(read.map_err(|e| e.context(xml))?, expected);
        }
        Ok(())
    }

    #[test]
    fn damaged_annotations_are_errors() {
        let whole = "<annotation><object><name>n1</name></object></annotation>";
        for end in 0..whole.len() {
            assert!(names(&whole.as_bytes()[..end]).is_err(), "{}", &whole[..end]);
        }
        for bad in ["<annotation><object><name>n1</object></annotation>", "<a><object><name>&who;</name></object></a>"]
        {
            assert!(names(bad.as_bytes()).is_err(), "{bad}");
        }
        let utf16: Vec<u8> = whole.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(names(&utf16).is_err());
    }

    #[test]
    fn solutions_are_read_line_by_line() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("solution.csv");
        assert!(solution(&path)?.is_empty());
        std::fs::write(
            &path,
            "\u{feff}ImageId,PredictionString\r\na,n1 1 2 3 4 n2 1 2 3 4 \r\nb;n1 1 2 3 4\nc,\nd,n1 1\n",
        )?;
        assert_eq!(solution(&path)?, HashMap::from([("a".to_owned(), vec!["n1".to_owned(), "n2".to_owned()])]));
        Ok(())
    }
}
