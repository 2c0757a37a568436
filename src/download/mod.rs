//! Files from the web, whole or not at all: `ureq` with redirects, retries, resuming and checks of length and digest.
//!
//! Redirects are followed here rather than by `ureq`, because the hub's answers carry headers at every hop and a token
//! must not leave its server. Proxies (`HTTPS_PROXY`, `NO_PROXY`) and extra certificates (`SSL_CERT_FILE`,
//! `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`) count as they do for curl and Python.

mod address;
mod certificates;
mod digest;
mod failure;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use self::address::{check_proxies, is_absolute, is_loopback, join, origin};
use self::certificates::certificates;
pub use self::digest::{Digest, sha256};
pub use self::failure::Failure;
use self::failure::{broken, misled, network};
use crate::error::{Error, Result};

/// More redirects than this are a loop.
const MAX_REDIRECTS: usize = 10;

/// A text answer (a listing) may be this long.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// How long to wait, and how often to try again.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Tries without a new byte before giving up.
    pub tries: u32,
    /// Pause before the second try; it doubles with each further one.
    pub first_wait: Duration,
    /// A server that says nothing for so long counts as gone.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 6, first_wait: Duration::from_millis(500), silence: Duration::from_secs(30) }
    }
}

/// What a file must be once it is here.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Its size in bytes; none: any.
    pub bytes: Option<u64>,
    /// What its content hashes to; none: not checked.
    pub digest: Option<Digest>,
}

/// A file that is being fetched; see [`Client::fetch`].
struct Wanted<'a> {
    url: &'a str,
    path: &'a Path,
    expected: &'a Expected,
    progress: &'a dyn Fn(u64, u64),
}

/// Makes requests; a token goes only to the server it belongs to.
pub struct Client {
    agent: Result<Agent>, // an error where certificates or proxies cannot be used
    patience: Patience,
    token: Option<(String, String)>, // origin, token
}

impl Client {
    /// A client that gives `token` to the server of `endpoint` and to no other.
    pub fn new(patience: Patience, endpoint: &str, token: Option<String>) -> Self {
        let silence = Some(patience.silence);
        let var = |name: &str| std::env::var_os(name);
        let agent = check_proxies(var).and_then(|()| certificates(var)).map(|trusted| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("themo/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .tls_config(TlsConfig::builder().root_certs(trusted).build())
                .timeout_resolve(silence)
                .timeout_connect(silence)
                .timeout_recv_response(silence)
                .timeout_per_read(silence)
                .timeout_per_write(silence)
                .build()
                .new_agent()
        });
        let token = token.map(|token| (origin(endpoint).to_owned(), token));
        Self { agent, patience, token }
    }

    /// The body of `url` as text.
    pub fn text(&self, url: &str) -> Result<String, Failure> {
        self.patiently(|| {
            let mut response = self.follow(url, false, 0)?;
            let read = response.body_mut().with_config().limit(MAX_TEXT_BYTES).read_to_string();
            read.map_err(|e| network(url, &e))
        })
    }

    /// The headers of `url`, from the first answer that is not a redirect within the same server, and whether it was
    /// the last hop.
    pub fn head(&self, url: &str) -> Result<(HeaderMap, bool), Failure> {
        self.patiently(|| {
            let response = self.follow(url, true, 0)?;
            Ok((response.headers().clone(), response.status().is_success()))
        })
    }

    /// Writes `url` into `file`, which becomes exactly what is `expected` or stays behind as a part that a later call
    /// continues. `progress(done, total)` is called with the bytes.
    pub fn fetch(
        &self, url: &str, path: &Path, expected: &Expected, progress: &dyn Fn(u64, u64),
    ) -> Result<(), Failure> {
        let wanted = Wanted { url, path, expected, progress };
        let cannot_write = |e: io::Error| Failure::Other(write_error(path, e));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.as_mut().map_err(|e| cannot_write(io::Error::new(e.kind(), e.to_string())))?;
        let mut have = file.metadata().map_err(cannot_write)?.len();
        // A transfer that nothing could check at its end is not resumed.
        let mut trusted = have == 0 || expected.digest.is_some();
        let (mut tries, mut restarted) = (0, false);
        loop {
            if !trusted || expected.bytes.is_some_and(|bytes| have > bytes) {
                file.set_len(0).map_err(cannot_write)?;
                (have, trusted) = (0, true);
            }
            let before = have;
            match self.go_on(&wanted, file, &mut have) {
                Ok(()) => {
                    let Some(digest) = &expected.digest else { return file.sync_all().map_err(cannot_write) };
                    let ((name, want), got) = (digest.parts(), digest.of(file).map_err(cannot_write)?);
                    if got == want {
                        return file.sync_all().map_err(cannot_write);
                    }
                    file.set_len(0).map_err(cannot_write)?;
                    if restarted || before == 0 {
                        let what = format!("{url}: {name} of the content is {got}, not {want}");
                        let hint = "what came was thrown away; try again, or ask who runs the server or the proxy";
                        return Err(Failure::Other(Error::new(what).hint(hint)));
                    }
                    tracing::warn!("{url}: what an earlier download left does not fit; fetching it from the beginning");
                    (have, restarted) = (0, true);
                }
                Err(failure) => {
                    if have > before {
                        tries = 0;
                    }
                    self.pause(&mut tries, failure)?;
                }
            }
        }
    }

