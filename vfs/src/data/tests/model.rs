//! Random operations on a few files, compared with bytes in memory after each; and what the packs would restore.

use super::*;
use crate::data::room::ROOM;
use crate::request::SpaceChange;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

const INOS: [u64; 3] = [2, 3, 300];

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64, usize, u8),
    Truncate(u64, u64),
    Read(u64, u64, u32),
    /// Reserve, zero or punch out; the last one: the file may grow.
    Space(u64, SpaceChange, u64, usize, bool),
    /// From an inode and offset to an inode and offset.
    Copy(u64, u64, u64, u64, usize),
    Fsync(u64),
    Delete(u64),
    WriteBack,
    Seal(bool),
    Abandon,
    Confirm,
    Evict,
    /// The disk is nearly full: some of what the network has goes.
    GiveWay,
    /// The background writes back whatever is due, and fetches what is missing for it, unless the network is silent.
    Work(bool),
    /// Fetches what is missing of chunks that were written over.
    Complete,
    KeepHouse,
    Reopen,
    /// Opens a file, to be written past the daemon where it is handed out, until it is closed.
    Open(u64),
    Close(u64),
    /// The background looks at what others have open.
    Look,
    /// Killed after an fsync of everything; the store keeps this part (of 255) of what was not durable.
    Crash(u8),
}

fn ino() -> impl Strategy<Value = u64> {
    prop::sample::select(&INOS[..])
}

/// Offsets near what matters: the start, blocks, the inline limit, chunks.
fn offset() -> impl Strategy<Value = u64> {
    let anchor = prop::sample::select(vec![0, 4096, 8192, 40 * 4096, CHUNK, CHUNK + 4096, 2 * CHUNK]);
    (anchor, 0_u64..9000, any::<bool>()).prop_map(|(anchor, by, exact)| if exact { anchor } else { anchor + by })
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1_usize..5000, 2 => Just(4096), 1 => Just(8192), 1 => 100_000_usize..300_000, 1 => Just(MIB)]
}

fn space() -> impl Strategy<Value = SpaceChange> {
    prop::sample::select(vec![SpaceChange::Reserve, SpaceChange::Zero, SpaceChange::Punch])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (ino(), offset(), len(), any::<u8>()).prop_map(|(ino, at, len, seed)| Op::Write(ino, at, len, seed)),
        4 => (ino(), offset()).prop_map(|(ino, size)| Op::Truncate(ino, size)),
        4 => (ino(), offset(), 1_u32..100_000).prop_map(|(ino, at, len)| Op::Read(ino, at, len)),
        6 => (ino(), space(), offset(), len(), any::<bool>())
            .prop_map(|(ino, what, at, len, grows)| Op::Space(ino, what, at, len, grows)),
        4 => (ino(), offset(), ino(), offset(), len())
            .prop_map(|(from, from_at, to, to_at, len)| Op::Copy(from, from_at, to, to_at, len)),
        4 => (ino(), 0_u64..3, ino(), 0_u64..3, 1_usize..3)
            .prop_map(|(from, first, to, target, chunks)| {
                Op::Copy(from, first * CHUNK, to, target * CHUNK, chunks * MIB)
            }),
        1 => ino().prop_map(Op::Fsync),
        1 => ino().prop_map(Op::Delete),
        3 => Just(Op::WriteBack),
        3 => any::<bool>().prop_map(Op::Seal),
        1 => Just(Op::Abandon),
        3 => Just(Op::Confirm),
        3 => Just(Op::Evict),
        1 => Just(Op::GiveWay),
        2 => any::<bool>().prop_map(Op::Work),
        1 => Just(Op::Complete),
        2 => Just(Op::KeepHouse),
        1 => Just(Op::Reopen),
        1 => any::<u8>().prop_map(Op::Crash),
    ]
}

fn passing_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => op(),
        8 => ino().prop_map(Op::Open),
        4 => ino().prop_map(Op::Close),
        1 => Just(Op::Look),
    ]
}

/// The files as they should be. A deleted one gets another number.
struct Model {
    files: BTreeMap<u64, (u64, Vec<u8>)>,
    next: u64,
    /// Files that are open, and how: past the daemon or through it.
    open: BTreeMap<u64, Option<File>>,
}

impl Model {
    fn at(&mut self, ino: u64) -> (u64, &mut Vec<u8>) {
        let (real, bytes) = self.files.get_mut(&ino).unwrap();
        (*real, bytes)
    }

    /// The descriptor of a file that is open past the daemon.
    fn past(&self, ino: u64) -> Option<&File> {
        self.open.get(&ino)?.as_ref()
    }

    fn close(&mut self, bench: &Bench, ino: u64) {
        if let Some(file) = self.open.remove(&ino) {
            drop(file);
            bench.close(self.at(ino).0);
        }
    }

