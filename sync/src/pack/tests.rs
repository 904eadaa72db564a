//! The layout, its strictness, and the numbers of the worked example in the format document.

use super::*;
use crate::limits::{CHUNK_BYTES, DIRECTORY_FRAME_BYTES, SEGMENT_BYTES};
use crate::sim::SimEntropy;
use cessfs_crypto::{ChunkId, FrameId, FrameKind, PackKind, PackSeq, Phrase, VolumeId, VolumeKeys};
use proptest::prelude::*;

const SEQ: PackSeq = PackSeq(9);

fn keys(volume: u8) -> VolumeKeys {
    let secret = Phrase::generate(&mut SimEntropy::new(1)).secret();
    secret.volume_keys(VolumeId([volume; 16]))
}

fn header() -> Header {
    Header {
        volume: VolumeId([1; 16]),
        seq: SEQ,
        epoch: 3,
        kind: PackKind::Data,
    }
}

/// Back-to-back entries of the given sealed lengths, as a builder makes them.
fn directory(chunks: &[u32], deltas: &[u32]) -> (Directory, Footer) {
    let mut at = HEADER_SEALED_BYTES as u64;
    let mut place = |len: u32| {
        at += u64::from(len);
        at - u64::from(len)
    };
    let mut directory = Directory::default();
    for (number, len) in chunks.iter().enumerate() {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        directory.chunks.push(ChunkEntry {
            id: ChunkId(id),
            offset: place(*len),
            len: *len,
        });
    }
    for len in deltas {
        directory.deltas.push(DeltaEntry {
            offset: place(*len),
            len: *len,
        });
    }
    let footer = Footer {
        seq: SEQ,
        kind: PackKind::Data,
        segments: (at / SEGMENT_BYTES as u64) as u32 + 1,
        directory_offset: at,
        chunks: chunks.len() as u32,
        deltas: deltas.len() as u32,
        previous: PackSeq(8),
        sealed_at_s: 1_700_000_000,
    };
    (directory, footer)
}

/// Seals `plain` as the frame that `Header` or `Footer` would be, to reach the decoder behind the seal.
fn forge(kind: FrameKind, index: u32, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let frame = FrameId::Pack { seq: SEQ, kind, index };
    keys(1).seal(frame, plain, &mut SimEntropy::new(5), &mut out);
    out
}

fn plain_of(kind: FrameKind, sealed: &[u8]) -> Vec<u8> {
    let frame = FrameId::Pack {
        seq: SEQ,
        kind,
        index: 0,
    };
    keys(1).open(frame, sealed).expect("sealed just now")
}

#[test]
fn header_and_footer_come_back_and_have_their_fixed_size() {
    let sealed = header().seal(&keys(1), &mut SimEntropy::new(2));
    assert_eq!(sealed.len(), 92);
    assert_eq!(Header::open(&keys(1), SEQ, &sealed), Ok(header()));
    let (_, footer) = directory(&[100, 200], &[300]);
    let sealed = footer.seal(&keys(1), &mut SimEntropy::new(2));
    assert_eq!(sealed.len(), 92);
    assert_eq!(Footer::open(&keys(1), SEQ, &sealed), Ok(footer));
}

#[test]
fn frames_open_only_for_their_volume_and_pack() {
    let sealed = header().seal(&keys(1), &mut SimEntropy::new(2));
    let other = PackError::Sealed("header");
    assert_eq!(Header::open(&keys(2), SEQ, &sealed), Err(other.clone()));
    assert_eq!(Header::open(&keys(1), PackSeq(8), &sealed), Err(other));
    assert_eq!(Footer::open(&keys(1), SEQ, &sealed), Err(PackError::Sealed("footer")));
}

