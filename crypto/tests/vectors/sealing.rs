//! What was sealed opens; anything else, changed by one bit, cut short or moved to another place, does not.

use cessfs_crypto::{ChunkId, FrameId, FrameKind, PackKind, PackLabel, PackSeq, SEAL_OVERHEAD, VolumeId};
use proptest::prelude::*;

use crate::{Script, Seeded, keys, secret};

fn frame_ids() -> impl Strategy<Value = FrameId> {
    let kinds = prop_oneof![
        Just(FrameKind::Chunk),
        Just(FrameKind::Delta),
        Just(FrameKind::Directory),
        Just(FrameKind::Header),
        Just(FrameKind::Footer)
    ];
    prop_oneof![
        any::<[u8; 32]>().prop_map(|id| FrameId::Chunk(ChunkId(id))),
        (0..4u64, kinds, 0..4u32).prop_map(|(seq, kind, index)| FrameId::Pack {
            seq: PackSeq(seq),
            kind,
            index
        }),
    ]
}

fn labels() -> impl Strategy<Value = PackLabel> {
    (
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<u32>(),
        prop_oneof![Just(PackKind::Data), Just(PackKind::Checkpoint)],
    )
        .prop_map(|(volume, seq, epoch, kind)| PackLabel {
            volume: VolumeId(volume),
            seq: PackSeq(seq),
            epoch,
            kind,
        })
}

fn flip(bytes: &mut [u8], bit: prop::sample::Index) {
    let bit = bit.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}

