//! Vectors from files, and properties: one binary, so that it links once.
//!
//! `standards` checks the primitives we build on, `golden` our own formats (`testdata/README.md` says where the files come
//! from), `sealing` and `slots` that everything else is refused.

mod golden;
mod sealing;
mod slots;
mod standards;

use std::sync::LazyLock;

use cessfs_crypto::{Entropy, Phrase, VolumeId, VolumeKeys, VolumeSecret};
use serde_json::Value;

/// Randomness that was decided beforehand, drawn in order.
pub struct Script(Vec<u8>);

impl Script {
    /// What will be drawn.
    pub fn new(draws: &[&[u8]]) -> Script {
        Script(draws.concat())
    }

    /// True once everything was drawn.
    pub fn is_spent(&self) -> bool {
        self.0.is_empty()
    }
}

impl Entropy for Script {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0[..out.len()]);
        self.0.drain(..out.len());
    }
}

/// An endless stream from a seed.
pub struct Seeded(blake3::OutputReader);

impl Seeded {
    /// The same seed gives the same stream.
    pub fn new(seed: u64) -> Seeded {
        Seeded(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }
}

/// Test plaintext: byte `i` is `i` mod 251.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// The phrase of golden.json.
pub const PHRASE: &str = "abandon amount liar amount expire adjust cage candy arch gather drum bullet \
    absurd math era live bid rhythm alien crouch range attend journey unaware";

/// The keys of golden.json's phrase.
pub fn secret() -> &'static VolumeSecret {
    static SECRET: LazyLock<VolumeSecret> = LazyLock::new(|| Phrase::parse(PHRASE).expect("a valid phrase").secret());
    &SECRET
}

/// The keys of golden.json's volume.
pub fn keys() -> VolumeKeys {
    let mut volume = [0; 16];
    volume.iter_mut().zip(0xa0..).for_each(|(byte, value)| *byte = value);
    secret().volume_keys(VolumeId(volume))
}

/// Bytes of a hexadecimal field.
pub fn hex(value: &Value, field: &str) -> Vec<u8> {
    let text = value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text field {field} in {value}"));
    hex::decode(text).unwrap_or_else(|error| panic!("{field}: {error}"))
}

/// Fixed-size bytes of a hexadecimal field.
pub fn hex_array<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    hex(value, field)
        .try_into()
        .unwrap_or_else(|_| panic!("{field} does not have {N} bytes"))
}

/// A number field.
pub fn number(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no number field {field} in {value}"))
}

/// The entries of an array field; never empty, or the test would check nothing.
pub fn entries<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    let entries = value[field]
        .as_array()
        .unwrap_or_else(|| panic!("no array field {field}"));
    assert!(!entries.is_empty(), "{field} is empty");
    entries
}
