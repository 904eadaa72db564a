//! What hostile bytes must not do to packs, to records of packs, to values from the chain and to answers of miners.
//!
//! Each function takes any input and panics where a promise is broken. They run over `fuzz/corpus` in the tests below, and
//! under cargo-fuzz. Nobody can make a frame that opens without the keys, so `pack` seals its input first: what is tested is
//! the decoder behind the seal.

use crate::ledger::{PackRecord, Place};
use crate::limits::{DIRECTORY_FRAME_BYTES, SEGMENT_BYTES};
use crate::pack::{Directory, Footer, HEADER_SEALED_BYTES, Header, directory_sealed_bytes, pieces};
use cessfs_crypto::{Entropy, FrameId, FrameKind, PackKind, PackSeq, Phrase, VolumeId, VolumeKeys};
use std::sync::LazyLock;

/// Number of the one pack.
const SEQ: PackSeq = PackSeq(9);

static KEYS: LazyLock<VolumeKeys> =
    LazyLock::new(|| Phrase::generate(&mut Zeros).secret().volume_keys(VolumeId([1; 16])));

/// Nothing here is a secret.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

/// Seals any plaintext as a frame of the pack.
fn forge(kind: FrameKind, index: u32, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    KEYS.seal(FrameId::Pack { seq: SEQ, kind, index }, plain, &mut Zeros, &mut out);
    out
}

/// Header, footer and directory of a pack. The first byte chooses which; a directory comes behind the numbers of chunks and
/// deltas (2 bytes each) that its footer is to name.
pub fn pack(input: &[u8]) {
    let Some((which, plain)) = input.split_first() else {
        return;
    };
    match which % 4 {
        0 => header(plain),
        1 => footer(plain),
        2 => directory(plain),
        _ => unsealed(plain),
    }
}

fn header(plain: &[u8]) {
    if let Ok(header) = Header::open(&KEYS, SEQ, &forge(FrameKind::Header, 0, plain)) {
        assert_eq!(
            header.seal(&KEYS, &mut Zeros),
            forge(FrameKind::Header, 0, plain),
            "one encoding"
        );
    }
}

fn footer(plain: &[u8]) {
    let Ok(footer) = Footer::open(&KEYS, SEQ, &forge(FrameKind::Footer, 0, plain)) else {
        return;
    };
    assert_eq!(
        footer.seal(&KEYS, &mut Zeros),
        forge(FrameKind::Footer, 0, plain),
        "one encoding"
    );
    assert!(footer.directory_offset + footer.directory_bytes() <= footer.body_bytes());
}

fn directory(input: &[u8]) {
    let Some((&[c0, c1, d0, d1], plain)) = input.split_first_chunk() else {
        return;
    };
    let (chunks, deltas) = (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([d0, d1]));
    let mut sealed = Vec::new();
    for (index, part) in (0..).zip(plain.chunks(DIRECTORY_FRAME_BYTES)) {
        sealed.extend_from_slice(&forge(FrameKind::Directory, index, part));
    }
    // Where the frames would end if they are what the entries say: else no directory gets past the first check.
    let end = plain.len().checked_sub(4).map_or(0, |at| {
        let length = u32::from_le_bytes(plain[at..].try_into().expect("four bytes"));
        let offset = at.checked_sub(8).map_or(0, |from| {
            u64::from_le_bytes(plain[from..at].try_into().expect("eight bytes"))
        });
        offset.saturating_add(u64::from(length))
    });
    let footer = Footer {
        seq: SEQ,
        kind: PackKind::Data,
        segments: (end / SEGMENT_BYTES as u64).min(999) as u32 + 1,
        directory_offset: end.max(HEADER_SEALED_BYTES as u64),
        chunks: chunks.into(),
        deltas: deltas.into(),
        previous: PackSeq(0),
        sealed_at_s: 0,
    };
    let Ok(directory) = Directory::open(&KEYS, &footer, &sealed) else {
        return;
    };
    assert_eq!(directory.seal(&KEYS, SEQ, &mut Zeros), sealed, "one encoding");
    for chunk in &directory.chunks {
        let places = pieces(chunk.offset, chunk.len);
        assert_eq!(
            places.iter().map(|place| place.range.len()).sum::<usize>(),
            chunk.len as usize
        );
    }
}

/// Without the keys nothing opens, whatever it is.
fn unsealed(bytes: &[u8]) {
    assert!(Header::open(&KEYS, SEQ, bytes).is_err());
    assert!(Footer::open(&KEYS, SEQ, bytes).is_err());
    let footer = Footer {
        seq: SEQ,
        kind: PackKind::Data,
        segments: 1,
        directory_offset: HEADER_SEALED_BYTES as u64,
        chunks: 1,
        deltas: 0,
        previous: PackSeq(0),
        sealed_at_s: 0,
    };
    assert!(Directory::open(&KEYS, &footer, bytes).is_err());
    assert_eq!(directory_sealed_bytes(0, 0), 0);
}

/// Records of packs and places of chunks in the journal: refused, or the one encoding of what was read.
pub fn ledger(input: &[u8]) {
    if let Ok(record) = PackRecord::decode(input) {
        assert_eq!(record.encode(), input, "one encoding");
    }
    if let Ok(place) = Place::decode(input) {
        assert_eq!(place.encode(), input, "one encoding");
    }
}

/// Values of the chain's storage; the first byte chooses which.
pub fn chain(input: &[u8]) {
    crate::chain::subxt::fuzzing::value(input);
}

/// An answer of a miner; see the function.
pub fn miner(input: &[u8]) {
    crate::fragment_store::http::fuzzing::answer(input);
}

#[cfg(test)]
mod tests;
