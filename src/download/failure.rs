//! Why something could not be fetched, and whether another try may help.

use std::io::{self, ErrorKind};

use crate::error::Error;

/// Why something could not be fetched.
#[derive(Debug)]
pub enum Failure {
    /// The server answered, but not with what was asked for. `code` is its `X-Error-Code` (empty: none).
    Status {
        /// The status of HTTP.
        status: u16,
        /// What the hub calls the fault.
        code: String,
        /// The address that was asked.
        url: String,
    },
    /// There was no answer, or it broke off.
    Network {
        /// What went wrong.
        what: String,
        /// The address that was asked.
        url: String,
        /// Whether another try may help.
        again: bool,
    },
    /// A wrong file, or a file that cannot be written.
    Other(Error),
}

impl Failure {
    /// Whether the same request may succeed in a while.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Network { again, .. } => *again,
            Self::Other(_) => false,
        }
    }

    /// Whether this says nothing about the file, only that its server cannot be reached or used now.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Network { .. }) || self.passes()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Status { status, url, .. } => {
                let error = Self::new(format!("{url}: the server answers {status}"));
                match status {
                    429 => error.hint("too many requests: wait some minutes and try again"),
                    500.. => error.hint("the server has trouble: try again later; what was fetched is kept"),
                    _ => error.hint("check the address"),
                }
            }
            Failure::Network { what, url, .. } => Self::new(format!("{url}: {what}"))
                .hint("check the network, HTTPS_PROXY and SSL_CERT_FILE, and try again; what was fetched is kept"),
            Failure::Other(error) => error,
        }
    }
}

pub(super) fn misled(what: String) -> Failure {
    Failure::Other(Error::new(what).hint("a proxy or a mirror may be at fault; try again later, or another address"))
}

pub(super) fn broken(url: &str, what: String) -> Failure {
    Failure::Network { what, url: url.to_owned(), again: true }
}

pub(super) fn network(url: &str, error: &ureq::Error) -> Failure {
    let refused = |e: &io::Error| e.kind() == ErrorKind::ConnectionRefused;
    let (what, again) = match error {
        ureq::Error::HostNotFound => ("the server's name is not known here".to_owned(), false),
        ureq::Error::ConnectionFailed => ("no connection to the server".to_owned(), false),
        ureq::Error::Io(e) if refused(e) => ("the server refuses connections".to_owned(), false),
        // (Of a certificate, mostly.)
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => (format!("no safe connection: {e}"), false),
        ureq::Error::Io(e) => (format!("the connection broke: {e}"), true),
        ureq::Error::Timeout(_) => ("the server does not answer in time".to_owned(), true),
        ureq::Error::BodyStalled => (error.to_string(), true),
        other => (other.to_string(), false),
    };
    Failure::Network { what, url: url.to_owned(), again }
}
