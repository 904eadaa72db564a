//! Every chunk that a file names is visited, and what is lost is named.

use crate::attr::FileKind;
use crate::fakes::bench::{BOTH, Bench, pattern};
use crate::records::{self, Dentry, DentryBucket};
use cessfs_crypto::ChunkId;
use cessfs_sync::{Batch, CutCause, MetaStore};
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

const MIB: usize = 1 << 20;

fn live(bench: &Bench) -> BTreeSet<ChunkId> {
    let mut ids = BTreeSet::new();
    let source = bench.data.delta_source();
    let mut insert = |id| {
        ids.insert(id);
    };
    assert!(source.live(&mut insert).unwrap());
    ids
}

fn stored(bench: &Bench, ino: u64, chunk: u64) -> ChunkId {
    bench.extent(ino, chunk).unwrap().stored.unwrap().0
}

#[test]
fn what_files_name_lives_and_what_was_overwritten_or_deleted_does_not() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.create(6);
        bench.write(5, 0, &pattern(1, 2 * MIB));
        bench.write(6, 0, &pattern(9, MIB));
        assert!(live(&bench).is_empty(), "nothing was submitted");
        bench.data.write_back_all().unwrap();
        let submitted = live(&bench);
        assert_eq!(submitted.len(), 3, "what is in the open pack lives");
        bench.settle();
        assert_eq!(live(&bench), submitted);

        let old = stored(&bench, 5, 0);
        bench.write(5, 0, &pattern(2, MIB));
        bench.fsync(5).unwrap();
        assert!(
            live(&bench).contains(&old),
            "until the new content is in a pack it is what is told"
        );
        bench.settle();
        assert!(!live(&bench).contains(&old));
        bench.copy((6, 0), (5, 2 * MIB as u64), MIB as u64);
        bench.delete(6);
        bench.keep_house();
        let expected: BTreeSet<ChunkId> = (0..3).map(|chunk| stored(&bench, 5, chunk)).collect();
        assert_eq!(live(&bench), expected, "a copy keeps the chunk that its source named");
        // Nothing of this is a cut: the next delta carries everything.
        bench.seal(CutCause::Forced);
        assert_eq!(bench.restore().content(5)[..2 * MIB], bench.content(5)[..2 * MIB]);
    }
}

/// A chunk goes from file to file, ahead of whoever looks; in no look may it be missed.
#[test]
fn a_chunk_that_moves_between_files_during_the_look_is_not_missed() {
    let bench = Bench::new(crate::core::AtRest::Plain);
    for ino in 5..9 {
        bench.create(ino);
    }
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    let id = stored(&bench, 5, 0);
    let (stop, rounds) = (AtomicBool::new(false), 200);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut from = 5;
            while !stop.load(Ordering::SeqCst) {
                let to = if from == 8 { 5 } else { from + 1 };
                bench.copy((from, 0), (to, 0), MIB as u64);
                bench.set_size(from, 0);
                from = to;
            }
        });
        for round in 0..rounds {
            let seen = live(&bench).contains(&id);
            if !seen || round + 1 == rounds {
                stop.store(true, Ordering::SeqCst);
            }
            assert!(seen, "round {round}");
        }
        mover.join().unwrap();
    });
}

#[test]
fn the_cache_gives_what_it_has_and_only_that() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 3 * MIB));
        bench.settle();
        let ids: Vec<ChunkId> = (0..3).map(|chunk| stored(&bench, 5, chunk)).collect();
        bench.write(5, MIB as u64, &pattern(7, MIB));
        bench.fsync(5).unwrap();
        let source = bench.data.delta_source();
        let mut given = Vec::new();
        let wanted = |id| id != ids[2];
        source
            .cached(&wanted, &mut |id, bytes| {
                given.push((id, bytes.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(
            given,
            [(ids[0], pattern(1, MIB))],
            "not what was written over, not what nobody wants"
        );
        bench.settle();
        bench.data.evict_all().unwrap();
        source
            .cached(&|_| true, &mut |_, _| panic!("nothing is cached"))
            .unwrap();
    }
}

#[test]
fn files_with_lost_content_are_named_until_they_are_whole() {
    let bench = Bench::new(crate::core::AtRest::Sealed);
    bench.create(5);
    bench.write(5, 0, &pattern(1, 3 * MIB));
    bench.settle();
    let bucket = DentryBucket(vec![Dentry {
        name: b"scan.tif".to_vec(),
        ino: 5,
        kind: FileKind::Regular,
    }]);
    let mut batch = Batch::new();
    batch.put(records::dentry_key(crate::inode::ROOT_INO, 77), bucket.encode());
    bench.store.commit(batch).unwrap();
    let lost = HashSet::from([stored(&bench, 5, 1)]);
    let source = bench.data.delta_source();
    source.lost(&lost).unwrap();
    assert!(bench.data.lost_files().is_empty(), "the cache has it");
    bench.data.evict_all().unwrap();
    source.lost(&lost).unwrap();
    let files = bench.data.lost_files();
    assert_eq!(files.len(), 1);
    assert_eq!(
        (files[0].path.as_str(), files[0].chunks, files[0].missing),
        ("scan.tif", 3, 1)
    );
    assert!(bench.data.errors().iter().any(|error| error.contains("scan.tif")));
    source.lost(&HashSet::new()).unwrap();
    assert!(bench.data.lost_files().is_empty());
}
