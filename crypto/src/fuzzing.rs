//! What hostile bytes must not do to labels, addresses, phrases and key slots.
//!
//! Each function takes any input and panics where a promise is broken. They run over `fuzz/corpus` in the tests below, and
//! under cargo-fuzz.

use crate::label::BODY_BYTES;
use crate::{AccountId, Entropy, KeySlots, LabelKey, Phrase};

/// Entropy of the fixed phrase.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

fn label_key() -> LabelKey {
    Phrase::generate(&mut Zeros).secret().label_key()
}

/// A name on chain, or (30 bytes) what a label hides: refused, or the one label of what was read.
pub fn label(input: &[u8]) {
    let key = label_key();
    if let Some(label) = key.open(input) {
        assert_eq!(key.seal(&label).as_bytes(), input, "a label has one spelling");
    }
    let Some(body) = input.first_chunk::<BODY_BYTES>() else {
        return;
    };
    let name = key.seal_body(body);
    if let Some(label) = key.open(name.as_bytes()) {
        assert_eq!(key.seal(&label), name, "a label has one body");
    }
}

/// `keys.json`, a recovery phrase, and an address: refused, or stable when written and read again.
pub fn keys(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(slots) = KeySlots::from_json(text) {
        let written = slots.to_json();
        let again = KeySlots::from_json(&written).unwrap_or_else(|e| panic!("what was written is refused: {e}"));
        assert_eq!(again.to_json(), written);
        let kinds: Vec<_> = slots.kinds().collect();
        assert!(
            kinds
                .iter()
                .all(|kind| kinds.iter().filter(|other| *other == kind).count() == 1)
        );
    }
    if let Ok(phrase) = Phrase::parse(text) {
        let again = Phrase::parse(phrase.words()).unwrap_or_else(|e| panic!("a phrase's words are refused: {e}"));
        assert_eq!(again.words(), phrase.words());
    }
    if let Ok((account, prefix)) = AccountId::from_ss58(text) {
        assert_eq!(
            account.to_ss58(prefix),
            text,
            "an account has one address under a prefix"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PackKind, PackLabel, PackSeq, SS58_PREFIX, VolumeId};
    use cessfs_fuzz::{Bound, Counting, replay, seeds};

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// The word list and a parsed JSON document are held beside the text.
    const BOUND: Bound = Bound {
        fixed: 64 << 10,
        per_byte: 16,
    };

    #[test]
    fn labels() {
        let data = PackLabel {
            volume: VolumeId(std::array::from_fn(|i| 0xa0 + i as u8)),
            seq: PackSeq(1),
            epoch: 1,
            kind: PackKind::Data,
        };
        let checkpoint = PackLabel {
            seq: PackSeq(u64::MAX),
            kind: PackKind::Checkpoint,
            ..data
        };
        let mut body = [0; BODY_BYTES];
        body[..16].copy_from_slice(&data.volume.0);
        body[16] = 1;
        body[24] = 1;
        body[28] = 1;
        assert_eq!(label_key().seal_body(&body), label_key().seal(&data));
        seeds(
            "label",
            &[
                ("data", label_key().seal(&data).into_bytes()),
                ("checkpoint", label_key().seal(&checkpoint).into_bytes()),
                ("body", body.to_vec()),
            ],
        );
        replay("label", label, BOUND);
    }

    #[test]
    fn key_files_phrases_and_addresses() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../testdata/golden.json")).unwrap();
        let phrase = golden["phrase"]
            .as_str()
            .expect("golden.json has the phrase")
            .to_owned();
        let address = AccountId([7; 32]).to_ss58(SS58_PREFIX);
        let secret = Phrase::generate(&mut Zeros).secret();
        let mut slots = KeySlots::new(VolumeId([7; 16]));
        slots.set_key_file(&secret, &[9; 32], &mut Zeros).unwrap();
        slots
            .set_phrase(&secret, &Phrase::generate(&mut Zeros), &mut Zeros)
            .unwrap();
        seeds(
            "keys",
            &[
                ("phrase", phrase.into_bytes()),
                ("address", address.into_bytes()),
                ("slots", slots.to_json().into_bytes()),
            ],
        );
        replay("keys", keys, BOUND);
    }
}