    fn close_all(&mut self, bench: &Bench) {
        INOS.into_iter().for_each(|ino| self.close(bench, ino));
        bench.data.shared().look_at_all().unwrap();
    }
}

fn step(mut bench: Bench, model: &mut Model, op: &Op) -> Bench {
    match *op {
        Op::Write(ino, at, len, seed) => {
            let data = pattern(u64::from(seed), len);
            let real = model.at(ino).0;
            match model.past(ino) {
                Some(file) => file.write_all_at(&data, at).unwrap(),
                None => bench.write(real, at, &data),
            }
            let (_, bytes) = model.at(ino);
            let end = at as usize + len;
            bytes.resize(bytes.len().max(end), 0);
            bytes[at as usize..end].copy_from_slice(&data);
        }
        Op::Truncate(ino, size) => {
            let (real, bytes) = model.at(ino);
            bench.set_size(real, size);
            bytes.resize(size as usize, 0);
        }
        Op::Read(ino, at, len) => {
            let (real, bytes) = model.at(ino);
            let end = (at as usize + len as usize).min(bytes.len());
            let expected = bytes.get(at as usize..end).unwrap_or_default();
            assert!(
                bench.try_read(real, at, len).unwrap() == expected,
                "read of {len} at {at}"
            );
        }
        Op::Space(ino, what, at, len, grows) => {
            let (real, bytes) = model.at(ino);
            let grows = grows && what != SpaceChange::Punch;
            bench.change_space(real, what, at..at + len as u64, grows).unwrap();
            let end = at as usize + len;
            if grows {
                bytes.resize(bytes.len().max(end), 0);
            }
            if what != SpaceChange::Reserve {
                let end = end.min(bytes.len());
                bytes[(at as usize).min(end)..end].fill(0);
            }
            if what == SpaceChange::Punch {
                let whole = at.next_multiple_of(BLOCK_BYTES)..(at + len as u64) / BLOCK_BYTES * BLOCK_BYTES;
                let overlaps = |data: &Range<u64>| data.start.max(whole.start) < data.end.min(whole.end);
                let data = bench.data_ranges(real);
                let inline = bench.file(real).state.read().record.inline;
                assert!(
                    inline || !data.iter().any(overlaps),
                    "punched {whole:?}, data at {data:?}"
                );
            }
        }
        Op::Copy(from, from_at, to, to_at, len) => {
            let (source, bytes) = model.at(from);
            let len = len.min(bytes.len().saturating_sub(from_at as usize));
            if len == 0 || from == to && from_at.abs_diff(to_at) < len as u64 {
                return bench;
            }
            let copied = bytes[from_at as usize..from_at as usize + len].to_vec();
            let (target, bytes) = model.at(to);
            bench.copy((source, from_at), (target, to_at), len as u64);
            let end = to_at as usize + len;
            bytes.resize(bytes.len().max(end), 0);
            bytes[to_at as usize..end].copy_from_slice(&copied);
        }
        Op::Fsync(ino) => bench.fsync(model.at(ino).0).unwrap(),
        Op::Delete(ino) => {
            model.close(&bench, ino);
            bench.delete(model.at(ino).0);
            model.files.insert(ino, (model.next, Vec::new()));
            bench.create(model.next);
            model.next += 1;
        }
        Op::WriteBack => bench.data.write_back_all().unwrap(),
        Op::Seal(forced) => bench.seal(if forced { CutCause::Forced } else { CutCause::Full }),
        Op::Abandon => bench
            .chunks
            .abandon(&*bench.data.delta_source(), CutCause::Full)
            .unwrap(),
        Op::Confirm => bench.chunks.confirm(),
        Op::Evict => {
            bench.data.evict_all().unwrap();
        }
        Op::GiveWay => {
            ROOM.set(Some(bench.data.cache_bytes().max(1)));
            bench.data.give_way();
            ROOM.set(None);
        }
        Op::Work(silent) => {
            bench.chunks.hold_back(silent);
            bench.clock.advance(bench.core.config.writeback_delay);
            while bench.data.shared().write_back_next() {}
            bench.chunks.hold_back(false);
        }
        Op::Complete => wait(crate::Later::Wait(bench.data.complete_all())).unwrap(),
        Op::KeepHouse => bench.keep_house(),
        Op::Reopen => {
            model.close_all(&bench);
            bench = bench.reopen();
        }
        Op::Open(ino) => {
            if !model.open.contains_key(&ino) {
                let file = bench.open(model.at(ino).0, true);
                model.open.insert(ino, file);
            }
        }
        Op::Close(ino) => model.close(&bench, ino),
        Op::Look => bench.data.shared().look_at_all().unwrap(),
        Op::Crash(part) => {
            for (real, _) in model.files.values() {
                bench.fsync(*real).unwrap();
            }
            // Who had a file open may live on, and go on writing to what the dead mount was given.
            let stale = std::mem::take(&mut model.open);
            if part % 2 == 0 {
                drop(stale);
            } else {
                for (ino, file) in &stale {
                    let Some(file) = file else { continue };
                    file.write_all_at(&[part; 5000], 3000).unwrap();
                    let (_, bytes) = model.at(*ino);
                    bytes.resize(bytes.len().max(8000), 0);
                    bytes[3000..8000].fill(part);
                }
            }
            let (all, durable) = bench.store.progress();
            bench = bench.crash_at(durable + (all - durable) * usize::from(part) / 255);
        }
    }
    bench
}

