//! The two names that a request carries: a file's id and a fragment's hash.
//!
//! Both are 64 lowercase hex characters and become names on the disk, so nothing else gets past here.

use std::fmt;

/// Id of a CESS file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fid(String);

/// SHA-256 of a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentHash(String);

impl Fid {
    /// The id, if `text` is one.
    pub fn parse(text: &str) -> Option<Fid> {
        is_hash(text).then(|| Fid(text.to_owned()))
    }

    /// Its 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FragmentHash {
    /// The hash, if `text` is one.
    pub fn parse(text: &str) -> Option<FragmentHash> {
        is_hash(text).then(|| FragmentHash(text.to_owned()))
    }

    /// Its 64 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lowercase_hex_characters_are_a_name() {
        assert!(Fid::parse(&"a9".repeat(32)).is_some());
        for wrong in [
            "",
            "..",
            &"A9".repeat(32),
            &"a".repeat(63),
            &"a".repeat(65),
            &"/.".repeat(32),
        ] {
            assert_eq!(Fid::parse(wrong), None, "{wrong}");
            assert_eq!(FragmentHash::parse(wrong), None, "{wrong}");
        }
    }
}
