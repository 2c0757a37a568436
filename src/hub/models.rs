//! From the name of a model to the folder that holds it.

use std::path::{Path, PathBuf};

use super::cache::Repo;
use super::files::{Part, complete, needed, optional, shards};
use super::{Hub, Id, Kind, Progress};
use crate::download::Failure;
use crate::error::{Error, Result};

impl Hub {
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
        let Some(id) = Id::parse(Kind::Model, name) else {
            return Err(Error::new(format!("there is no model folder `{name}`")).hint(format!(
                "{option} takes a folder with config.json, weights and tokenizer, or the name of a model on the hub \
                 (owner/name or owner/name@revision); the bundled world: themo train --config configs/demo.toml"
            )));
        };
        let repo = Repo::new(&self.cache, &id.at(id.revision));
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
        let listing = self.ask(id, commit.unwrap_or(id.revision))?;
        let commit = &listing.commit;
        let has = |file: &str| listing.has(file);
        let files = needed(parts, &has).map_err(|missing| {
            let what = format!("the model {} on {} has no {}", id.id, self.endpoint, missing.join(", no "));
            Failure::Other(Error::new(what).hint("choose another model, or convert this one with transformers"))
        })?;
        let folder = repo.snapshot(commit);
        for file in files {
            self.fetch_file(repo, id, commit, file, progress)?;
            if file.ends_with(".index.json") {
                for shard in shards(&folder.join(file)).map_err(Failure::Other)? {
                    self.fetch_file(repo, id, commit, &shard, progress)?;
                }
            }
        }
        for file in optional(parts).filter(|file| !has(file)) {
            repo.set_absent(commit, file).map_err(Failure::Other)?;
        }
        repo.set_commit(id.revision, commit).map_err(Failure::Other)?;
        tracing::info!("{} is in {}", id.id, folder.display());
        Ok(folder)
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
}
