//! What every [`Backend`] on disk promises, run over each of them, alone and under a [`Journal`].

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// A backend that a test can open, again and again.
trait OnDisk: Backend + Sized {
    fn at(dir: &Path) -> Self;
}

impl OnDisk for SledBackend {
    fn at(dir: &Path) -> SledBackend {
        SledBackend::open(dir).unwrap()
    }
}

impl OnDisk for RedbBackend {
    fn at(dir: &Path) -> RedbBackend {
        RedbBackend::open(dir).unwrap()
    }
}

/// The same test for each backend.
macro_rules! for_every_backend {
    ($($test:ident),* $(,)?) => {
        mod with_sled { $( #[test] fn $test() { super::$test::<super::SledBackend>(); } )* }
        mod with_redb { $( #[test] fn $test() { super::$test::<super::RedbBackend>(); } )* }
    };
}

for_every_backend!(
    reads_scans_and_deletes,
    a_batch_is_there_whole_after_a_reopen,
    a_barrier_survives_a_crash_and_a_crash_leaves_a_prefix,
    what_was_flushed_survives_a_torn_end,
    a_journal_over_it_behaves_like_a_map,
    the_size_tells_of_the_disk,
    a_database_behind_its_mark_is_refused,
    with_a_log_a_crash_after_any_barrier_keeps_everything,
    a_volume_from_before_the_log_gets_one,
);

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

/// The files as a crash of the process would leave them: copied while the database is open.
fn crash_image(dir: &Path) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    copy_tree(dir, image.path());
    image
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = {
            let e = entry.unwrap();
            (e.path(), to.join(e.file_name()))
        };
        if path.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_tree(&path, &to);
        } else if std::fs::copy(&path, &to).is_err() {
            // sled replaces its snapshot files while it runs: one that went away is one a crash would not have left.
            assert!(!path.exists(), "{} cannot be copied", path.display());
        }
    }
}

fn reads_scans_and_deletes<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    let backend = B::at(dir.path());
    let mut batch = Batch::new();
    for i in 0..300u32 {
        batch.put(format!("k{i:03}"), i.to_le_bytes());
    }
    batch.put("l", "beyond the prefix");
    backend.apply(batch).unwrap();
    assert_eq!(backend.get(b"k007").unwrap(), Some(7u32.to_le_bytes().to_vec()));
    assert_eq!(backend.get(b"k").unwrap(), None);
    let all = backend.scan(b"k", b"", 1000).unwrap();
    assert_eq!(all.len(), 300);
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let page = backend.scan(b"k", b"k100", 5).unwrap();
    assert_eq!(
        page.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(),
        [b"k100", b"k101", b"k102", b"k103", b"k104"]
    );
    assert_eq!(backend.scan(b"k", b"k299", 5).unwrap().len(), 1);
    assert!(backend.scan(b"m", b"", 5).unwrap().is_empty());
    let mut batch = Batch::new();
    batch.delete("k100");
    batch.delete("not there");
    batch.put("k101", "");
    backend.apply(batch).unwrap();
    assert_eq!(backend.get(b"k100").unwrap(), None);
    assert_eq!(
        backend.get(b"k101").unwrap(),
        Some(Vec::new()),
        "an empty value is a value"
    );
}

fn a_batch_is_there_whole_after_a_reopen<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    {
        let journal = Journal::new(B::at(dir.path()), None).unwrap();
        for i in 0..500u32 {
            journal
                .commit(put(&format!("k{i:04}"), &"x".repeat(i as usize)))
                .unwrap();
        }
        let mut batch = Batch::new();
        batch.delete("k0007");
        journal.commit(batch).unwrap();
        journal.barrier().unwrap();
    }
    let journal = Journal::new(B::at(dir.path()), None).unwrap();
    let all = journal.scan(b"k", b"", 1000).unwrap();
    assert_eq!(all.len(), 499);
    assert_eq!(all[8].1.len(), 9);
}

/// Two keys change together, over and over; now and then a barrier. Whatever moment the files are copied at, both keys
/// agree, and are at least as new as the last barrier that returned before.
fn a_barrier_survives_a_crash_and_a_crash_leaves_a_prefix<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::new(B::at(dir.path()), None).unwrap();
    for round in 0..6u32 {
        for step in 0..200u32 {
            let value = (round * 200 + step).to_be_bytes();
            let mut batch = Batch::new();
            batch.put("a", value);
            batch.put(format!("pad{:04}", round * 200 + step), vec![7; 300]);
            batch.put("z", value);
            journal.commit(batch).unwrap();
        }
        journal.barrier().unwrap();
        let least = round * 200 + 199;
        journal.commit(put("a", "half of a pair, behind the barrier")).unwrap();
        journal.commit(put("a", std::str::from_utf8(b"more").unwrap())).unwrap();
        let image = crash_image(dir.path());
        let after = B::at(image.path());
        let z = after.get(b"z").unwrap().unwrap();
        assert_eq!(z, least.to_be_bytes(), "round {round}");
        assert_eq!(after.scan(b"pad", b"", usize::MAX).unwrap().len(), least as usize + 1);
        drop(after);
    }
}

/// A file whose end never reached the disk must not take the durable part with it.
fn what_was_flushed_survives_a_torn_end<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    let backend = B::at(dir.path());
    backend.apply(put("durable", "yes")).unwrap();
    backend.flush().unwrap();
    let image = crash_image(dir.path());
    drop(backend);
    for round in 0..3 {
        let backend = B::at(image.path());
        assert_eq!(
            backend.get(b"durable").unwrap().as_deref(),
            Some(&b"yes"[..]),
            "open {round}"
        );
        backend.apply(put("loose", "maybe")).unwrap();
    }
}

