//! The two rules by which a key comes from another, and every label.
//!
//! * **Tree keys** (few, long-lived): HKDF-SHA256 (RFC 5869), no salt, `info = label ‖ 0x00 ‖ context`. No label contains
//!   a zero byte, so no two pairs of label and context give the same `info`.
//! * **Item keys** (one per frame, inode, pack): keyed BLAKE3 of a fixed-length description of the item. One compression
//!   function, so that a key per 1 MiB chunk costs nothing.
//!
//! A label is part of the format: changing one makes every volume unreadable. New purposes get new labels.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// A 256-bit key that is wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Version byte that opens every AAD and every item description.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// Phrase entropy -> root key.
pub(crate) const ROOT: &str = "cessfs/v1/root";
/// Root -> key of pack labels, one per phrase: labels must be readable before the volume is known.
pub(crate) const LABEL: &str = "cessfs/v1/label";
/// Root + volume id -> volume key.
pub(crate) const VOLUME: &str = "cessfs/v1/volume";
/// Volume key -> key of chunk ids.
pub(crate) const CHUNK_ID: &str = "cessfs/v1/volume/chunk-id";
/// Volume key -> parent of the frame keys.
pub(crate) const FRAME: &str = "cessfs/v1/volume/frame";
/// Volume key -> parent of the padding keys.
pub(crate) const PAD: &str = "cessfs/v1/volume/pad";
/// Volume key -> parent of everything at rest.
pub(crate) const AT_REST: &str = "cessfs/v1/volume/at-rest";
/// At-rest key -> key of metadata records.
pub(crate) const RECORD: &str = "cessfs/v1/at-rest/record";
/// At-rest key -> key of name hashes.
pub(crate) const NAME: &str = "cessfs/v1/at-rest/name";
/// At-rest key -> parent of the inode keys.
pub(crate) const INODE: &str = "cessfs/v1/at-rest/inode";
/// Slot secret + slot header -> key encryption key.
pub(crate) const SLOT_KEK: &str = "cessfs/v1/slot/kek";
/// Slot secret + slot header -> key commitment.
pub(crate) const SLOT_COMMITMENT: &str = "cessfs/v1/slot/commitment";
/// AAD of pack labels.
pub(crate) const LABEL_AAD: &str = "cessfs/v1/pack-label";

/// A tree key: HKDF-SHA256 of `parent` for `label` and `context`.
pub(crate) fn tree_key(parent: &[u8], label: &str, context: &[u8]) -> Key {
    expand(&Hkdf::<Sha256>::new(None, parent), label, context)
}

/// HKDF-Expand with this crate's `info` rule; for the slots, which bring their own salt.
pub(crate) fn expand(prk: &Hkdf<Sha256>, label: &str, context: &[u8]) -> Key {
    let mut key = Key::default();
    prk.expand_multi_info(&[label.as_bytes(), &[0], context], &mut key[..])
        .expect("32 bytes are within HKDF's 8160");
    key
}

/// An item key: keyed BLAKE3 of the item's description under `parent`.
pub(crate) fn item_key(parent: &Key, item: &[u8]) -> Key {
    let mut hash = blake3::keyed_hash(parent, item);
    let key = Zeroizing::new(*hash.as_bytes());
    hash.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 12] = [
        ROOT,
        LABEL,
        VOLUME,
        CHUNK_ID,
        FRAME,
        PAD,
        AT_REST,
        RECORD,
        NAME,
        INODE,
        SLOT_KEK,
        SLOT_COMMITMENT,
    ];

    #[test]
    fn labels_are_distinct_and_free_of_the_separator() {
        for (i, label) in LABELS.iter().enumerate() {
            assert!(!label.as_bytes().contains(&0), "{label}");
            assert!(
                LABELS[i + 1..].iter().all(|other| other != label),
                "{label} is used twice"
            );
        }
    }

    #[test]
    fn label_and_context_do_not_run_together() {
        let parent = [7; 32];
        assert_ne!(tree_key(&parent, "a", b"b"), tree_key(&parent, "ab", b""));
        assert_ne!(tree_key(&parent, "a", b""), tree_key(&parent, "b", b""));
        assert_ne!(tree_key(&parent, "a", b"x"), tree_key(&[8; 32], "a", b"x"));
    }

    /// Each key of the tree against `golden.json`, so that a failing format test can be traced to its key.
    #[test]
    fn the_tree_is_the_documents() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../testdata/golden.json")).unwrap();
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
        let known = |name: &str| bytes(&golden["keys"][name]);
        let edges = [
            ("root", bytes(&golden["entropy"]), ROOT),
            ("label", known("root"), LABEL),
            ("chunk_id", known("volume"), CHUNK_ID),
            ("frame", known("volume"), FRAME),
            ("pad", known("volume"), PAD),
            ("at_rest", known("volume"), AT_REST),
            ("record", known("at_rest"), RECORD),
            ("name", known("at_rest"), NAME),
            ("inode", known("at_rest"), INODE),
        ];
        for (child, parent, label) in edges {
            assert_eq!(tree_key(&parent, label, b"")[..], known(child), "{child}");
        }
        assert_eq!(
            tree_key(&known("root"), VOLUME, &bytes(&golden["volume"]))[..],
            known("volume")
        );
    }
}
