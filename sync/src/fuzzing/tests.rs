use super::*;
use crate::chain::SegmentHashes;
use crate::fragment_store::{Fid, Sha256Hash};
use crate::ledger::{Blocked, Column, Encoded, Intent, PackState};
use crate::limits::COLUMNS;
use crate::pack::{ChunkEntry, DeltaEntry};
use cessfs_crypto::{AccountId, ChunkId};
use cessfs_fuzz::{Bound, Counting, replay, seeds};
use codec::Encode;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is decoded, what it is made of again, and the sealed forms of both.
const BOUND: Bound = Bound {
    fixed: 64 << 10,
    per_byte: 16,
};

fn plain(kind: FrameKind, sealed: &[u8]) -> Vec<u8> {
    let frame = FrameId::Pack {
        seq: SEQ,
        kind,
        index: 0,
    };
    KEYS.open(frame, sealed).expect("sealed just now")
}

/// The pack of the worked example in `docs/FORMAT-packs.md`.
#[test]
fn packs() {
    let header = Header {
        volume: VolumeId([1; 16]),
        seq: SEQ,
        epoch: 3,
        kind: PackKind::Data,
    };
    let footer = Footer {
        seq: SEQ,
        kind: PackKind::Data,
        segments: 1,
        directory_offset: 253,
        chunks: 1,
        deltas: 1,
        previous: PackSeq(8),
        sealed_at_s: 1_700_000_000,
    };
    let example = Directory {
        chunks: vec![ChunkEntry {
            id: ChunkId([5; 32]),
            offset: 92,
            len: 33,
        }],
        deltas: vec![DeltaEntry { offset: 125, len: 128 }],
    };
    let many = Directory {
        chunks: (0..20)
            .map(|i| ChunkEntry {
                id: ChunkId([i; 32]),
                offset: 92 + 40 * u64::from(i),
                len: 40,
            })
            .collect(),
        deltas: Vec::new(),
    };
    let entries = |directory: &Directory| {
        let counts = [directory.chunks.len() as u16, directory.deltas.len() as u16]
            .map(u16::to_le_bytes)
            .concat();
        let sealed = directory.seal(&KEYS, SEQ, &mut Zeros);
        [vec![2], counts, plain(FrameKind::Directory, &sealed)].concat()
    };
    let sealed_header = header.seal(&KEYS, &mut Zeros);
    let sealed_footer = footer.seal(&KEYS, &mut Zeros);
    let behind = |which: u8, plain: Vec<u8>| [vec![which], plain].concat();
    seeds(
        "pack",
        &[
            ("header", behind(0, plain(FrameKind::Header, &sealed_header))),
            ("footer", behind(1, plain(FrameKind::Footer, &sealed_footer))),
            ("directory", entries(&example)),
            ("directory-chunks", entries(&many)),
            ("unsealed", behind(3, vec![7; 92])),
        ],
    );
    let reached = entries(&example);
    let opened = Directory::open(&KEYS, &footer, &example.seal(&KEYS, SEQ, &mut Zeros));
    assert_eq!(opened.as_ref(), Ok(&example));
    directory(&reached[1..]);
    replay("pack", pack, BOUND);
}

fn record(state: PackState) -> PackRecord {
    let segment = SegmentHashes {
        segment: Sha256Hash([1; 32]),
        fragments: std::array::from_fn(|i| Sha256Hash([i as u8; 32])),
    };
    PackRecord {
        seq: SEQ,
        kind: PackKind::Data,
        epoch: 1,
        segments: 1,
        chunks: 3,
        deltas: 1,
        delta_bytes: 300,
        label: "a label".into(),
        territory: "docs".into(),
        state,
        blocked: Some(Blocked::FewMiners { willing: 3, wanted: 12 }),
        encoded: (state != PackState::Sealed).then(|| Encoded {
            fid: Fid([3; 32]),
            segments: vec![segment],
        }),
        intent: Some(Intent { height: 7, attempt: 1 }),
        columns: [Column {
            miner: Some(AccountId([4; 32])),
            delivered: true,
        }; COLUMNS],
        sealed_at_s: 1_700_000_000,
        changed_at_s: 1_700_000_001,
        drain: None,
        stands_for: None,
        beside: false,
    }
}

