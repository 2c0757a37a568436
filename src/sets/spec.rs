//! Names of data sets: one of the table, or `hub:owner/name[@revision][:config[/split]]`.

use crate::error::{Error, Result};
use crate::hub::{Id, Kind};

const PREFIX: &str = "hub:";

/// A data set of the hub that no table names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    /// The repository and its revision.
    pub id: Id<'a>,
    /// The configuration, and perhaps the split in it: `en-es` or `en-es/train`.
    pub config: Option<&'a str>,
}

impl<'a> Spec<'a> {
    /// Whether `name` is meant as one of the hub.
    pub fn is_hub(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// The parts of a name that [`Self::is_hub`].
    pub fn parse(name: &'a str) -> Result<Self> {
        let rest = name.strip_prefix(PREFIX).unwrap_or(name);
        let (repository, config) = match rest.split_once(':') {
            Some((repository, config)) => (repository, Some(config)),
            None => (rest, None),
        };
        let id = Id::parse(Kind::DataSet, repository);
        let config_fits = config.is_none_or(|config| config.split('/').all(|part| !part.is_empty()));
        id.filter(|_| config_fits).map(|id| Self { id, config }).ok_or_else(|| {
            Error::usage(format!("`{name}` does not name a data set of the hub")).hint(
                "hub:OWNER/NAME, with @REVISION and :CONFIG or :CONFIG/SPLIT where they are needed, such as \
                 hub:Helsinki-NLP/opus-100:en-es",
            )
        })
    }
}

/// Refuses a name that no table and no hub could have; whether one has it is only known where it is looked up.
pub fn check_name(name: &str) -> Result<()> {
    if Spec::is_hub(name) {
        return Spec::parse(name).map(drop);
    }
    if name.trim().is_empty() || name.contains(['/', '\\', ':']) {
        let what = format!("`{name}` is no name of a data set");
        return Err(Error::usage(what)
            .hint("`themo data list` shows the names; hub:OWNER/NAME takes any data set of the hub, --pairs a file"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_taken_apart() {
        let parts = |name| Spec::parse(name).ok().map(|spec| (spec.id.id, spec.id.revision, spec.config));
        assert_eq!(parts("hub:a/b"), Some(("a/b", "main", None)));
        assert_eq!(parts("hub:a/b@refs/pr/1:en-es/train"), Some(("a/b", "refs/pr/1", Some("en-es/train"))));
        assert_eq!(parts("hub:squad:plain"), Some(("squad", "main", Some("plain"))));
        for wrong in ["hub:", "hub:a/b/c", "hub:a/b:", "hub:a/b:x//y", "hub:../b", "hub:a/b@", "hub:a/b@../c"] {
            let error = Spec::parse(wrong).unwrap_err();
            assert!(error.exit_code() == 2 && error.advice().unwrap().contains("hub:OWNER/NAME"), "{wrong}");
        }
        for (name, fits) in [("parallel", true), ("hub:a/b", true), ("", false), ("a.tsv", true), ("x/a.tsv", false)] {
            assert_eq!(check_name(name).is_ok(), fits, "{name}");
        }
    }
}
