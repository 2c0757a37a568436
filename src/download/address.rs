//! Web addresses: their parts, and where a redirect leads.

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

#[cfg(test)]
mod tests {
    use super::*;

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
