use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    let journal = Journal::new(fake.clone(), None);
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
    let journal = Journal::new(fake.clone(), None);
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
    let journal = Journal::new(fake.clone(), None);
    journal.commit(put("a", "1")).unwrap();
    journal.barrier().unwrap();
    fake.fails.store(true, Ordering::SeqCst);
    journal.commit(put("a", "2")).unwrap();
    assert!(matches!(journal.barrier(), Err(StoreError::Full)));
    assert!(matches!(journal.commit(put("a", "3")), Err(StoreError::Poisoned)));
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
    let journal = Journal::new(fake.clone(), Some(Sealer::new(keys, Box::new(Counter(9)))));
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
        let journal = Journal::new(fake.clone(), None);
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
