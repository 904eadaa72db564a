use super::*;
use cessfs_crypto::Entropy;
use proptest::prelude::*;
use std::sync::atomic::AtomicBool;

/// A backend in memory whose writer can be held, and which can be told to fail.
#[derive(Default)]
struct Fake {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    held: Mutex<bool>,
    released: Condvar,
    fails: AtomicBool,
    applies: AtomicUsize,
    flushes: AtomicUsize,
}

impl Fake {
    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.released.notify_all();
    }
}

impl Backend for Arc<Fake> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.map.lock().get(key).cloned())
    }
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let map = self.map.lock();
        let found = map
            .range(from.max(prefix).to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix));
        Ok(found
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut held = self.held.lock();
        while *held {
            self.released.wait(&mut held);
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Full);
        }
        self.applies.fetch_add(1, Ordering::SeqCst);
        let mut map = self.map.lock();
        for (key, value) in batch.ops {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn size_bytes(&self) -> Result<u64, StoreError> {
        Ok(0)
    }
}

fn put(key: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

#[test]
fn reads_see_a_commit_before_the_writer_does() {
    let fake = Arc::new(Fake::default());
    fake.hold(true);
    let journal = Journal::new(fake.clone(), None).unwrap();
    journal.commit(put("a", "1")).unwrap();
    assert_eq!(journal.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(fake.map.lock().is_empty());
    fake.hold(false);
    journal.barrier().unwrap();
    assert_eq!(fake.map.lock().get(&b"a"[..]).map(Vec::as_slice), Some(&b"1"[..]));
}

#[test]
fn commits_that_queue_up_are_one_batch_and_one_flush() {
    let fake = Arc::new(Fake::default());
    let journal = Journal::new(fake.clone(), None).unwrap();
    fake.hold(true);
    journal.commit(put("first", "taken at once")).unwrap();
    for i in 0..100 {
        journal.commit(put(&format!("k{i}"), "v")).unwrap();
    }
    fake.hold(false);
    journal.barrier().unwrap();
    assert!(
        fake.applies.load(Ordering::SeqCst) <= 3,
        "101 commits took {:?} batches",
        fake.applies
    );
    assert!(fake.flushes.load(Ordering::SeqCst) <= 2);
}

#[test]
fn a_failed_write_fails_the_barrier_and_every_later_change() {
    let fake = Arc::new(Fake::default());
    let journal = Journal::new(fake.clone(), None).unwrap();
    journal.commit(put("a", "1")).unwrap();
    journal.barrier().unwrap();
    fake.fails.store(true, Ordering::SeqCst);
    journal.commit(put("a", "2")).unwrap();
    assert!(matches!(journal.barrier(), Err(StoreError::Full)));
    assert!(
        matches!(journal.commit(put("a", "3")), Err(StoreError::Full)),
        "and why"
    );
    assert_eq!(
        journal.get(b"a").unwrap().as_deref(),
        Some(&b"2"[..]),
        "reads still answer"
    );
}

#[test]
fn sealed_values_do_not_show_in_the_backend() {
    struct Counter(u8);
    impl Entropy for Counter {
        fn fill(&mut self, out: &mut [u8]) {
            self.0 += 1;
            out.fill(self.0);
        }
    }
    let keys = cessfs_crypto::Phrase::generate(&mut Counter(0))
        .secret()
        .volume_keys(cessfs_crypto::VolumeId([7; 16]))
        .at_rest();
    let fake = Arc::new(Fake::default());
    let journal = Journal::new(fake.clone(), Some(Sealer::new(keys, Box::new(Counter(9))))).unwrap();
    journal.commit(put("name", "a plaintext value")).unwrap();
    journal.barrier().unwrap();
    let stored = fake.map.lock().get(&b"name"[..]).cloned().unwrap();
    assert!(!stored.windows(9).any(|bytes| bytes == b"plaintext"));
    assert_eq!(
        journal.get(b"name").unwrap().as_deref(),
        Some(&b"a plaintext value"[..])
    );
    let moved = fake.map.lock().remove(&b"name"[..]).unwrap();
    fake.map.lock().insert(b"other".to_vec(), moved);
    assert!(
        matches!(journal.get(b"other"), Err(StoreError::Corrupt(_))),
        "a value is bound to its key"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Commit(Vec<(u8, Option<u8>)>),
    Hold(bool),
    Barrier,
    Scan(u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::collection::vec((0..20u8, prop::option::of(any::<u8>())), 1..6).prop_map(Op::Commit),
        1 => any::<bool>().prop_map(Op::Hold),
        1 => Just(Op::Barrier),
        4 => (0..20u8, 1..8u8).prop_map(|(from, limit)| Op::Scan(from, limit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_map_whatever_the_writer_does(ops in prop::collection::vec(op(), 1..60)) {
        let fake = Arc::new(Fake::default());
        let journal = Journal::new(fake.clone(), None).unwrap();
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
                Op::Hold(held) => fake.hold(held),
                Op::Barrier => { fake.hold(false); journal.barrier().unwrap(); prop_assert_eq!(&*fake.map.lock(), &model); }
                Op::Scan(from, limit) => {
                    let from = vec![b'k', from];
                    let expected: Vec<Record> = model.range(from.clone()..).take(limit as usize).map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(journal.scan(b"k", &from, limit as usize).unwrap(), expected);
                }
            }
        }
        fake.hold(false);
    }
}

const SMALL: LogSettings = LogSettings {
    segment_bytes: 4096,
    synced: true,
};

/// The backend and the files beside it, as a kill of the process leaves them.
fn killed(fake: &Fake, dir: &Path) -> (Arc<Fake>, tempfile::TempDir) {
    let image = tempfile::tempdir().unwrap();
    // The log first: the table may be brought up to date meanwhile, and then needs nothing that the copy of the log lacks.
    for name in ["log", "mark"] {
        std::fs::copy(dir.join(name), image.path().join(name)).unwrap();
    }
    let map = Mutex::new(fake.map.lock().clone());
    let fake = Fake { map, ..Fake::default() };
    (Arc::new(fake), image)
}

#[test]
fn what_a_barrier_promised_outlives_a_kill_while_the_table_has_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    fake.hold(true);
    let before = fake.map.lock().clone();
    for i in 0..20 {
        journal.commit(put(&format!("k{i}"), &format!("v{i}"))).unwrap();
        journal.barrier().unwrap();
    }
    assert_eq!(*fake.map.lock(), before, "no barrier waited for the table");
    let (after, image) = killed(&fake, dir.path());
    let again = Journal::logged(after, None, image.path(), SMALL).unwrap();
    for i in 0..20 {
        let value = again.get(format!("k{i}").as_bytes()).unwrap();
        assert_eq!(value, Some(format!("v{i}").into_bytes()));
    }
    fake.hold(false);
}

/// Lets every later write to the log fail.
fn break_log(journal: &Journal<Arc<Fake>>, dir: &Path) {
    let mut writer = journal.shared.writer.lock();
    writer.log.as_mut().unwrap().break_file(dir);
}

#[test]
fn what_was_put_down_outlives_a_kill_without_a_flush_or_a_wait_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    fake.hold(true);
    journal.barrier().unwrap();
    // Somebody is in the middle of a flush.
    let flushing = journal.shared.marking.lock();
    for i in 0..20 {
        journal.commit(put(&format!("k{i}"), &format!("v{i}"))).unwrap();
        journal.put_down().unwrap();
        let (after, image) = killed(&fake, dir.path());
        let again = Journal::logged(after, None, image.path(), SMALL).unwrap();
        let value = again.get(format!("k{i}").as_bytes()).unwrap();
        assert_eq!(value, Some(format!("v{i}").into_bytes()));
    }
    drop(flushing);
    assert!(journal.shared.queue.lock().durable < 20, "nobody asked for the disk");
    break_log(&journal, dir.path());
    journal.commit(put("a", "2")).unwrap();
    assert!(matches!(journal.put_down(), Err(StoreError::Io(_))));
    assert!(matches!(journal.put_down(), Err(StoreError::Io(_))));
    fake.hold(false);
}

#[test]
fn the_table_follows_when_a_segment_is_full_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    let mut model = BTreeMap::new();
    for i in 0..300u32 {
        let (key, value) = (format!("k{}", i % 40), "x".repeat(i as usize));
        journal.commit(put(&key, &value)).unwrap();
        model.insert(key.into_bytes(), value.into_bytes());
        if i % 3 == 0 {
            journal.barrier().unwrap();
        }
        if i % 50 == 0 {
            let large = "y".repeat(10_000);
            journal.commit(put("large", &large)).unwrap();
            model.insert(b"large".to_vec(), large.into_bytes());
        }
    }
    let applies = fake.applies.load(Ordering::SeqCst);
    assert!(applies > 5, "the table was never brought up to date");
    assert!(applies < 100, "the table was brought up to date {applies} times");
    drop(journal);
    let mut map = fake.map.lock().clone();
    let state = LogState::decode(&map.remove(LOG_KEY).unwrap()).unwrap();
    assert!(!state.in_use);
    map.remove(MARK_KEY).unwrap();
    assert_eq!(map, model);
}

#[test]
fn a_failed_append_fails_the_barrier_and_everything_before_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    journal.commit(put("a", "1")).unwrap();
    journal.barrier().unwrap();
    break_log(&journal, dir.path());
    journal.commit(put("a", "2")).unwrap();
    assert!(matches!(journal.barrier(), Err(StoreError::Io(_))));
    assert!(matches!(journal.commit(put("a", "3")), Err(StoreError::Poisoned)));
    assert!(journal.barrier().is_err());
    drop(journal);
    let again = Journal::logged(fake, None, dir.path(), SMALL).unwrap();
    assert_eq!(again.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn what_the_table_refused_is_still_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    fake.fails.store(true, Ordering::SeqCst);
    let mut told = 0;
    for i in 0..10_000u32 {
        let committed = journal.commit(put(&format!("k{i}"), "a value"));
        if committed.and_then(|()| journal.barrier()).is_err() {
            break;
        }
        told = i;
    }
    assert!(
        told > 10 && told < 9_999,
        "the table's failure has to be noticed: {told}"
    );
    drop(journal);
    fake.fails.store(false, Ordering::SeqCst);
    let again = Journal::logged(fake, None, dir.path(), SMALL).unwrap();
    for i in 0..=told {
        assert!(again.get(format!("k{i}").as_bytes()).unwrap().is_some(), "k{i}");
    }
}

#[test]
fn a_log_that_lost_what_was_marked_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    fake.hold(true);
    journal.commit(put("a", "1")).unwrap();
    journal.barrier().unwrap();
    for damage in [&b"\0\0\0\0"[..], b"CFSL\xff\xff\xff\xff"] {
        let (after, image) = killed(&fake, dir.path());
        let path = image.path().join("log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..damage.len()].copy_from_slice(damage);
        std::fs::write(&path, &bytes).unwrap();
        let before = after.map.lock().clone();
        let opened = Journal::logged(after.clone(), None, image.path(), SMALL);
        assert!(matches!(opened, Err(StoreError::Corrupt(why)) if why.contains("safe once")));
        assert_eq!(*after.map.lock(), before);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        std::fs::remove_file(&path).unwrap();
        let opened = Journal::logged(after, None, image.path(), SMALL);
        assert!(matches!(opened, Err(StoreError::Corrupt(why)) if why.contains("not there")));
    }
    fake.hold(false);
}

#[test]
fn many_threads_share_flushes_and_each_finds_its_own_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let journal = Journal::logged(fake.clone(), None, dir.path(), SMALL).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journal = &journal;
            scope.spawn(move || {
                for i in 0..200 {
                    journal.commit(put(&format!("{thread}/{i}"), "v")).unwrap();
                    match i % 4 {
                        0 => journal.barrier().unwrap(),
                        1 => journal.end_barrier(journal.begin_barrier()).unwrap(),
                        _ => {}
                    }
                }
                journal.barrier().unwrap();
            });
        }
    });
    let (after, image) = killed(&fake, dir.path());
    let again = Journal::logged(after, None, image.path(), SMALL).unwrap();
    for thread in 0..4 {
        let found = again.scan(format!("{thread}/").as_bytes(), b"", usize::MAX).unwrap();
        assert_eq!(found.len(), 200);
    }
}