proptest! {
    #[test]
    fn frames_open_as_themselves_and_nothing_else(
        frame in frame_ids(),
        other in frame_ids(),
        plaintext in prop::collection::vec(any::<u8>(), 0..600),
        bit in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let keys = keys();
        let mut sealed = Vec::new();
        keys.seal(frame, &plaintext, &mut Seeded::new(seed), &mut sealed);
        prop_assert_eq!(sealed.len(), plaintext.len() + SEAL_OVERHEAD);
        let mut here = sealed.clone();
        let there = keys.open_in_place(frame, &mut here).unwrap();
        prop_assert_eq!(&here[there], &plaintext);
        prop_assert_eq!(keys.open(frame, &sealed).unwrap(), plaintext);

        if other != frame {
            prop_assert!(keys.open(other, &sealed).is_err());
            prop_assert!(keys.open_in_place(other, &mut sealed.clone()).is_err());
        }
        let elsewhere = secret().volume_keys(VolumeId([1; 16]));
        prop_assert!(elsewhere.open(frame, &sealed).is_err());
        prop_assert!(keys.open(frame, &sealed[..cut.index(sealed.len())]).is_err());
        let longer = [&sealed[..], &[0]].concat();
        prop_assert!(keys.open(frame, &longer).is_err());
        flip(&mut sealed, bit);
        prop_assert!(keys.open(frame, &sealed).is_err());
    }

    #[test]
    fn labels_open_as_themselves_and_nothing_else(label in labels(), bit in any::<prop::sample::Index>(), at in 0..63usize) {
        let key = secret().label_key();
        let name = key.seal(&label);
        prop_assert_eq!(name.len(), 63);
        prop_assert!(name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        prop_assert_eq!(key.open(name.as_bytes()), Some(label));
        prop_assert_eq!(&key.seal(&label), &name, "the same label has one name");

        let mut changed = name.clone().into_bytes();
        flip(&mut changed, bit);
        prop_assert_eq!(key.open(&changed), None);
        // The last character carries two unused bits: no second spelling either.
        let mut respelled = name.clone().into_bytes();
        respelled[at] = if respelled[at] == b'A' { b'B' } else { b'A' };
        prop_assert_eq!(key.open(&respelled), None);
        prop_assert_eq!(key.open(&name.as_bytes()[..at]), None);
    }

    #[test]
    fn foreign_names_are_no_labels(name in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(secret().label_key().open(&name), None);
    }

    #[test]
    fn records_open_as_themselves_and_nothing_else(
        key in prop::collection::vec(any::<u8>(), 0..40),
        other in prop::collection::vec(any::<u8>(), 0..40),
        value in prop::collection::vec(any::<u8>(), 0..300),
        bit in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let at_rest = keys().at_rest();
        let mut sealed = at_rest.seal_record(&key, &value, &mut Seeded::new(seed));
        prop_assert_eq!(at_rest.open_record(&key, &sealed).unwrap(), value);
        if other != key {
            prop_assert!(at_rest.open_record(&other, &sealed).is_err());
        }
        prop_assert!(secret().volume_keys(VolumeId([1; 16])).at_rest().open_record(&key, &sealed).is_err());
        prop_assert!(at_rest.open_record(&key, &sealed[..cut.index(sealed.len())]).is_err());
        flip(&mut sealed, bit);
        prop_assert!(at_rest.open_record(&key, &sealed).is_err());
    }

    #[test]
    fn blocks_open_as_themselves_and_nothing_else(
        (ino, block, version) in (any::<u64>(), any::<u64>(), any::<u32>()),
        nonce in any::<[u8; 12]>(),
        fill in any::<u8>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let at_rest = keys().at_rest();
        let key = at_rest.inode(ino);
        let plain = vec![fill; 4096];
        let mut sealed = plain.clone();
        let tag = key.seal_block(block, version, &nonce, &mut sealed);
        let opens = |key: &cessfs_crypto::InodeKey, block, version, nonce, tag, sealed: &[u8]| {
            let mut data = sealed.to_vec();
            let opened = key.open_block(block, version, nonce, tag, &mut data).is_ok();
            assert_eq!(opened, data == plain, "plaintext shows exactly if the tag matched");
            opened
        };
        prop_assert!(opens(&key, block, version, &nonce, &tag, &sealed));
        prop_assert!(!opens(&key, block ^ 1, version, &nonce, &tag, &sealed));
        prop_assert!(!opens(&key, block, version ^ 1, &nonce, &tag, &sealed));
        prop_assert!(!opens(&at_rest.inode(ino ^ 1), block, version, &nonce, &tag, &sealed));
        let (mut other_nonce, mut other_tag) = (nonce, tag);
        flip(&mut other_nonce, bit);
        flip(&mut other_tag, bit);
        prop_assert!(!opens(&key, block, version, &other_nonce, &tag, &sealed));
        prop_assert!(!opens(&key, block, version, &nonce, &other_tag, &sealed));
        flip(&mut sealed, bit);
        prop_assert!(!opens(&key, block, version, &nonce, &tag, &sealed));
    }

    #[test]
    fn padding_is_one_stream_however_it_is_cut(seq in any::<u64>(), start in 0..(32u64 << 30), length in 0..500usize, cut in any::<prop::sample::Index>()) {
        let keys = keys();
        let mut whole = vec![0; length];
        keys.pad(PackSeq(seq), start, &mut whole);
        let cut = cut.index(length + 1);
        let (mut head, mut tail) = (vec![1; cut], vec![2; length - cut]);
        keys.pad(PackSeq(seq), start, &mut head);
        keys.pad(PackSeq(seq), start + cut as u64, &mut tail);
        prop_assert_eq!([head, tail].concat(), whole);
    }
}

/// The nonce is the only thing that differs between two seals of one frame, so it must come from the entropy each time.
#[test]
fn every_seal_draws_a_nonce() {
    let frame = FrameId::Chunk(ChunkId([3; 32]));
    let mut entropy = Script::new(&[&[1; 12], &[2; 12]]);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    keys().seal(frame, b"same", &mut entropy, &mut first);
    keys().seal(frame, b"same", &mut entropy, &mut second);
    assert_eq!((&first[..12], &second[..12]), (&[1; 12][..], &[2; 12][..]));
    assert_ne!(first[12..], second[12..]);
    assert!(entropy.is_spent());
}

#[test]
fn chunks_and_names_of_two_volumes_share_nothing() {
    let (here, there) = (keys(), secret().volume_keys(VolumeId([1; 16])));
    assert_ne!(here.chunk_id(b"same"), there.chunk_id(b"same"));
    assert_ne!(
        here.at_rest().name_hash(1, b"same"),
        there.at_rest().name_hash(1, b"same")
    );
    assert_ne!(
        here.at_rest().name_hash(1, b"same"),
        here.at_rest().name_hash(2, b"same")
    );
    let mut pads = [[0; 64]; 3];
    here.pad(PackSeq(1), 0, &mut pads[0]);
    here.pad(PackSeq(2), 0, &mut pads[1]);
    there.pad(PackSeq(1), 0, &mut pads[2]);
    assert!(pads[0] != pads[1] && pads[0] != pads[2] && pads[1] != pads[2]);
    assert!(pads.iter().all(|pad| *pad != [0; 64]), "never zeros");
}

#[test]
#[should_panic(expected = "padding past the longest pack")]
fn padding_never_wraps_around() {
    keys().pad(PackSeq(1), cessfs_crypto::limits::PAD_BYTES_MAX - 10, &mut [0; 11]);
}

#[test]
fn padding_reaches_its_last_byte() {
    let mut last = [0; 64];
    keys().pad(PackSeq(1), cessfs_crypto::limits::PAD_BYTES_MAX - 64, &mut last);
    assert_ne!(last, [0; 64]);
}

#[test]
fn name_hashes_leave_two_bits_free() {
    let at_rest = keys().at_rest();
    let all = (0..2000u64)
        .map(|name| at_rest.name_hash(1, &name.to_le_bytes()))
        .fold(0, |all, hash| all | hash);
    assert_eq!(all, (1 << 62) - 1, "the low 62 bits are all in use, the top two never");
}
