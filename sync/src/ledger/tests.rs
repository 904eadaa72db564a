//! Records and places come back, damaged ones are refused, numbers and standings hold over restarts.

use super::*;
use crate::chain::SegmentHashes;
use crate::fragment_store::{Fid, Sha256Hash};
use crate::limits::COLUMNS;
use crate::pack::ChunkEntry;
use crate::store::MemStore;
use cessfs_crypto::{AccountId, PackKind};
use proptest::prelude::*;

fn record(seq: u64, state: PackState) -> PackRecord {
    let hashes = SegmentHashes {
        segment: Sha256Hash([1; 32]),
        fragments: std::array::from_fn(|i| Sha256Hash([i as u8; 32])),
    };
    let column = Column {
        miner: Some(AccountId([4; 32])),
        delivered: true,
    };
    PackRecord {
        seq: PackSeq(seq),
        kind: PackKind::Data,
        epoch: 2,
        segments: 1,
        chunks: 3,
        deltas: 1,
        delta_bytes: 500,
        label: "label".into(),
        territory: "main".into(),
        state,
        blocked: Some(Blocked::FewMiners { willing: 3, wanted: 12 }),
        encoded: (state > PackState::Sealed).then(|| Encoded {
            fid: Fid([9; 32]),
            segments: vec![hashes],
        }),
        intent: Some(Intent { height: 77, attempt: 1 }),
        columns: [column; COLUMNS],
        sealed_at_s: 5,
        changed_at_s: 6,
        drain: (state > PackState::Confirmed || state == PackState::Doubted).then_some(Drain {
            cause: DrainCause::Damaged,
            since_s: 7,
            checkpoint: Some(9),
        }),
        stands_for: Some(PackSeq(2)),
        beside: false,
    }
}

#[test]
fn records_come_back_in_every_state() {
    for state in PackState::ALL {
        let record = record(3, state);
        assert_eq!(PackRecord::decode(&record.encode()).expect("own encoding"), record);
    }
    let codes = PackState::ALL.map(|state| codec::Encode::encode(&state)[0]);
    assert_eq!(codes, [0, 1, 2, 3, 9, 4, 5, 6, 7, 8], "journals have them");
}

#[test]
fn records_that_break_a_promise_are_refused() {
    let mut unhashed = record(3, PackState::Declaring);
    unhashed.encoded = None;
    let mut short = record(3, PackState::Declaring);
    short.segments = 2;
    let mut homeless = record(3, PackState::Stored);
    homeless.columns[7] = Column::default();
    let mut aimless = record(3, PackState::Doubted);
    aimless.drain = None;
    for broken in [unhashed, short, homeless, aimless] {
        let read = PackRecord::decode(&broken.encode());
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    }
    assert!(PackRecord::decode(&[]).is_err());
    let mut newer = record(3, PackState::Sealed).encode();
    newer[0] = 3;
    assert!(PackRecord::decode(&newer).is_err());
}

proptest! {
    #[test]
    fn damaged_records_never_panic_and_never_have_two_encodings(
        state in 0usize..9,
        patch in prop::collection::vec((0usize..1000, any::<u8>()), 1..4),
        cut in 0usize..3,
    ) {
        let mut bytes = record(3, PackState::ALL[state]).encode();
        for (at, byte) in patch {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut);
        if let Ok(read) = PackRecord::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn places_come_back_and_nothing_else_reads(seq: u64, offset: u64, len: u32, extra in 0usize..30) {
        let place = Place { seq: PackSeq(seq), offset, len };
        let bytes = place.encode();
        prop_assert_eq!(Place::decode(&bytes).expect("own encoding"), place);
        let mut other = bytes.clone();
        other.resize(extra, 1);
        prop_assert_eq!(Place::decode(&other).is_ok(), extra == bytes.len());
    }
}

#[test]
fn numbers_are_not_used_again_even_if_packs_are_gone() {
    let store = Arc::new(MemStore::new());
    let ledger = Ledger::load(store.clone()).expect("empty store");
    assert_eq!(ledger.take_seq(), PackSeq(1));
    assert_eq!(ledger.take_seq(), PackSeq(2));
    ledger
        .insert(record(2, PackState::Sealed), Batch::new())
        .expect("insert");
    let mut gone = Batch::new();
    gone.delete(pack_key(PackSeq(2)));
    store.commit(gone).expect("commit");
    let ledger = Ledger::load(store).expect("reload");
    assert_eq!(ledger.take_seq(), PackSeq(3));
}

#[test]
fn standing_follows_the_pack() {
    let store = Arc::new(MemStore::new());
    let ledger = Ledger::load(store.clone()).expect("empty store");
    let id = ChunkId([8; 32]);
    assert_eq!(ledger.standing(id).expect("get"), Standing::Unknown);
    let entry = ChunkEntry {
        id,
        offset: 92,
        len: 40,
    };
    let mut batch = Batch::new();
    batch.put(Place::key(id), Place::new(PackSeq(1), &entry).encode());
    ledger.insert(record(1, PackState::Sealed), batch).expect("insert");
    let expected = [
        Standing::Sealed,
        Standing::Sealed,
        Standing::Sealed,
        Standing::Stored,
        Standing::Unknown,
        Standing::Confirmed,
        Standing::Unknown,
        Standing::Unknown,
        Standing::Unknown,
        Standing::Unknown,
    ];
    for (state, standing) in PackState::ALL.into_iter().zip(expected) {
        let target = record(1, state);
        let update = |pack: &mut PackRecord| *pack = target;
        ledger.update(PackSeq(1), Durable::Now, update).expect("update");
        assert_eq!(ledger.standing(id).expect("get"), standing);
        let again = Ledger::load(store.clone()).expect("reload");
        assert_eq!(again.standing(id).expect("get"), standing);
    }
    let (committed, durable) = store.progress();
    assert_eq!(committed, durable);
}
