//! Whose servers are trusted: Mozilla's certificates, or those that the environment names.

use std::ffi::OsString;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::error::{Error, Result, ResultExt};
use crate::fs::shown;

/// Variables that name a file of certificates (a company's proxy needs its own); the first that is set counts.
const VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Mozilla's certificates, or those of the file that the environment, read with `var`, names. A file that holds none is an
/// error: to trust others in their place is what its owner wanted to rule out.
pub(super) fn certificates(var: impl Fn(&str) -> Option<OsString>) -> Result<RootCerts> {
    let set = |name: &&'static str| Some((*name, var(name).filter(|path| !path.is_empty())?));
    let Some((variable, path)) = VARIABLES.iter().find_map(set) else { return Ok(RootCerts::WebPki) };
    let what = || format!("cannot use the certificates of {variable}, {}", shown(path.as_ref()));
    let hint = || format!("{variable} names a PEM file of the certificates that are trusted; mend it, or unset it");
    let pem = std::fs::read(&path).context(what).hint(hint)?;
    let (mut found, mut unusable) = (Vec::new(), 0);
    for item in parse_pem(&pem) {
        match item.map_err(|e| Error::new(e.to_string()).context(what()).hint(hint()))? {
            PemItem::Certificate(certificate) if is_usable(certificate.der()) => found.push(certificate),
            PemItem::Certificate(_) => unusable += 1,
            _ => {}
        }
    }
    if found.is_empty() {
        return Err(Error::new("there is no certificate in it").context(what()).hint(hint()));
    }
    if unusable > 0 {
        tracing::warn!("{variable}: {unusable} of {} certificates cannot be used", found.len() + unusable);
    }
    Ok(RootCerts::from(found))
}

/// (rustls leaves out what it cannot use without a word.)
fn is_usable(der: &[u8]) -> bool {
    webpki::anchor_from_trusted_cert(&der.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const GOOD: &str = include_str!("certificate.pem");

    fn of(vars: &[(&str, &Path)]) -> Result<RootCerts> {
        certificates(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, path)| path.as_os_str().to_owned()))
    }

    #[test]
    fn certificates_that_cannot_be_used_are_never_replaced_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let half = GOOD.replacen('M', "*", 1);
        let faulty = [
            dir.path().join("typo.pem"),
            dir.path().to_owned(),
            file("empty.pem", ""),
            file("text.pem", "no certificate\n"),
            file("half.pem", &GOOD[..GOOD.len() / 2]),
            file("letters.pem", &half),
            file("one_of_two.pem", &format!("{GOOD}{half}")),
            file("other.pem", "-----BEGIN CERTIFICATE-----\naG9sYQ==\n-----END CERTIFICATE-----\n"),
        ];
        for path in faulty {
            let error = of(&[("SSL_CERT_FILE", &path)]).err();
            let error = error.unwrap_or_else(|| panic!("{} is accepted", path.display()));
            let text = error.to_string();
            assert!(text.contains("SSL_CERT_FILE") && text.contains(path.to_str().unwrap()), "{text}");
            assert!(error.advice().is_some_and(|hint| hint.contains("PEM file")));
        }
        let good = file("good.pem", &format!("a comment\n{GOOD}{GOOD}"));
        assert!(matches!(of(&[("REQUESTS_CA_BUNDLE", &good)]), Ok(RootCerts::Specific(found)) if found.len() == 2));
        let empty = Path::new("");
        assert!(matches!(of(&[("SSL_CERT_FILE", empty), ("CURL_CA_BUNDLE", &good)]), Ok(RootCerts::Specific(_))));
        assert!(matches!(of(&[("SSL_CERT_FILE", empty)]), Ok(RootCerts::WebPki)));
    }
}