#[test]
fn the_worked_example_of_the_format_document() {
    // One chunk of 5 bytes, one delta of 100 bytes: docs/FORMAT-packs.md.
    let (directory, footer) = directory(&[33], &[128]);
    assert_eq!(directory.chunks[0].offset, 92);
    assert_eq!(directory.deltas[0].offset, 125);
    assert_eq!(footer.directory_offset, 253);
    assert_eq!(footer.directory_bytes(), 44 + 12 + 28);
    assert_eq!(footer.body_bytes(), 33_554_432);
    let sealed = footer.seal(&keys(1), &mut SimEntropy::new(2));
    let plain = plain_of(FrameKind::Footer, &sealed);
    let expected = concat!(
        "43455353464f4f54",
        "0100",
        "01",
        "00",
        "01000000",
        "0900000000000000",
        "0000000200000000",
        "fd00000000000000",
        "01000000",
        "01000000",
        "0800000000000000",
        "00f1536500000000"
    );
    assert_eq!(hex::encode(plain), expected);
    let sealed = header().seal(&keys(1), &mut SimEntropy::new(2));
    let plain = plain_of(FrameKind::Header, &sealed);
    let expected = concat!(
        "434553535041434b",
        "0100",
        "01",
        "00",
        "03000000",
        "0900000000000000",
        "01010101010101010101010101010101",
        "000000000000000000000000000000000000000000000000"
    );
    assert_eq!(hex::encode(plain), expected);
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let sealed = header().seal(&keys(1), &mut SimEntropy::new(2));
    let mut plain = plain_of(FrameKind::Header, &sealed);
    plain[8] = 2;
    let forged = forge(FrameKind::Header, 0, &plain);
    assert_eq!(Header::open(&keys(1), SEQ, &forged), Err(PackError::Version(2)));
}

#[test]
fn a_directory_of_several_frames_comes_back() {
    let per_frame = DIRECTORY_FRAME_BYTES / 44;
    let lens = vec![29; per_frame * 2 + 7];
    let (directory, footer) = directory(&lens, &[29, 1 << 20]);
    let sealed = directory.seal(&keys(1), SEQ, &mut SimEntropy::new(3));
    assert_eq!(sealed.len() as u64, footer.directory_bytes());
    assert!(sealed.len() > 2 * DIRECTORY_FRAME_BYTES);
    assert_eq!(Directory::open(&keys(1), &footer, &sealed), Ok(directory));
}

#[track_caller]
fn refused(directory: &Directory, footer: &Footer) {
    let sealed = directory.seal(&keys(1), SEQ, &mut SimEntropy::new(3));
    let outcome = Directory::open(&keys(1), footer, &sealed);
    assert!(matches!(outcome, Err(PackError::Malformed(_))), "{outcome:?}");
}

#[test]
fn directories_that_break_a_rule_are_refused() {
    let (good, footer) = directory(&[29, 1000, 500], &[64, 29]);
    let sealed = good.seal(&keys(1), SEQ, &mut SimEntropy::new(3));
    assert!(Directory::open(&keys(1), &footer, &sealed).is_ok());

    let mut gap = good.clone();
    gap.chunks[1].offset += 1;
    refused(&gap, &footer);
    let mut twice = good.clone();
    twice.chunks[1].id = twice.chunks[0].id;
    refused(&twice, &footer);
    let mut wrong_end = footer.clone();
    wrong_end.directory_offset += 1;
    refused(&good, &wrong_end);
    let mut other_counts = footer.clone();
    other_counts.chunks -= 1;
    refused(&good, &other_counts);
    for len in [0, 28, (CHUNK_BYTES + 29) as u32] {
        let (bad, footer) = directory(&[29, len], &[]);
        refused(&bad, &footer);
        let (bad, footer) = directory(&[], &[29, len]);
        refused(&bad, &footer);
    }
}

