//! What the content of a file must hash to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A digest in lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 of the content.
    Sha256(String),
    /// SHA-1 of the content as a blob of git: of `blob LENGTH\0` and the content.
    Git(String),
}

impl Digest {
    /// The digest that an ETag of the hub is: SHA-256 for large files, git's name for small ones. None for other ETags.
    pub fn of_etag(etag: &str) -> Option<Self> {
        let digits = etag.bytes().all(|b| b.is_ascii_hexdigit()).then(|| etag.to_ascii_lowercase())?;
        match digits.len() {
            64 => Some(Self::Sha256(digits)),
            40 => Some(Self::Git(digits)),
            _ => None,
        }
    }

    /// What it is in words, and its digits.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Sha256(digits) => ("SHA-256", digits),
            Self::Git(digits) => ("git's SHA-1", digits),
        }
    }

    /// The digits of the same digest of `file`.
    pub fn of(&self, file: &mut File) -> io::Result<String> {
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let context = match self {
            Self::Sha256(_) => Context::new(&SHA256),
            Self::Git(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {length}\0").as_bytes());
                context
            }
        };
        digits(context, file)
    }
}

/// The SHA-256 of a file, in lower-case hexadecimal digits.
pub fn sha256(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    digits(Context::new(&SHA256), file)
}

/// The digest of what `context` has seen and of the rest of `file`.
fn digits(mut context: Context, file: &mut File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hola\n").unwrap();
        // printf 'hola\n' | git hash-object --stdin; printf 'hola\n' | sha256sum
        for want in GOLDEN {
            let digest = Digest::of_etag(&want.to_uppercase()).unwrap();
            assert_eq!((digest.of(&mut file).unwrap().as_str(), digest.parts().1), (want, want));
        }
        assert_eq!(Digest::of_etag("0123"), None);
        assert_eq!(Digest::of_etag(&"g".repeat(40)), None);
    }

    const GOLDEN: [&str; 2] = [
        "5c1b14949828006ed75a3e8858957f86a2f7e2eb",
        "133ee989293f92736301280c6f14c89d521200c17dcdcecca30cd20705332d44",
    ];
}
