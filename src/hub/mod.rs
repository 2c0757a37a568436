//! From the name of a model to the folder that holds it: a folder as it stands, or a model of the Hugging Face hub.
//!
//! What the cache has is used as it is, without a question to the network; what is missing is fetched, the needed files
//! only, into the cache that Python's huggingface_hub uses too. The environment decides as it does there: `HF_HOME`,
//! `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` (or the file `HF_TOKEN_PATH`), `HF_HUB_DOWNLOAD_TIMEOUT`.
//!
//! The `hf-hub` crate (0.5) knows ids, addresses, the listing and where things lie in the cache. The transfer is our own
//! client's: the crate's has no offline mode, checks no content and does not say what is wrong, and its successor 1.0
//! brings reqwest, tokio and a transfer protocol of its own.

pub mod cache;
pub mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::RepoType;
use hf_hub::api::RepoInfo;

use self::cache::{Repo, is_commit};
pub use self::files::Part;
use self::files::{complete, is_plain_name, needed, optional, shards};
use crate::download::{Client, Expected, Failure, Patience, header, human_bytes, is_offline};
use crate::error::{Error, Result};

/// Called during a download with the file, the bytes done and the bytes in all.
pub type Progress<'a> = &'a dyn Fn(&str, u64, u64);

/// A hub, and the cache of what came from it.
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    offline: bool,
    client: Client,
}

/// `owner/name[@revision]` (a few old models have no owner).
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    id: &'a str,
    revision: &'a str,
}

impl Hub {
    /// The hub that the environment describes.
    pub fn from_env() -> Self {
        Self::new(&|name| std::env::var(name).ok(), Patience::default())
    }

