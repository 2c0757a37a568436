//! A web server on the loopback interface, and a hub on it: what the tests fetch from.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the tests see it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<u64>,
    pub token: Option<String>,
    /// How many requests of this method and path came before.
    pub before: usize,
}

/// An answer. A body of which only `send` bytes are sent ends with the connection, or with silence.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub send: Option<usize>,
    pub then_silence: bool,
    pub without_length: bool,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A body, or the part of it that was asked for.
    pub fn body(mut self, body: &[u8], range: Option<u64>) -> Self {
        self.body = body.to_vec();
        if let Some(start) = range.filter(|_| self.status == 200) {
            if start as usize >= body.len() {
                return Self::new(416);
            }
            self.status = 206;
            self.body = body[start as usize..].to_vec();
            self = self.with("Content-Range", &format!("bytes {start}-{}/{}", body.len() - 1, body.len()));
        }
        self
    }
}

pub struct Server {
    pub url: String,
    pub log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (log, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let requests = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answer) = (requests.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &requests, &*answer));
            }
        });
        Self { url, log }
    }

    /// The requests so far, as `GET /path`.
    pub fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        // Not HTTP: the beginning of a TLS connection.
        let _ = stream.write_all(b"HTTP/1.1 400 x\r\n\r\n");
        return;
    };
    let headers: BTreeMap<String, String> =
        lines.filter_map(|l| l.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned()))).collect();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let range = headers.get("range").map(|r| r["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    let request = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|r| (&r.method, &r.path) == (&method, &path)).count();
        let token = headers.get("authorization").cloned();
        log.push(Request { method, path, range, token, before });
        log.last().unwrap().clone()
    };
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    if !reply.without_length && !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    reply.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let body = if request.method == "HEAD" { &[][..] } else { &reply.body[..reply.send.unwrap_or(reply.body.len())] };
    // The other side may have gone away.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(body));
    if reply.then_silence {
        let _ = stream.read(&mut [0]);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub type Files = BTreeMap<String, Vec<u8>>;

/// The files below a folder, by their paths in it.
pub fn tree_of(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => {
                files.extend(tree_of(&entry.path()).into_iter().map(|(own, bytes)| (format!("{name}/{own}"), bytes)))
            }
            false => drop(files.insert(name, std::fs::read(entry.path()).unwrap())),
        }
    }
    files
}

/// The files of a folder.
pub fn files_of(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What git calls a file of this content.
pub fn git_sha1(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &blob);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hub, and the other server that has its large files.
pub struct FakeHub {
    pub hub: Server,
    pub cdn: Server,
}

impl FakeHub {
    /// A hub with these repositories (see [`answer`]), where `fault` may answer in the hub's or the other server's place.
    pub fn start(
        repos: Vec<(&'static str, Files)>, fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let fault = Arc::new(fault);
        let blobs: BTreeMap<String, Vec<u8>> = repos
            .iter()
            .flat_map(|(_, files)| files.values())
            .map(|b| (format!("/{}?sig=1", sha256(b)), b.clone()))
            .collect();
        let fault_too = fault.clone();
        let cdn = Server::start(move |request| {
            let found = || blobs.get(&request.path).map(|bytes| Reply::new(200).body(bytes, request.range));
            fault_too(request).or_else(found).unwrap_or(Reply::new(404))
        });
        let cdn_url = cdn.url.clone();
        let hub = Server::start(move |request| {
            fault(request).or_else(|| answer(&repos, request, &cdn_url)).unwrap_or(Reply::new(404))
        });
        Self { hub, cdn }
    }

    /// GETs of the large files.
    pub fn large(&self) -> Vec<Request> {
        self.cdn.log.lock().unwrap().clone()
    }
}

/// The branch of a data set that the hub makes itself, and its commit.
pub const CONVERTED: &str = "refs/convert/parquet";
pub const CONVERTED_COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// Small files come from the hub itself after a redirect in the same server, large ones from the other server. A
/// repository is `owner/name`, or `datasets/owner/name`, perhaps with `@branch`.
fn answer(repos: &[(&'static str, Files)], request: &Request, cdn: &str) -> Option<Reply> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if let Some(rest) = path.strip_prefix("/api/models/renamed/") {
        return Some(Reply::new(307).with("Location", &format!("/api/models/demo/{rest}")));
    }
    if let Some(rest) = path.strip_prefix("/renamed/") {
        return Some(Reply::new(307).with("Location", &format!("/demo/{rest}")));
    }
    let mut wrong = None;
    for (key, files) in repos {
        let (id, branch) = key.split_once('@').unwrap_or((key, "main"));
        let commit = if branch == "main" { COMMIT } else { CONVERTED_COMMIT };
        let api = if id.starts_with("datasets/") { id.to_owned() } else { format!("models/{id}") };
        if let Some(revision) = path.strip_prefix(&format!("/api/{api}/revision/")) {
            let revision = revision.replace("%2F", "/");
            if revision == branch || revision == commit || (branch == "main" && revision == "v1/old") {
                let listing = listing(id, commit, files, query == "blobs=true");
                return Some(Reply::new(200).body(listing.to_string().as_bytes(), None));
            }
            wrong = Some(Reply::new(404).with("X-Error-Code", "RevisionNotFound"));
        }
        let name = path.strip_prefix(&format!("/{id}/resolve/{commit}/"));
        let cached = path.strip_prefix(&format!("/api/resolve-cache/{api}/{commit}/"));
        let Some(bytes) = name.or(cached).and_then(|name| files.get(&name.replace("%20", " "))) else { continue };
        let reply = |status| Reply::new(status).with("X-Repo-Commit", commit);
        return Some(match name {
            Some(name) if is_large(name) => reply(302)
                .with("X-Linked-ETag", &format!("\"{}\"", sha256(bytes)))
                .with("X-Linked-Size", &bytes.len().to_string())
                .with("Location", &format!("{cdn}/{}?sig=1", sha256(bytes)))
                .body(b"Found. Redirecting", None),
            Some(name) => reply(307).with("Location", &format!("/api/resolve-cache/{api}/{commit}/{name}")),
            None => reply(200).with("ETag", &format!("W/\"{}\"", git_sha1(bytes))).body(bytes, request.range),
        });
    }
    wrong
}

/// Whether the hub keeps a file in its large storage.
fn is_large(name: &str) -> bool {
    [".safetensors", ".bin", ".parquet"].iter().any(|end| name.ends_with(end))
}

/// The hub's answer about a repository, with sizes and hashes where they are asked for.
fn listing(id: &str, commit: &str, files: &Files, blobs: bool) -> serde_json::Value {
    let sibling = |(name, bytes): (&String, &Vec<u8>)| {
        let mut sibling = serde_json::json!({"rfilename": name});
        if blobs {
            sibling["size"] = bytes.len().into();
            sibling["blobId"] = git_sha1(bytes).into();
            if is_large(name) {
                sibling["lfs"] = serde_json::json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 130});
            }
        }
        sibling
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    let id = id.trim_start_matches("datasets/");
    serde_json::json!({"id": id, "sha": commit, "cardData": {"license": ["cc0-1.0", "mit"]}, "siblings": siblings})
}