fn compare(bench: &Bench, model: &Model, what: &str) {
    for (real, bytes) in model.files.values() {
        let inode = bench
            .find(*real)
            .unwrap_or_else(|| panic!("{what}: inode {real} is not there"));
        assert_eq!(
            inode.state.read().record.size,
            bytes.len() as u64,
            "{what}: size of {real}"
        );
        let found = bench.content(*real);
        if let Some(at) = (0..bytes.len()).find(|&at| found[at] != bytes[at]) {
            panic!(
                "{what}: inode {real} differs from byte {at}: {} instead of {}",
                found[at], bytes[at]
            );
        }
    }
    assert_eq!(bench.data.errors(), Vec::<String>::new(), "{what}");
}

/// Where the files have data, and how many blocks they take: what is data here is data everywhere.
fn layout(bench: &Bench, model: &Model) -> Vec<(Vec<Range<u64>>, u64)> {
    let reals = model.files.values().map(|(real, _)| *real);
    reals
        .map(|real| (bench.data_ranges(real), bench.file(real).state.read().record.blocks))
        .collect()
}

/// Whatever is not zero is data.
fn holes_are_zeros(bench: &Bench, model: &Model) {
    for (real, bytes) in model.files.values() {
        let mut rest = bytes.clone();
        for data in bench.data_ranges(*real) {
            rest[data.start as usize..data.end as usize].fill(0);
        }
        assert!(rest.iter().all(|byte| *byte == 0), "a hole of inode {real} has content");
    }
}

fn blocks_add_up(bench: &Bench) {
    for (key, value) in bench.store.scan(b"i", b"i", 100).unwrap() {
        let record = records::InodeRecord::decode(&value).unwrap();
        let ino = records::parse_ino_key(&key).unwrap();
        if record.inline {
            continue;
        }
        let extents = bench.store.scan(&records::extent_prefix(ino), &[], 100).unwrap();
        let blocks: u64 = extents
            .iter()
            .map(|(_, value)| Extent::decode(value).unwrap().allocated())
            .sum();
        assert_eq!(record.blocks, blocks, "inode {ino}");
    }
}

fn run(mut bench: Bench, ops: &[Op]) {
    let mut model = Model {
        files: BTreeMap::new(),
        next: 1000,
        open: BTreeMap::new(),
    };
    for ino in INOS {
        bench.create(ino);
        model.files.insert(ino, (ino, Vec::new()));
    }
    for op in ops {
        bench = step(bench, &mut model, op);
    }
    model.close_all(&bench);
    compare(&bench, &model, "here");
    holes_are_zeros(&bench, &model);
    // Everything to the network; then another machine that has nothing but the packs.
    bench.settle();
    bench.data.shared().persist_all().unwrap();
    blocks_add_up(&bench);
    assert_eq!(bench.data.dirty_bytes(), 0);
    let here = layout(&bench, &model);
    let restored = bench.restore();
    compare(&restored, &model, "restored");
    assert_eq!(layout(&restored, &model), here, "restored");
    // A chunk that was cut short is not what its id says: it is sent once more before it may go.
    bench.data.evict_all().unwrap();
    bench.settle();
    let report = bench.data.evict_all().unwrap();
    assert_eq!((report.kept_unconfirmed_chunks, report.kept_bytes), (0, 0));
    assert_eq!(layout(&bench, &model), here, "after eviction");
    compare(&bench, &model, "after eviction");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::fakes::model_cases(60), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn plain_files_hold_what_was_written(ops in prop::collection::vec(op(), 1..30)) {
        run(Bench::new(AtRest::Plain), &ops);
    }

    #[test]
    fn sealed_files_hold_what_was_written(ops in prop::collection::vec(op(), 1..30)) {
        run(Bench::new(AtRest::Sealed), &ops);
    }

    #[test]
    fn files_written_past_the_daemon_hold_what_was_written(ops in prop::collection::vec(passing_op(), 1..40)) {
        run(Bench::passing(), &ops);
    }
}
