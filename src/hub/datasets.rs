//! The files of a data set's repository.

use std::path::PathBuf;

use super::cache::Repo;
use super::listing::{Listing, remember, remembered};
use super::{Hub, Id, Progress};
use crate::download::Failure;
use crate::error::{Error, Result};

impl Hub {
    /// What the cache knows of the data set at its revision: the listing that was kept when it was asked for, or the files
    /// that another program put there. None: nothing.
    pub fn remembered(&self, id: &Id) -> Option<Listing> {
        let repo = self.data_set(id);
        remembered(&repo, &repo.commit(id.revision)?)
    }

    /// Asks the hub for the listing of the data set and keeps it. A commit that the cache knows already stays.
    pub fn list(&self, id: &Id) -> Result<Listing, Failure> {
        let repo = self.data_set(id);
        let known = repo.commit(id.revision);
        let listing = self.ask(id, known.as_deref().unwrap_or(id.revision))?;
        remember(&repo, &listing)
            .and_then(|()| repo.set_commit(id.revision, &listing.commit))
            .map_err(Failure::Other)?;
        Ok(listing)
    }

    /// Brings a file of the data set into the cache.
    pub fn fetch_data(&self, id: &Id, commit: &str, file: &str, progress: Progress) -> Result<(), Failure> {
        self.fetch_file(&self.data_set(id), id, commit, file, progress)
    }

    /// Where a file of the data set lies in the cache, or will.
    pub fn data_path(&self, id: &Id, commit: &str, file: &str) -> PathBuf {
        self.data_set(id).snapshot(commit).join(file)
    }

    /// The folder of all that the cache has of the data set.
    pub fn data_root(&self, id: &Id) -> PathBuf {
        self.data_set(id).root().to_owned()
    }

    /// What a failed request for a data set means to the user of `option`.
    pub fn explain(&self, failure: Failure, option: &str, id: &Id) -> Error {
        self.refused(failure, option, id)
    }

    fn data_set(&self, id: &Id) -> Repo {
        Repo::new(&self.cache, &id.at(id.revision))
    }
}
