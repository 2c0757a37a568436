//! Models and data sets by name: a folder as it stands, or a repository of the Hugging Face hub.
//!
//! What the cache has is used as it is, without a question to the network; what is missing is fetched, the needed files
//! only, into the cache that Python's huggingface_hub uses too. The environment decides as it does there: `HF_HOME`,
//! `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` (or the file `HF_TOKEN_PATH`), `HF_HUB_DOWNLOAD_TIMEOUT`.
//!
//! | file | what is there |
//! |---|---|
//! | [`id`] | the name of a repository |
//! | [`cache`] | where things lie on disk |
//! | `listing` | what a repository has at a commit, asked or remembered |
//! | `transfer` | one file into the cache; what a refusal means |
//! | [`files`], `models` | which files of a model are needed, and its folder |
//! | [`datasets`] | the files of a data set |
//!
//! The `hf-hub` crate (0.5) knows addresses and where things lie in the cache. The transfer is our own client's: the
//! crate's has no offline mode, checks no content and does not say what is wrong, and its successor 1.0 brings reqwest,
//! tokio and a transfer protocol of its own.

pub mod cache;
pub mod datasets;
mod expand;
pub mod files;
pub mod id;
mod listing;
mod models;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use self::expand::{expand, home};
pub use self::files::Part;
pub use self::id::{Id, Kind};
pub use self::listing::{Entry, Listing};
use crate::download::{Client, Patience, is_offline};

/// Called during a download with the file, the bytes done and the bytes in all.
pub type Progress<'a> = &'a dyn Fn(&str, u64, u64);

/// A hub, and the cache of what came from it.
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    offline: bool,
    client: Client,
}

impl Hub {
    /// The hub that the environment describes.
    pub fn from_env() -> Self {
        Self::new(&|name| std::env::var(name).ok(), Patience::default())
    }

    /// The hub that the variables `var` describe.
    pub fn new(var: &dyn Fn(&str) -> Option<String>, patience: Patience) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        // (As huggingface_hub's `constants.py` does it, a default is expanded once more like a given path.)
        let path = |given: Option<String>, default: &dyn Fn() -> PathBuf| {
            let path = given.map_or_else(default, PathBuf::from);
            path.to_str().map_or_else(|| path.clone(), |text| expand(text, var).into())
        };
        let home = path(set("HF_HOME"), &|| {
            let user = || PathBuf::from(home(var).unwrap_or_default()).join(".cache");
            set("XDG_CACHE_HOME").map_or_else(user, PathBuf::from).join("huggingface")
        });
        let named = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
        let cache = path(named, &|| home.join("hub"));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let token_file = path(set("HF_TOKEN_PATH"), &|| home.join("token"));
        let token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
        let silence = set("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|secs| secs.parse().ok()).filter(|secs| *secs > 0);
        let patience = Patience { silence: silence.map_or(patience.silence, Duration::from_secs), ..patience };
        Self { client: Client::new(patience, &endpoint, token), endpoint, cache, offline: is_offline(var) }
    }

    /// What makes its requests, for files elsewhere too.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the network may not be used.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The page of a repository.
    pub fn page(&self, id: &Id) -> String {
        format!("{}/{}", self.endpoint, id.at(id.revision).url())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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
        for (vars, cache) in [
            (&[("HF_HOME", "~/x")][..], "/h/x/hub"),
            (&[("HF_HOME", "$S/x")], "/s/x/hub"),
            (&[("XDG_CACHE_HOME", "${S}")], "/s/huggingface/hub"),
            (&[("HF_HUB_CACHE", "~/$S")], "/h//s"),
            (&[("HUGGINGFACE_HUB_CACHE", "~")], "/h"),
            (&[("HF_HOME", "$T")], "/s/hub"), // T is $S: once for HF_HOME, once more for the default of HF_HUB_CACHE
            (&[("HF_HUB_CACHE", "$T")], "$S"),
        ] {
            let vars = [vars, &[("HOME", "/h"), ("S", "/s"), ("T", "$S")]].concat();
            assert_eq!(hub(&vars).cache, Path::new(cache), "{vars:?}");
        }
        assert_eq!(hub(&[("HF_ENDPOINT", "http://m/")]).endpoint, "http://m");
        assert!(hub(&[("HF_HUB_OFFLINE", "1")]).offline && hub(&[("TRANSFORMERS_OFFLINE", "True")]).offline);
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).offline);
    }
}
