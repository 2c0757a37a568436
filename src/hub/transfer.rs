//! One file of a repository into the cache, and what a refusal means.

use super::cache::Repo;
use super::files::is_plain_name;
use super::id::encode;
use super::{Hub, Id, Kind, Progress};
use crate::download::{Digest, Expected, Failure, header, human_bytes};
use crate::error::{Error, Result};

impl Hub {
    /// Brings `file` into the snapshot of `commit`, if it is missing: resumed, and checked by length and digest.
    pub(super) fn fetch_file(
        &self, repo: &Repo, id: &Id, commit: &str, file: &str, progress: Progress,
    ) -> Result<(), Failure> {
        if repo.snapshot(commit).join(file).exists() {
            return Ok(());
        }
        let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, id.at(commit).url(), encode(file));
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
        let expected = Expected { bytes: bytes.ok(), digest: Digest::of_etag(etag) };
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

    /// The error of a request that the hub refused.
    pub(super) fn refused(&self, failure: Failure, option: &str, id: &Id) -> Error {
        let (page, kind) = (self.page(id), id.kind.word());
        let Failure::Status { status, code, url } = &failure else {
            return Error::from(failure).context(format!("cannot fetch the {kind} {}", id.id));
        };
        let nothing = || {
            let folder =
                if id.kind == Kind::Model { format!("there is no folder `{}`, and ", id.id) } else { String::new() };
            let named = if id.kind == Kind::Model { "that name".to_owned() } else { format!("the name {}", id.id) };
            Error::new(format!("{folder}{} has no {kind} of {named} (or a private one)", self.endpoint))
                .hint(format!("check what {option} says; a private {kind} needs HF_TOKEN, or `hf auth login` once"))
        };
        let asked = url.contains("/api/");
        match (*status, code.as_str()) {
            (_, "GatedRepo") | (403, _) => Error::new(format!("{page} refuses access to its files")).hint(format!(
                "accept the {kind}'s conditions on {page}, then set HF_TOKEN to a token of that account"
            )),
            (_, "RepoNotFound") => nothing(),
            (_, "RevisionNotFound") => Error::new(format!("{page} has no revision `{}`", id.revision))
                .hint("give a branch, a tag or a commit after the @, or leave it away"),
            (404, _) if asked && id.revision == "main" => nothing(),
            (404, _) if asked => Error::new(format!("{page} does not exist, or has no revision `{}`", id.revision))
                .hint(format!("check what {option} says")),
            (404, _) => Error::new(format!("{url} does not exist, though the {kind}'s listing names it"))
                .hint("try again later, or another HF_ENDPOINT"),
            (401, _) => Error::new(format!("{page} wants a token (401)"))
                .hint(format!("set HF_TOKEN to a token that may read this {kind}, or run `hf auth login` once")),
            _ => Error::from(failure).context(format!("cannot fetch the {kind} {}", id.id)),
        }
    }
}

/// The error of an answer that no hub gives.
pub(super) fn not_a_hub(url: &str, why: &str) -> Error {
    Error::new(format!("{url} does not answer like a hub: {why}"))
        .hint("check HF_ENDPOINT, and whether a proxy answers in its place")
}
