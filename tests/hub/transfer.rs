//! Downloads that break, repeat or compete.

use crate::*;

#[test]
fn a_broken_download_goes_on_where_it_was() {
    // The first connection ends after 60,000 bytes, the second falls silent after 50,000 more.
    let fake = fake(|r| {
        let cut = match (r.path.ends_with("?sig=1"), r.before) {
            (true, 0) => (60_000, false),
            (true, 1) => (50_000, true),
            _ => return None,
        };
        let reply = Reply::new(200).body(&model()["model.safetensors"], r.range);
        Some(Reply { send: Some(cut.0), then_silence: cut.1, ..reply })
    });
    let home = TempDir::new().unwrap();
    let last = std::sync::Mutex::new((0, 0));
    let hub = client(&fake.hub.url, home.path(), false);
    let told = |file: &str, done, total| {
        if file == "model.safetensors" {
            *last.lock().unwrap() = (done, total);
        }
    };
    let folder = hub.model_folder("--student", "demo/model", &[Part::Weights], &told).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), model()["model.safetensors"]);
    let ranges: Vec<_> = fake.large().iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some(60_000), Some(110_000)]);
    assert_eq!(*last.lock().unwrap(), (200_000, 200_000));
}

#[test]
fn what_an_earlier_process_left_is_gone_on_with_or_thrown_away() {
    let weights = model()["model.safetensors"].clone();
    let wrong = vec![0; 70_000];
    for (left, ranges) in [
        (&weights[..70_000], &[Some(70_000)][..]),
        (&wrong[..], &[Some(70_000), None]),
        (&weights[..], &[]),
        (&[weights.clone(), wrong.clone()].concat()[..], &[None]),
    ] {
        let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
        let folder = home.path().join("hub/models--demo--model/blobs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}.incomplete", sha256(&weights))), left).unwrap();
        let got = get(&client(&fake.hub.url, home.path(), false), "demo/model", &[Part::Weights]).unwrap();
        assert_eq!(fs::read(got.join("model.safetensors")).unwrap(), weights);
        assert_eq!(fake.large().iter().map(|r| r.range).collect::<Vec<_>>(), ranges);
    }
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    // Every address answers 503 once, and the file's server knows no ranges.
    let fake = fake(|r| match r.before {
        0 => Some(Reply::new(503)),
        1 if r.path.ends_with("?sig=1") => {
            Some(Reply { send: Some(1000), ..Reply::new(200).body(&model()["model.safetensors"], None) })
        }
        _ if r.path.ends_with("?sig=1") => Some(Reply::new(200).body(&model()["model.safetensors"], None)),
        _ => None,
    });
    let home = TempDir::new().unwrap();
    let folder = get(&client(&fake.hub.url, home.path(), false), "demo/model", &ALL).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), model()["model.safetensors"]);
    assert_eq!(fake.large().last().unwrap().range, Some(1000));
}

#[test]
fn wrong_content_never_gets_a_name() {
    let weights = || model()["model.safetensors"].clone();
    let large = |r: &Request| r.path.ends_with("?sig=1");
    type Fault = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;
    let of =
        |reply: fn(&Request, Vec<u8>) -> Reply| -> Fault { Box::new(move |r| large(r).then(|| reply(r, weights()))) };
    let faults: [(Fault, &[&str]); 6] = [
        (
            of(|_, mut bytes| {
                bytes[7] ^= 1;
                Reply::new(200).body(&bytes, None)
            }),
            &["SHA-256", "thrown away"],
        ),
        (of(|_, bytes| Reply::new(200).body(&bytes[..150_000], None)), &["150000 bytes of a file of 200000"]),
        (of(|_, bytes| Reply { send: Some(10), ..Reply::new(200).body(&bytes, None) }), &["broke off"]),
        (of(|_, _| Reply::new(503)), &["503", "try again later"]),
        (
            of(|_, _| Reply { send: Some(0), then_silence: true, ..Reply::new(200).with("Content-Length", "200000") }),
            &["model.safetensors", "network"],
        ),
        (of(|r, _| Reply::new(302).with("Location", &r.path)), &["redirects without end"]),
    ];
    for (fault, parts) in faults {
        let (fake, home) = (fake(fault), TempDir::new().unwrap());
        let hub = client(&fake.hub.url, home.path(), false);
        assert_told(get(&hub, "demo/model", &[Part::Weights]), parts);
        assert_eq!(blobs(home.path()).len(), 1, "{parts:?}: only config.json is there");
        assert_told(get(&client("", home.path(), true), "demo/model", &[Part::Weights]), &["HF_HUB_OFFLINE"]);
    }
}

#[test]
fn many_at_once_fetch_a_file_once() {
    let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
    std::thread::scope(|scope| {
        let fetch = || get(&client(&fake.hub.url, home.path(), false), "demo/model", &ALL).unwrap();
        let all: Vec<_> = (0..6).map(|_| scope.spawn(fetch)).collect();
        all.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    assert_eq!(fake.large().len(), 1);
    assert_eq!(blobs(home.path()).len(), 4);
}

#[test]
fn small_files_are_checked_by_the_name_that_git_gives_them() {
    let small = |r: &Request| r.path.contains("/resolve-cache/") && r.path.ends_with("/config.json");
    let etag = format!("\"{}\"", server::git_sha1(b"{}"));
    let with_tag = move |reply: Reply| reply.with("ETag", &etag);
    type Fault = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;
    let of = |reply: fn(&Request) -> Reply| -> Fault {
        let with_tag = with_tag.clone();
        Box::new(move |r| small(r).then(|| with_tag(reply(r))))
    };
    let faults: [(Fault, &[&str]); 3] = [
        (of(|_| Reply::new(200).body(b"[]", None)), &["config.json", "git's SHA-1", "thrown away"]),
        // The end of an answer without a length and a broken connection look the same.
        (
            of(|_| Reply { without_length: true, ..Reply::new(200).body(b"{}", None) }),
            &["config.json", "does not say how long"],
        ),
        (
            of(|r| Reply { without_length: r.method == "GET", ..Reply::new(200).body(b"{", None) }),
            &["config.json", "git's SHA-1"],
        ),
    ];
    for (fault, parts) in faults {
        let (fake, home) = (fake(fault), TempDir::new().unwrap());
        assert_told(get(&client(&fake.hub.url, home.path(), false), "demo/model", &[]), parts);
        assert!(blobs(home.path()).is_empty(), "{parts:?}");
    }
    // What a killed process left of a small file is continued, and checked.
    for left in [&b"{"[..], b"[", b"{}"] {
        let (fake, home) = (fake(|_| None), TempDir::new().unwrap());
        let folder = home.path().join("hub/models--demo--model/blobs");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{}.incomplete", server::git_sha1(b"{}"))), left).unwrap();
        let got = get(&client(&fake.hub.url, home.path(), false), "demo/model", &[]).unwrap();
        assert_eq!(fs::read(got.join("config.json")).unwrap(), b"{}");
    }
}
