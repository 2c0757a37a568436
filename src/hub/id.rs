//! Names of repositories: `owner/name[@revision]`.

use hf_hub::RepoType;

use super::files::is_plain_name;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    DataSet,
}

impl Kind {
    /// `model` or `data set`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::DataSet => "data set",
        }
    }
}

/// `owner/name[@revision]` (a few old models have no owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// Whether it is a model or a data set.
    pub kind: Kind,
    /// `owner/name`.
    pub id: &'a str,
    /// A branch, a tag or a commit.
    pub revision: &'a str,
}

impl<'a> Id<'a> {
    /// The repository at `revision`, as the hub's crate has it.
    pub(super) fn at(&self, revision: &str) -> hf_hub::Repo {
        let kind = match self.kind {
            Kind::Model => RepoType::Model,
            Kind::DataSet => RepoType::Dataset,
        };
        hf_hub::Repo::with_revision(self.id.to_owned(), kind, revision.to_owned())
    }

    /// The parts of a name that could be one on the hub.
    pub fn parse(kind: Kind, name: &'a str) -> Option<Self> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        let (owner, own) = id.split_once('/').unwrap_or(("_", id));
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
        (plain(owner) && plain(own) && revision.split('/').all(branch)).then_some(Self { kind, id, revision })
    }
}

/// The path of a file within a repository, for an address.
pub(super) fn encode(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    path.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let id = |name| Id::parse(Kind::Model, name).map(|id| (id.id, id.revision));
        assert_eq!(id("openai/clip-vit-large-patch14"), Some(("openai/clip-vit-large-patch14", "main")));
        assert_eq!(id("xlm-roberta-large"), Some(("xlm-roberta-large", "main")));
        assert_eq!(id("a/b.c@refs/pr/1"), Some(("a/b.c", "refs/pr/1")));
        for path in ["/a/b", "a/b/c", "./a", "../a", "a/b@", "a/b@../x", "a/.b", "a/b--c", "a b/c", "a/b@x y", ""] {
            assert_eq!(id(path), None, "{path}");
        }
        assert_eq!(encode("en-es/a b#ñ.parquet"), "en-es/a%20b%23%C3%B1.parquet");
    }
}
