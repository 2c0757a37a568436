//! Names for results by all that they depend on.

/// Collects what a result depends on.
#[derive(Clone)]
pub struct Key(blake3::Hasher);

impl Key {
    /// For results of the kind `what`, which names the version of how they are made.
    pub fn new(what: &str) -> Self {
        let mut key = Self(blake3::Hasher::new());
        key.add(what);
        key
    }

    /// One more thing, in order.
    pub fn add(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }

    /// A list of things, in order.
    pub fn add_all<S: AsRef<str>>(&mut self, texts: &[S]) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| self.add(text.as_ref()));
    }

    /// The name, 32 hexadecimal digits.
    pub fn name(&self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_lists_apart() {
        let name = |lists: &[&[&str]]| {
            let mut key = Key::new("test");
            lists.iter().for_each(|list| key.add_all(list));
            key.name()
        };
        assert_eq!(name(&[&["a", "bc"]]), name(&[&["a", "bc"]]));
        let names = [name(&[&["a", "bc"]]), name(&[&["ab", "c"]]), name(&[&["a"], &["bc"]]), name(&[&["abc"]])];
        assert!((0..4).all(|i| (0..i).all(|j| names[i] != names[j])), "{names:?}");
    }
}