    /// One request for the bytes from `have` on, into `file`; `have` counts them.
    fn go_on(&self, wanted: &Wanted, file: &mut File, have: &mut u64) -> Result<(), Failure> {
        let Wanted { url, path, expected, progress } = *wanted;
        if *have > 0 && expected.bytes == Some(*have) {
            return Ok(());
        }
        let cannot_write = |e: io::Error| Failure::Other(write_error(path, e));
        let mut response = match self.follow(url, false, *have) {
            // The server has no such bytes: what is here does not belong to it.
            Err(Failure::Status { status: 416, .. }) if *have > 0 => {
                *have = 0;
                file.set_len(0).map_err(cannot_write)?;
                self.follow(url, false, 0)?
            }
            other => other?,
        };
        let headers = response.headers();
        let rest: Option<u64> = header(headers, "content-length").parse().ok();
        let resumed =
            response.status() == 206 && header(headers, "content-range").starts_with(&format!("bytes {have}-"));
        if !resumed {
            if response.status() == 206 {
                return Err(broken(url, "the server sends another part than asked for".into()));
            }
            *have = 0;
            file.set_len(0).map_err(cannot_write)?;
        }
        let promised = rest.map(|rest| *have + rest);
        let total = match (expected.bytes, promised) {
            (Some(want), Some(promised)) if want != promised => {
                let what = format!("{url}: the server sends {promised} bytes of a file of {want} bytes");
                return Err(Failure::Other(
                    Error::new(what).hint("a proxy or mirror may be at fault; try again later"),
                ));
            }
            (want, promised) => want.or(promised),
        };
        // Where nobody says how long the content is, its end and a broken connection look the same.
        if total.is_none() {
            return Err(misled(format!("{url}: the server does not say how long the file is")));
        }
        file.seek(SeekFrom::Start(*have)).map_err(cannot_write)?;
        let (mut reader, mut buffer) = (response.body_mut().as_reader(), vec![0; 1 << 18]);
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(broken(url, format!("the download broke off after {have} bytes: {e}"))),
            };
            file.write_all(&buffer[..n]).map_err(cannot_write)?;
            *have += n as u64;
            if total.is_some_and(|total| *have > total) {
                file.set_len(0).map_err(cannot_write)?;
                *have = 0;
                return Err(misled(format!("{url}: the server sends more than it announced")));
            }
            progress(*have, total.unwrap_or(*have));
        }
        match total {
            Some(total) if *have < total => {
                Err(broken(url, format!("the download broke off after {have} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }

    /// The answer at the end of all redirects: a success, or, with `head`, also a redirect to another address in full.
    fn follow(&self, url: &str, head: bool, from: u64) -> Result<Response<Body>, Failure> {
        let unusable = |e: &Error| Failure::Other(Error::new(e.to_string()).hint(e.advice().unwrap_or_default()));
        let agent = self.agent.as_ref().map_err(unusable)?;
        let mut at = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let mut request = if head { agent.head(&at) } else { agent.get(&at) };
            if let Some((_, token)) = self.token.as_ref().filter(|(server, _)| server == origin(&at)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            if is_loopback(&at) {
                request = request.config().proxy(None).build();
            }
            let response = request.call().map_err(|e| network(&at, &e))?;
            let status = response.status();
            let location = header(response.headers(), "location");
            if status.is_redirection() && !location.is_empty() {
                if head && is_absolute(location) {
                    return Ok(response);
                }
                let next = join(&at, location);
                if at.starts_with("https:") && !next.starts_with("https:") {
                    return Err(misled(format!("{at} redirects to an address without encryption")));
                }
                at = next;
            } else if status.is_success() {
                return Ok(response);
            } else {
                let code = header(response.headers(), "x-error-code").to_owned();
                return Err(Failure::Status { status: status.as_u16(), code, url: at });
            }
        }
        Err(misled(format!("{url} redirects without end")))
    }

    fn patiently<T>(&self, mut request: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            match request() {
                Err(failure) => self.pause(&mut tries, failure)?,
                done => return done,
            }
        }
    }

    /// Waits before the next try, or gives the failure back if another is of no use.
    fn pause(&self, tries: &mut u32, failure: Failure) -> Result<(), Failure> {
        *tries += 1;
        if !failure.passes() || *tries >= self.patience.tries {
            return Err(failure);
        }
        let wait = self.patience.first_wait * 2u32.saturating_pow(*tries - 1);
        let what = match &failure {
            Failure::Status { status, url, .. } => format!("{url}: the server answers {status}"),
            Failure::Network { what, url, .. } => format!("{url}: {what}"),
            Failure::Other(error) => error.to_string(),
        };
        tracing::warn!("{what}; trying again in {:.1} s", wait.as_secs_f64());
        std::thread::sleep(wait);
        Ok(())
    }
}

/// Whether the environment, read with `var`, forbids the network (as it does to Python's huggingface_hub).
pub fn is_offline(var: &dyn Fn(&str) -> Option<String>) -> bool {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| {
        var(name).is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
    })
}

/// A header as text, empty where there is none.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// `1.7 GB`.
pub fn human_bytes(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / *size as f64),
        None => format!("{bytes} bytes"),
    }
}

fn write_error(path: &Path, error: io::Error) -> Error {
    let hint = "check the free space and the permissions, or set HF_HOME to a folder on another disk";
    Error::from(error).context(format!("cannot write {}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_decimal_units() {
        assert_eq!([999, 66_315, 1_710_000_000].map(human_bytes), ["999 bytes", "66.3 kB", "1.7 GB"]);
    }
}