#[test]
fn footers_whose_numbers_do_not_fit_are_refused() {
    let (_, good) = directory(&[29], &[]);
    let forged = |change: &dyn Fn(&mut Footer)| {
        let mut footer = good.clone();
        change(&mut footer);
        Footer::open(&keys(1), SEQ, &footer.seal(&keys(1), &mut SimEntropy::new(1)))
    };
    assert!(forged(&|_| ()).is_ok());
    let malformed = |outcome| matches!(outcome, Err(PackError::Malformed(_)));
    assert!(malformed(forged(&|footer| footer.segments = 0)));
    assert!(malformed(forged(&|footer| footer.segments = 1001)));
    assert!(malformed(forged(&|footer| footer.directory_offset = 91)));
    assert!(malformed(forged(&|footer| footer.directory_offset = u64::MAX)));
    assert!(malformed(forged(
        &|footer| footer.directory_offset = SEGMENT_BYTES as u64 - 92
    )));
    assert!(malformed(forged(&|footer| footer.chunks = u32::MAX)));
    assert!(malformed(forged(&|footer| footer.deltas = u32::MAX)));
    assert!(malformed(forged(&|footer| footer.previous = footer.seq)));
}

proptest! {
    /// Behind a valid seal anything may stand: it is refused, or it is the one encoding of what was read.
    #[test]
    fn any_plaintext_of_a_header_is_refused_or_canonical(
        seed in prop::collection::vec(any::<u8>(), 0..80),
        patch in prop::collection::vec((0usize..64, any::<u8>()), 0..4),
        patched: bool,
    ) {
        let mut plain = seed;
        if patched {
            plain = plain_of(FrameKind::Header, &header().seal(&keys(1), &mut SimEntropy::new(2)));
            for (at, byte) in patch {
                plain[at] = byte;
            }
        }
        if let Ok(header) = Header::open(&keys(1), SEQ, &forge(FrameKind::Header, 0, &plain)) {
            let again = plain_of(FrameKind::Header, &header.seal(&keys(1), &mut SimEntropy::new(8)));
            prop_assert_eq!(again, plain);
        }
    }

    #[test]
    fn any_plaintext_of_a_footer_is_refused_or_canonical(
        patch in prop::collection::vec((0usize..64, any::<u8>()), 0..6),
    ) {
        let (_, footer) = directory(&[29, 64], &[99]);
        let mut plain = plain_of(FrameKind::Footer, &footer.seal(&keys(1), &mut SimEntropy::new(2)));
        for (at, byte) in patch {
            plain[at] = byte;
        }
        if let Ok(footer) = Footer::open(&keys(1), SEQ, &forge(FrameKind::Footer, 0, &plain)) {
            let again = plain_of(FrameKind::Footer, &footer.seal(&keys(1), &mut SimEntropy::new(8)));
            prop_assert_eq!(again, plain);
            prop_assert!(footer.directory_bytes() < footer.body_bytes());
        }
    }

    #[test]
    fn any_plaintext_of_a_directory_is_refused_or_canonical(
        chunks in 0u32..4,
        deltas in 0u32..4,
        patch in prop::collection::vec((0usize..300, any::<u8>()), 0..4),
    ) {
        let lens = vec![40; chunks as usize];
        let (good, footer) = directory(&lens, &vec![50; deltas as usize]);
        let sealed = good.seal(&keys(1), SEQ, &mut SimEntropy::new(2));
        prop_assume!(!sealed.is_empty());
        let mut plain = plain_of(FrameKind::Directory, &sealed);
        for (at, byte) in patch {
            let at = at % plain.len();
            plain[at] = byte;
        }
        let forged = forge(FrameKind::Directory, 0, &plain);
        if let Ok(read) = Directory::open(&keys(1), &footer, &forged) {
            let again = plain_of(FrameKind::Directory, &read.seal(&keys(1), SEQ, &mut SimEntropy::new(8)));
            prop_assert_eq!(again, plain);
        }
    }

    #[test]
    fn random_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_, footer) = directory(&[29], &[]);
        prop_assert!(Header::open(&keys(1), SEQ, &bytes).is_err());
        prop_assert!(Footer::open(&keys(1), SEQ, &bytes).is_err());
        prop_assert!(Directory::open(&keys(1), &footer, &bytes).is_err());
    }
}
