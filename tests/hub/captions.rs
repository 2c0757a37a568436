//! XTD10's captions.

use crate::*;

#[test]
fn captions_are_fetched_where_they_are_missing() {
    let files = files_of(&demo("xtd10"));
    let pinned = |name: &'static str| -> xtd10::Pinned {
        (name, files[name].len() as u64, Box::leak(sha256(&files[name]).into_boxed_str()))
    };
    let pinned = ["test_image_names.txt", "test_1kcaptions_es.txt", "test_1kcaptions_en.txt"].map(pinned).to_vec();
    let served = files.clone();
    let server = Server::start(move |r| match served.get(r.path.trim_start_matches('/')) {
        Some(bytes) if r.before == 0 => Reply { send: Some(500), ..Reply::new(200).body(bytes, r.range) },
        Some(bytes) => Reply::new(200).body(bytes, r.range),
        None => Reply::new(404),
    });
    let dir = TempDir::new().unwrap();
    let source = xtd10::Source { files: pinned, base: server.url.clone(), offline: false };
    xtd10::fetch_missing(dir.path(), &["es"], &source).unwrap();
    let folder = dir.path().join("xtd10");
    let here = files_of(&folder);
    assert_eq!(here.keys().collect::<Vec<_>>(), ["test_1kcaptions_es.txt", "test_image_names.txt"]);
    assert!(here.iter().all(|(name, bytes)| files[name] == *bytes));
    let requests = server.lines().len();
    let offline = xtd10::Source { offline: true, ..source.clone() };
    xtd10::fetch_missing(dir.path(), &["es"], &offline).unwrap();
    let error = xtd10::fetch_missing(dir.path(), &["es", "en"], &offline).unwrap_err();
    assert!(error.to_string().ends_with("HF_HUB_OFFLINE is set: test_1kcaptions_en.txt"), "{error}");
    assert!(error.advice().unwrap().contains(folder.to_str().unwrap()), "{error:?}");
    assert_eq!(server.lines().len(), requests);

    // Wrong content leaves nothing behind.
    let mut wrong = source.clone();
    wrong.files[2].2 = wrong.files[1].2;
    let error = xtd10::fetch_missing(dir.path(), &["en"], &wrong).unwrap_err();
    assert!(error.to_string().contains("SHA-256") && error.advice().unwrap().contains("put them into"), "{error:?}");
    assert_eq!(files_of(&folder).len(), 2);
    // Neither beside the files of another set nor into a missing folder is anything fetched.
    fs::write(folder.join("test_1kcaptions_es.txt"), "una sola línea").unwrap();
    xtd10::fetch_missing(dir.path(), &["es", "en"], &source).unwrap();
    xtd10::fetch_missing(&dir.path().join("nowhere"), &["es"], &source).unwrap();
    assert_eq!((files_of(&folder).len(), dir.path().join("nowhere").exists()), (2, false));
}