fn the_size_tells_of_the_disk<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    let backend = B::at(dir.path());
    let mut batch = Batch::new();
    for i in 0..2000u32 {
        // Nothing to compress.
        batch.put(i.to_be_bytes(), i.wrapping_mul(2_654_435_761).to_be_bytes().repeat(256));
    }
    backend.apply(batch).unwrap();
    backend.flush().unwrap();
    assert!(backend.size_bytes().unwrap() >= 2000 * 1024);
}

#[derive(Clone, Debug)]
enum Op {
    Commit(Vec<(u8, Option<u8>)>),
    Barrier,
    Reopen,
    Scan(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec((0..20u8, prop::option::of(any::<u8>())), 1..6).prop_map(Op::Commit),
        1 => Just(Op::Barrier),
        1 => Just(Op::Reopen),
        4 => (0..20u8, 1..8u8).prop_map(|(from, limit)| Op::Scan(from, limit)),
    ]
}

fn a_journal_over_it_behaves_like_a_map<B: OnDisk>() {
    let config = ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(ops in prop::collection::vec(op(), 1..40))| {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(B::at(dir.path()), None).unwrap();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Commit(changes) => {
                    let mut batch = Batch::new();
                    for (key, value) in changes {
                        let key = vec![b'k', key];
                        match value {
                            Some(value) => { batch.put(key.clone(), vec![value]); model.insert(key, vec![value]); }
                            None => { batch.delete(key.clone()); model.remove(&key); }
                        }
                    }
                    journal.commit(batch).unwrap();
                }
                Op::Barrier => journal.barrier().unwrap(),
                Op::Reopen => { drop(journal); journal = Journal::new(B::at(dir.path()), None).unwrap(); }
                Op::Scan(from, limit) => {
                    let from = vec![b'k', from];
                    let expected: Vec<Record> =
                        model.range(from.clone()..).take(limit as usize).map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(journal.scan(b"k", &from, limit as usize).unwrap(), expected);
                }
            }
        }
    });
}

/// A database that fell back to an older state is refused, and a lost mark proves nothing.
fn a_database_behind_its_mark_is_refused<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &Path| Journal::marked(B::at(dir), None, dir, None);
    let write = |value: &str| {
        let journal = open(dir.path()).unwrap();
        journal.commit(put("k", value)).unwrap();
        journal.barrier().unwrap();
    };
    write("one");
    let older = crash_image(dir.path());
    write("two");
    let mark = std::fs::read(dir.path().join("mark")).unwrap();
    assert_eq!(
        open(dir.path()).unwrap().get(b"k").unwrap().as_deref(),
        Some(&b"two"[..])
    );
    std::fs::write(older.path().join("mark"), mark).unwrap();
    assert!(matches!(open(older.path()), Err(StoreError::Corrupt(why)) if why.contains("safe once")));
    std::fs::remove_file(older.path().join("mark")).unwrap();
    assert_eq!(
        open(older.path()).unwrap().get(b"k").unwrap().as_deref(),
        Some(&b"one"[..])
    );
}

/// Segments so small that they are written over and over, and batches that fit none; crashes while the table is behind.
fn with_a_log_a_crash_after_any_barrier_keeps_everything<B: OnDisk>() {
    let settings = LogSettings {
        segment_bytes: 8192,
        synced: true,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::logged(B::at(dir.path()), None, dir.path(), settings).unwrap();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0..120u32 {
        for step in 0..5 {
            let number = round * 5 + step;
            let key = format!("k{:03}", number.wrapping_mul(2_654_435_761) % 200).into_bytes();
            let mut batch = Batch::new();
            if number % 4 == 3 {
                batch.delete(key.clone());
                model.remove(&key);
            } else {
                let bytes = if number % 97 == 0 { 9000 } else { number as usize % 400 };
                batch.put(key.clone(), vec![number as u8; bytes]);
                model.insert(key, vec![number as u8; bytes]);
            }
            batch.put("last", number.to_le_bytes());
            model.insert(b"last".to_vec(), number.to_le_bytes().to_vec());
            journal.commit(batch).unwrap();
        }
        journal.barrier().unwrap();
        let expected: Vec<Record> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        if round % 10 == 5 {
            let image = crash_image(dir.path());
            let after = Journal::logged(B::at(image.path()), None, image.path(), settings).unwrap();
            assert!(
                after.scan(b"", b"a", 1000).unwrap() == expected,
                "round {round}: after a crash"
            );
        }
        if round % 30 == 29 {
            drop(journal);
            journal = Journal::logged(B::at(dir.path()), None, dir.path(), settings).unwrap();
        }
        assert!(journal.scan(b"", b"a", 1000).unwrap() == expected, "round {round}");
    }
}

fn a_volume_from_before_the_log_gets_one<B: OnDisk>() {
    let dir = tempfile::tempdir().unwrap();
    {
        let journal = Journal::new(B::at(dir.path()), None).unwrap();
        journal.commit(put("k", "old")).unwrap();
        journal.barrier().unwrap();
    }
    assert!(!dir.path().join("log").exists());
    for value in ["new", "newer"] {
        let journal = Journal::marked(B::at(dir.path()), None, dir.path(), None).unwrap();
        assert!(dir.path().join("log").exists());
        journal.commit(put("k", value)).unwrap();
        journal.barrier().unwrap();
        assert_eq!(journal.get(b"k").unwrap().as_deref(), Some(value.as_bytes()));
    }
    let plain = Journal::new(B::at(dir.path()), None).unwrap();
    assert_eq!(
        plain.get(b"k").unwrap().as_deref(),
        Some(&b"newer"[..]),
        "the table has it"
    );
}