    /// The hub that the variables `var` describe.
    pub fn new(var: &dyn Fn(&str) -> Option<String>, patience: Patience) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let home = path("HF_HOME").unwrap_or_else(|| {
            let user = || path("HOME").or_else(|| path("USERPROFILE")).unwrap_or_default().join(".cache");
            path("XDG_CACHE_HOME").unwrap_or_else(user).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home.join("hub"));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
        let silence = set("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|secs| secs.parse().ok()).filter(|secs| *secs > 0);
        let patience = Patience { silence: silence.map_or(patience.silence, Duration::from_secs), ..patience };
        Self { client: Client::new(patience, &endpoint, token), endpoint, cache, offline: is_offline(var) }
    }

    /// The folder with `parts` of the model `name`, which the command line's `option` gave: a folder that exists, else
    /// a model of the hub.
    pub fn model_folder(&self, option: &str, name: &str, parts: &[Part], progress: Progress) -> Result<PathBuf> {
        let path = Path::new(name);
        if path.join("checkpoints").is_dir() {
            return Err(Error::new(format!("`{name}` is a run, not a model folder"))
                .hint(format!("give one of its checkpoints, such as {}", path.join("checkpoints/last").display())));
        }
        if path.is_dir() {
            return Ok(path.to_owned());
        }
        let Some(id) = Id::parse(name) else {
            return Err(Error::new(format!("there is no model folder `{name}`")).hint(format!(
                "{option} takes a folder with config.json, weights and tokenizer, or the name of a model on the hub \
                 (owner/name or owner/name@revision); the bundled world: themo train --config configs/demo.toml"
            )));
        };
        let repo = Repo::new(&self.cache, &id.repo(id.revision));
        let local = repo.commit(id.revision).filter(|commit| complete(&repo.snapshot(commit), parts));
        if let Some(commit) = &local {
            let here = |file: &str| repo.snapshot(commit).join(file).exists();
            if self.offline || optional(parts).all(|file| here(file) || repo.is_absent(commit, file)) {
                tracing::debug!("{name} is in the cache, commit {commit}");
                return Ok(repo.snapshot(commit));
            }
        }
        if self.offline {
            return Err(self.not_here(option, &id, &repo, parts, "and HF_HUB_OFFLINE is set"));
        }
        match self.fetch(&repo, &id, local.as_deref(), parts, progress) {
            Err(failure) if local.is_some() && failure.is_outage() => {
                let why = Error::from(failure);
                tracing::warn!("{name}: using what the cache has, for the hub cannot be asked ({why})");
                Ok(repo.snapshot(&local.unwrap_or_default()))
            }
            Err(failure @ Failure::Network { .. }) => {
                let why = format!("and it cannot be fetched ({})", Error::from(failure));
                Err(self.not_here(option, &id, &repo, parts, &why))
            }
            Err(failure) => Err(self.refused(failure, option, &id)),
            Ok(folder) => Ok(folder),
        }
    }

    /// Brings all that `parts` need into the snapshot of the revision, or of `commit` where that is known already.
    fn fetch(
        &self, repo: &Repo, id: &Id, commit: Option<&str>, parts: &[Part], progress: Progress,
    ) -> Result<PathBuf, Failure> {
        let url = format!("{}/api/{}", self.endpoint, id.repo(commit.unwrap_or(id.revision)).api_url());
        let listing: RepoInfo = serde_json::from_str(&self.client.text(&url)?)
            .map_err(|e| not_a_hub(&url, &e.to_string()))
            .map_err(Failure::Other)?;
        let commit = listing.sha;
        if !is_commit(&commit) {
            return Err(Failure::Other(not_a_hub(&url, "no commit")));
        }
        let has = |file: &str| listing.siblings.iter().any(|sibling| sibling.rfilename == file);
        let files = needed(parts, &has).map_err(|missing| {
            let what = format!("the model {} on {} has no {}", id.id, self.endpoint, missing.join(", no "));
            Failure::Other(Error::new(what).hint("choose another model, or convert this one with transformers"))
        })?;
        let folder = repo.snapshot(&commit);
        for file in files {
            self.fetch_file(repo, id, &commit, file, progress)?;
            if file.ends_with(".index.json") {
                for shard in shards(&folder.join(file)).map_err(Failure::Other)? {
                    self.fetch_file(repo, id, &commit, &shard, progress)?;
                }
            }
        }
        for file in optional(parts).filter(|file| !has(file)) {
            repo.set_absent(&commit, file).map_err(Failure::Other)?;
        }
        repo.set_commit(id.revision, &commit).map_err(Failure::Other)?;
        tracing::info!("{} is in {}", id.id, folder.display());
        Ok(folder)
    }

    fn fetch_file(&self, repo: &Repo, id: &Id, commit: &str, file: &str, progress: Progress) -> Result<(), Failure> {
        if repo.snapshot(commit).join(file).exists() {
            return Ok(());
        }
        let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, id.id, encode(file));
        let (headers, last) = self.client.head(&url)?;
        let first =
            |names: [&str; 2]| names.map(|name| header(&headers, name)).into_iter().find(|text| !text.is_empty());
        let etag = first(["x-linked-etag", "etag"]).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        if !is_plain_name(etag) {
            return Err(Failure::Other(not_a_hub(&url, "no ETag")));
        }
        // A redirect's own length is not the file's.
        let length = if last { header(&headers, "content-length") } else { "" };
        let bytes = Some(header(&headers, "x-linked-size")).filter(|text| !text.is_empty()).unwrap_or(length).parse();
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        let expected = Expected { bytes: bytes.ok(), sha256: is_sha256.then(|| etag.to_ascii_lowercase()) };
        let mut failure = None;
        let added = repo.add(commit, file, etag, |part| {
            let size = expected.bytes.map_or(String::new(), |bytes| format!(" ({})", human_bytes(bytes)));
            tracing::info!("fetching {file}{size} of {}", id.id);
            let report = |done, total| progress(file, done, total);
            self.client.fetch(&url, part, &expected, &report).map_err(|e| {
                failure = Some(e);
                Error::new("not fetched")
            })
        });
        added.map_err(|e| failure.unwrap_or(Failure::Other(e)))
    }

    /// The error of a model that is not in the cache and cannot be fetched: which files to bring, and where to.
    fn not_here(&self, option: &str, id: &Id, repo: &Repo, parts: &[Part], why: &str) -> Error {
        let at = if id.revision == "main" { String::new() } else { format!(" at {}", id.revision) };
        // Whether there is a tokenizer is not known: it is named like the rest.
        let sure = |part: &Part| if *part == Part::TokenizerIfAny { Part::Tokenizer } else { *part };
        let parts: &[Part] = &parts.iter().map(sure).collect::<Vec<_>>();
        let folder = repo.commit(id.revision).map(|commit| repo.snapshot(&commit));
        let here = |file: &str| folder.as_ref().is_some_and(|folder| folder.join(file).exists());
        let missing = needed(parts, &here).err().unwrap_or_else(|| vec!["some of the shards of its weights"]);
        let all = needed(parts, &|_| false).err().unwrap_or_default();
        let (name, cache, missing) = (id.id, self.cache.display(), missing.join(", "));
        let page = format!("{}/{name}/tree/{}", self.endpoint, id.revision);
        let revision = if at.is_empty() { String::new() } else { format!(" --revision {}", id.revision) };
        let again = match self.offline {
            true => "",
            false => "try again (HTTPS_PROXY and SSL_CERT_FILE name a proxy and its certificates); or, ",
        };
        Error::new(format!("{name}{at} is not in the cache {cache}, {why}: missing {missing}")).hint(format!(
            "{again}where there is a network, fetch from {page}\n  {}\n\
             then either put these files into a folder and give that: {option} DIR\n\
             or fill a cache there (`hf download {name}{revision}`) and copy its folder here:\n  {}",
            all.join("\n  "),
            repo.root().display(),
        ))
    }

