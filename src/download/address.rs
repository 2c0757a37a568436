//! Web addresses: their parts, where a redirect leads, and those of proxies.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// `scheme://host:port` of an address.
pub(super) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    &url[..url[start..].find(['/', '?', '#']).map_or(url.len(), |end| start + end)]
}

/// Whether a redirect leads to an address in full, not to another path of the same server.
pub(super) fn is_absolute(location: &str) -> bool {
    location.starts_with("//") || location.starts_with("http://") || location.starts_with("https://")
}

/// Whether the address is one of this machine, which no proxy can reach.
pub(super) fn is_loopback(url: &str) -> bool {
    let host = origin(url).split_once("://").map_or("", |(_, host)| host);
    host.starts_with("127.") || host.starts_with("[::1]") || host.split(':').next() == Some("localhost")
}

/// The address that `location` means in an answer from `base`.
pub(super) fn join(base: &str, location: &str) -> String {
    let origin = origin(base);
    if location.starts_with("//") {
        return format!("{}:{location}", base.split(':').next().unwrap_or("https"));
    }
    if is_absolute(location) {
        return location.to_owned();
    }
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    let path = base[origin.len()..].split(['?', '#']).next().unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
    format!("{origin}{folder}{location}")
}

/// Refuses addresses of proxies in the environment, read with `var`, that cannot be used: ureq passes over them, and
/// would go around the proxy.
pub(super) fn check_proxies(var: impl Fn(&str) -> Option<OsString>) -> Result<()> {
    for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        let Some(value) = var(name).filter(|value| !value.is_empty()) else { continue };
        if value.to_str().is_none_or(|value| ureq::Proxy::new(value).is_err()) {
            // (It may hold a password, and is not shown.)
            return Err(Error::new(format!("the proxy that {name} names cannot be used"))
                .hint(format!("{name} looks like http://host:port; mend it, or unset it")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_gone_around() {
        let check = |proxy: &str| check_proxies(|name| (name == "HTTPS_PROXY").then(|| proxy.into()));
        for good in ["", "http://proxy:3128", "proxy:3128", "http://user:word@proxy:1/"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["http://", "htp://user:word@proxy:1", "http://proxy: 3128"] {
            let error = check(bad).expect_err(bad);
            assert!(error.to_string().contains("HTTPS_PROXY") && !error.to_string().contains("word"), "{error}");
        }
    }

    #[test]
    fn redirects_are_joined_as_browsers_do() {
        for (location, want) in [
            ("/c?d", "https://a.b:8/c?d"),
            ("e", "https://a.b:8/x/e"),
            ("//f/g", "https://f/g"),
            ("http://h/", "http://h/"),
        ] {
            assert_eq!(join("https://a.b:8/x/y?z=/", location), want);
        }
        assert_eq!((origin("http://a"), origin("http://a:1?b")), ("http://a", "http://a:1"));
        assert!(
            is_loopback("http://127.0.0.1:8/x") && is_loopback("http://localhost") && !is_loopback("http://a/127.")
        );
    }
}