#[test]
fn journal_records() {
    let place = Place {
        seq: SEQ,
        offset: 92,
        len: 33,
    };
    seeds(
        "ledger",
        &[
            ("sealed", record(PackState::Sealed).encode()),
            ("confirmed", record(PackState::Confirmed).encode()),
            ("place", place.encode()),
        ],
    );
    replay("ledger", ledger, BOUND);
}

fn hex64(byte: u8) -> Vec<u8> {
    hex::encode([byte; 32]).into_bytes()
}

/// SCALE written out by the types of facts 1.3.
#[test]
fn chain_values() {
    let text = |text: &str| text.as_bytes().to_vec().encode();
    let brief = [vec![0xa1; 32], text("a label"), text("home")].concat();
    let segment = [hex64(1), vec![12 << 2], (2..14).flat_map(hex64).collect()].concat();
    let reports = [vec![2 << 2], vec![1], vec![0x71; 32], vec![12], vec![0x72; 32]].concat();
    let deal = [
        vec![0],
        (64u128 << 20).encode(),
        vec![1 << 2],
        segment,
        brief.clone(),
        reports,
    ]
    .concat();
    let fragment = |byte: u8| [hex64(byte), vec![1, 0], vec![byte; 32]].concat();
    let mut file = [vec![1, 1 << 2], hex64(1), vec![12 << 2]].concat();
    (2..14).for_each(|byte| file.extend(fragment(byte)));
    file.extend([vec![1 << 2], brief, (64u128 << 20).encode(), 900u32.encode(), vec![0]].concat());
    let entry = [text("home"), hex64(0xf1), (96u128 << 20).encode()].concat();
    let list = [vec![2, 2 << 2], entry.clone(), entry].concat();
    let numbers = [100u128, 20, 30, 50].map(|number| number.encode()).concat();
    let territory = [vec![3], vec![0x70; 32], numbers, 7u32.encode(), 8u32.encode(), vec![0]].concat();
    let mut miner = [vec![4], vec![1; 32], vec![2; 32], text("1.2.3.4:15001\0\0")].concat();
    miner.extend([1u128.encode(), 2u128.encode(), text("positive")].concat());
    miner.extend([3u128, 77, 5, 6].map(|number| number.encode()).concat());
    miner.extend(vec![0; 1 + 256 * 8 + 64]);
    let account = [vec![5], 4u32.encode(), vec![0; 12], 99u128.encode(), vec![0; 48]].concat();
    seeds(
        "chain",
        &[
            ("deal", deal),
            ("file", file),
            ("list", list),
            ("territory", territory),
            ("miner", miner),
            ("account", account),
        ],
    );
    replay("chain", chain, BOUND);
}

#[test]
fn miner_answers() {
    let answer = |status: u16, want: u16, kind: &str, body: &[u8]| {
        let head = [(status - 100).to_le_bytes(), want.to_le_bytes()].concat();
        [head, vec![kind.len() as u8], kind.into(), body.to_vec()].concat()
    };
    let json = "application/json; charset=utf-8";
    seeds(
        "miner",
        &[
            (
                "status",
                answer(
                    200,
                    0,
                    json,
                    br#"{"code":200,"msg":"ok","data":{"state":"positive","cpus":4}}"#,
                ),
            ),
            (
                "missing",
                answer(200, 9, json, br#"{"code":404,"msg":"not found","data":null}"#),
            ),
            (
                "refused",
                answer(403, 0, json, br#"{"code":403,"msg":{"why":"bad signature"}}"#),
            ),
            ("page", answer(502, 0, "text/html", b"<html>bad gateway</html>")),
            (
                "bytes",
                answer(206, 16, "application/octet-stream", b"0123456789abcdef"),
            ),
            (
                "control",
                answer(200, 0, json, br#"{"code":500,"msg":"\u001b[31mred\u0007"}"#),
            ),
        ],
    );
    // What is asked for is reserved at once: here up to 64 KiB, in life up to a fragment.
    let bound = Bound {
        fixed: BOUND.fixed + (64 << 10),
        ..BOUND
    };
    replay("miner", miner, bound);
}
