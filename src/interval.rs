//! How often something happens in a run: after a number of steps, or after some time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Steps, written as a number, or a time, written as `30s`, `10m` or `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// This many steps.
    Steps(usize),
    /// This much time.
    Time(Duration),
}

impl Interval {
    /// Whether it is time after `steps` steps of the run, the last time having been `since` ago.
    pub fn due(self, steps: usize, since: Duration) -> bool {
        match self {
            Self::Steps(n) => steps.is_multiple_of(n),
            Self::Time(time) => since >= time,
        }
    }
}

impl FromStr for Interval {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
        let number: Option<u32> = number.parse().ok().filter(|n| *n > 0);
        let secs = |n: u32, unit: u64| Some(Self::Time(Duration::from_secs(u64::from(n) * unit)));
        match (number, unit) {
            (Some(n), "") => Some(Self::Steps(n as usize)),
            (Some(n), "s") => secs(n, 1),
            (Some(n), "m") => secs(n, 60),
            (Some(n), "h") => secs(n, 3600),
            _ => None,
        }
        .ok_or_else(|| {
            Error::usage(format!("`{text}` is no interval"))
                .hint("give steps, such as 500, or a time, such as 30s, 10m or 1h")
        })
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(n) => write!(f, "{n}"),
            Self::Time(time) => match time.as_secs() {
                secs if secs % 3600 == 0 => write!(f, "{}h", secs / 3600),
                secs if secs % 60 == 0 => write!(f, "{}m", secs / 60),
                secs => write!(f, "{secs}s"),
            },
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(n) => serializer.serialize_u64(*n as u64),
            Self::Time(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "steps, such as 500, or a time, such as \"10m\"")]
        enum Written {
            Number(u32),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(n) => n.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_parse_print_and_fall_due() {
        for text in ["500", "10s", "10m", "2h"] {
            assert_eq!(text.parse::<Interval>().unwrap().to_string(), text);
        }
        for wrong in ["", "0", "0m", "m", "-1", "1.5h", "10 m", "10d", "99999999999"] {
            let error = wrong.parse::<Interval>().unwrap_err();
            assert!(error.exit_code() == 2 && error.advice().is_some(), "{wrong}");
        }
        let (steps, time): (Interval, Interval) = ("3".parse().unwrap(), "1m".parse().unwrap());
        let secs = Duration::from_secs;
        assert!(steps.due(6, secs(0)) && !steps.due(7, secs(1000)));
        assert!(time.due(7, secs(60)) && !time.due(6, secs(59)));
    }
}