    /// The error of a request that the hub refused.
    fn refused(&self, failure: Failure, option: &str, id: &Id) -> Error {
        let page = format!("{}/{}", self.endpoint, id.id);
        let Failure::Status { status, code, url } = &failure else {
            return Error::from(failure).context(format!("cannot fetch the model {}", id.id));
        };
        let no_model = || {
            Error::new(format!(
                "there is no folder `{}`, and {} has no model of that name (or a private one)",
                id.id, self.endpoint
            ))
            .hint(format!("check what {option} says; a private model needs HF_TOKEN, or `hf auth login` once"))
        };
        match (*status, code.as_str()) {
            (_, "GatedRepo") | (403, _) => Error::new(format!("{page} refuses access to its files"))
                .hint(format!("accept the model's conditions on {page}, then set HF_TOKEN to a token of that account")),
            (_, "RepoNotFound") => no_model(),
            (_, "RevisionNotFound") => Error::new(format!("{page} has no revision `{}`", id.revision))
                .hint("give a branch, a tag or a commit after the @, or leave it away"),
            (404, _) if url.contains("/api/models/") && id.revision == "main" => no_model(),
            (404, _) if url.contains("/api/models/") => {
                Error::new(format!("{page} does not exist, or has no revision `{}`", id.revision))
                    .hint(format!("check what {option} says"))
            }
            (404, _) => Error::new(format!("{url} does not exist, though the model's listing names it"))
                .hint("try again later, or another HF_ENDPOINT"),
            (401, _) => Error::new(format!("{page} wants a token (401)"))
                .hint("set HF_TOKEN to a token that may read this model, or run `hf auth login` once"),
            _ => Error::from(failure).context(format!("cannot fetch the model {}", id.id)),
        }
    }
}

impl<'a> Id<'a> {
    /// The model at `revision`, as the hub's crate has it.
    fn repo(&self, revision: &str) -> hf_hub::Repo {
        hf_hub::Repo::with_revision(self.id.to_owned(), RepoType::Model, revision.to_owned())
    }

    /// The parts of a name that could be one on the hub.
    fn parse(name: &'a str) -> Option<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let (owner, model) = id.split_once('/').unwrap_or(("_", id));
        let plain = |part: &str| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            edge(part.chars().next())
                && edge(part.chars().last())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                && !part.contains("--")
                && !part.contains("..")
                && part.len() <= 96
        };
        let branch = |part: &str| {
            is_plain_name(part) && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        (plain(owner) && plain(model) && revision.split('/').all(branch)).then_some(Self { id, revision })
    }
}

fn not_a_hub(url: &str, why: &str) -> Error {
    Error::new(format!("{url} does not answer like a hub: {why}"))
        .hint("check HF_ENDPOINT, and whether a proxy answers in its place")
}

/// `text` as one segment of an address.
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let id = |name| Id::parse(name).map(|id| (id.id, id.revision));
        assert_eq!(id("openai/clip-vit-large-patch14"), Some(("openai/clip-vit-large-patch14", "main")));
        assert_eq!(id("xlm-roberta-large"), Some(("xlm-roberta-large", "main")));
        assert_eq!(id("a/b.c@refs/pr/1"), Some(("a/b.c", "refs/pr/1")));
        for path in ["/a/b", "a/b/c", "./a", "../a", "a/b@", "a/b@../x", "a/.b", "a/b--c", "a b/c", "a/b@x y", ""] {
            assert_eq!(id(path), None, "{path}");
        }
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
    }

    #[test]
    fn the_environment_is_read_as_python_reads_it() {
        let hub = |vars: &[(&str, &str)]| {
            let vars: Vec<_> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let var = move |name: &str| vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            Hub::new(&var, Patience::default())
        };
        let plain = hub(&[("HOME", "/h"), ("HF_ENDPOINT", " ")]);
        assert_eq!((plain.cache.as_path(), plain.offline), (Path::new("/h/.cache/huggingface/hub"), false));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(hub(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(hub(&[("HF_HOME", "/y"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/y/hub"));
        assert_eq!(hub(&[("HF_HOME", "/y"), ("HF_HUB_CACHE", "/z")]).cache, Path::new("/z"));
        assert_eq!(hub(&[("HF_ENDPOINT", "http://m/")]).endpoint, "http://m");
        assert!(hub(&[("HF_HUB_OFFLINE", "1")]).offline && hub(&[("TRANSFORMERS_OFFLINE", "True")]).offline);
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
