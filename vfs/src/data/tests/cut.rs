//! What was cut off or punched out stays away, although the disk may still have it.

use super::durable::Watched;
use super::*;
use crate::data::unsure::note_key;
use crate::request::SpaceChange;
use std::path::PathBuf;
use std::sync::Arc;

const LEN: usize = 10 * BLOCK;

/// A bench whose disk takes nothing before it is synced: what it has then is in `disk`.
struct Lazy {
    bench: Bench,
    disk: Arc<tempfile::TempDir>,
}

impl Lazy {
    fn new(at_rest: AtRest) -> Lazy {
        let lazy = Lazy::over(Bench::new(at_rest));
        lazy.bench.create(5);
        lazy.bench.write(5, 0, &pattern(1, LEN));
        lazy.bench.fsync(5).unwrap();
        lazy
    }

    fn over(mut bench: Bench) -> Lazy {
        let (backing, disk) = (bench.data.shared().backing.clone(), Arc::new(scratch()));
        let (dir, target) = (bench.dir.clone(), disk.clone());
        let synced = move || {
            std::fs::remove_dir_all(target.path())?;
            std::fs::create_dir(target.path())?;
            copy_dir(dir.path(), target.path());
            Ok(())
        };
        bench.data = Data::over(bench.core.clone(), Arc::new(Watched::new(backing, synced))).unwrap();
        Lazy { bench, disk }
    }

    /// The disk takes everything of the journal, and of the cache what was synced.
    fn power_cut(self) -> Bench {
        self.bench.data.released(&self.bench.file(5));
        let (all, _) = self.bench.store.progress();
        self.bench.power_cut(all, self.disk.path())
    }

    /// The same, mounted for reading only.
    fn power_cut_to_read(&self) -> Bench {
        self.bench.data.released(&self.bench.file(5));
        let (all, _) = self.bench.store.progress();
        let image = scratch();
        copy_dir(self.disk.path(), image.path());
        self.bench.read_only_copy(all, image)
    }
}

/// In words, and as it is done.
type Cut = (&'static str, fn(&Bench));

/// Ways to lose blocks 2..6 of the file.
fn cuts() -> Vec<Cut> {
    fn punch(bench: &Bench) {
        let range = 2 * BLOCK as u64..6 * BLOCK as u64;
        bench.change_space(5, SpaceChange::Punch, range, false).unwrap();
    }
    vec![
        ("truncated", |bench| bench.set_size(5, 2 * BLOCK as u64)),
        ("truncated to nothing", |bench| bench.set_size(5, 0)),
        ("punched out", punch),
        ("punched out, the space given back", |bench| {
            punch(bench);
            bench.keep_house();
        }),
        ("truncated, the space given back", |bench| {
            bench.set_size(5, 0);
            bench.keep_house();
        }),
    ]
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    for at_rest in BOTH {
        for (what, cut) in cuts() {
            let lazy = Lazy::new(at_rest);
            cut(&lazy.bench);
            lazy.bench.core.store.barrier().unwrap();
            lazy.bench.write(5, 3 * BLOCK as u64, &pattern(2, 2 * BLOCK));
            let (reader, after) = (lazy.power_cut_to_read(), lazy.power_cut());
            for found in [reader.content(5), after.content(5)] {
                let cut_off = &found[2 * BLOCK..5 * BLOCK];
                assert!(cut_off.iter().all(|byte| *byte == 0), "{at_rest:?}, {what}");
            }
            assert_eq!(after.core.store.get(&note_key(5)).unwrap(), None, "{at_rest:?}, {what}");
            assert!(
                !after.data.0.errors.all().is_empty(),
                "{at_rest:?}, {what}: nobody is told"
            );
        }
    }
}

#[test]
fn what_was_synced_over_it_stays() {
    for at_rest in BOTH {
        for (what, cut) in cuts() {
            let lazy = Lazy::new(at_rest);
            cut(&lazy.bench);
            lazy.bench.write(5, 3 * BLOCK as u64, &pattern(2, 2 * BLOCK));
            lazy.bench.fsync(5).unwrap();
            let synced = lazy.bench.content(5);
            assert_eq!(lazy.bench.store.get(&note_key(5)).unwrap(), None, "{at_rest:?}, {what}");
            // Cut and written again: only that is unsure.
            let end = synced.len() as u64;
            lazy.bench.write(5, end, &pattern(3, 2 * BLOCK));
            let after = lazy.power_cut();
            assert!(after.content(5).starts_with(&synced), "{at_rest:?}, {what}");
        }
    }
}

#[test]
fn a_sync_that_begins_between_two_writes_promises_the_first() {
    for at_rest in BOTH {
        let lazy = Lazy::new(at_rest);
        lazy.bench.set_size(5, 0);
        lazy.bench.write(5, 0, &pattern(2, BLOCK));
        let change = lazy.bench.file(5).state.read().data.begin_sync();
        lazy.bench.data.0.backing.sync(5).unwrap();
        lazy.bench.write(5, BLOCK as u64, &pattern(3, BLOCK));
        let inode = lazy.bench.file(5);
        lazy.bench
            .data
            .0
            .journal_locked(5, &mut inode.state.write(), Some(change))
            .unwrap();
        let after = lazy.power_cut();
        let found = after.content(5);
        assert_eq!(found[..BLOCK], pattern(2, BLOCK), "{at_rest:?}");
        assert!(found[BLOCK..].iter().all(|byte| *byte == 0), "{at_rest:?}");
    }
}

#[test]
fn the_rest_of_a_cut_block_does_not_come_back() {
    let (cut, old) = (BLOCK + 100, pattern(1, LEN));
    // Before the end, over it, behind it, and the whole block.
    let writes = [
        (BLOCK + 20, 10),
        (BLOCK + 90, 300),
        (BLOCK + 500, 100),
        (BLOCK, BLOCK),
        (4 * BLOCK, 9),
    ];
    for at_rest in BOTH {
        for (offset, len) in writes {
            let lazy = Lazy::new(at_rest);
            lazy.bench.set_size(5, cut as u64);
            lazy.bench.core.store.barrier().unwrap();
            lazy.bench.write(5, offset as u64, &pattern(2, len));
            // Once more: what was cleared by the first must be safe.
            lazy.bench.write(5, (BLOCK + 700) as u64, b"more");
            let new = lazy.bench.content(5);
            let found = lazy.power_cut().content(5);
            assert_eq!(found.len(), new.len());
            for (at, byte) in found.iter().enumerate() {
                let kept = at < cut && *byte == old[at];
                assert!(
                    kept || *byte == new[at] || *byte == 0,
                    "{at_rest:?}, {offset}+{len}: byte {at}"
                );
            }
            assert_eq!(found[..BLOCK], old[..BLOCK]);
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_the_kernel_had() {
    for at_rest in BOTH {
        for (same_boot, is_kept) in [(true, true), (false, false)] {
            let mut bench = Bench::in_boot(at_rest, [7; 16]);
            bench.create(5);
            bench.write(5, 0, &pattern(1, LEN));
            bench.fsync(5).unwrap();
            bench.set_size(5, 0);
            bench.write(5, 0, &pattern(2, LEN));
            bench.data.released(&bench.file(5));
            assert!(bench.store.get(&note_key(5)).unwrap().is_some());
            if !same_boot {
                bench.reboot([8; 16]);
            }
            let (all, _) = bench.store.progress();
            let after = bench.crash_at(all);
            let expected = if is_kept { pattern(2, LEN) } else { vec![0; LEN] };
            assert_eq!(after.content(5), expected, "{at_rest:?}, same boot: {same_boot}");
        }
    }
}

#[test]
fn housekeeping_makes_sure_of_it_and_takes_the_note_away() {
    for at_rest in BOTH {
        let lazy = Lazy::new(at_rest);
        lazy.bench.set_size(5, 0);
        lazy.bench.write(5, 0, &pattern(2, LEN));
        lazy.bench.data.released(&lazy.bench.file(5));
        assert!(lazy.bench.store.get(&note_key(5)).unwrap().is_some(), "{at_rest:?}");
        lazy.bench.keep_house();
        assert_eq!(lazy.bench.store.get(&note_key(5)).unwrap(), None, "{at_rest:?}");
        assert_eq!(lazy.power_cut().content(5), pattern(2, LEN), "{at_rest:?}");
    }
}

#[test]
fn new_files_are_never_unsure() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(9, 5 * BLOCK));
        bench.fsync(5).unwrap();
        for block in 0..300_u64 {
            bench.write(5, block * BLOCK as u64, &pattern(block, BLOCK));
        }
        bench.write(5, 0, &pattern(7, 3 * BLOCK));
        bench.data.released(&bench.file(5));
        assert_eq!(bench.store.get(&note_key(5)).unwrap(), None, "{at_rest:?}");
        assert!(!bench.file(5).state.read().data.needs_sync(), "{at_rest:?}");
    }
}

#[test]
fn a_record_that_was_outgrown_and_cut_does_not_come_back() {
    for at_rest in BOTH {
        for kept in [0, 500] {
            let lazy = Lazy::over(Bench::new(at_rest));
            let (bench, old) = (&lazy.bench, pattern(1, 3000));
            bench.create(5);
            bench.write(5, 0, &old);
            bench.fsync(5).unwrap();
            bench.write(5, 10_000, &pattern(2, 300));
            bench.data.released(&bench.file(5));
            bench.set_size(5, kept as u64);
            bench.change_space(5, SpaceChange::Punch, 100..200, false).unwrap();
            bench.write(5, 600, &pattern(3, 100));
            let found = lazy.power_cut().content(5);
            assert_eq!(found[..100.min(kept)], old[..100.min(kept)], "{at_rest:?}, {kept}");
            // Of what was not cut off, a punch that was not synced may be lost as any write.
            let (hole, stays) = (&found[100..200], kept > 200 && found[100..200] == old[100..200]);
            assert!(stays || hole.iter().all(|byte| *byte == 0), "{at_rest:?}, {kept}");
            assert_eq!(
                found[200.min(kept)..kept],
                old[200.min(kept)..kept],
                "{at_rest:?}, {kept}"
            );
            assert!(found[kept..600].iter().all(|byte| *byte == 0), "{at_rest:?}, {kept}");
        }
    }
}

/// The backing file is believed from the moment somebody may write to it: what it is like then must be safe.
#[test]
fn what_was_cut_off_before_the_kernel_writes_does_not_come_back() {
    let cuts: [Cut; 2] = [
        ("truncated", |bench| bench.set_size(5, 150_000)),
        ("punched out", |bench| {
            bench.change_space(5, SpaceChange::Punch, 8192..16384, false).unwrap();
        }),
    ];
    for (what, cut) in cuts {
        let lazy = Lazy::over(Bench::passing());
        let bench = &lazy.bench;
        bench.create(5);
        bench.write(5, 0, &pattern(1, 200_000));
        bench.fsync(5).unwrap();
        bench.keep_house();
        cut(bench);
        bench.core.store.barrier().unwrap();
        let expected = bench.content(5);
        let file = bench.open(5, true).expect("it is large enough to pass");
        std::os::unix::fs::FileExt::write_all_at(&file, b"lost", 4096).unwrap();
        drop(file);
        let (all, _) = bench.store.progress();
        let after = lazy.bench.power_cut(all, lazy.disk.path());
        assert!(
            after.content(5) == expected,
            "{what}: the backing file is not what the file was"
        );
    }
}

/// A file that passed and became a record loses its backing file. What the disk still has of that is not its content, however it
/// grows again.
#[test]
fn a_backing_file_that_was_removed_does_not_come_back() {
    let removals: [Cut; 2] = [
        ("removed", |bench| bench.keep_house()),
        ("removed, and not safely yet", |bench| {
            bench.data.shared().backing.empty(5).unwrap();
        }),
    ];
    for (what, remove) in removals {
        for grown in [30_000, 300_000] {
            let lazy = Lazy::over(Bench::passing());
            let bench = &lazy.bench;
            let file = bench.create_open(5).expect("new files pass");
            std::os::unix::fs::FileExt::write_all_at(&file, &pattern(1, 200_000), 0).unwrap();
            bench.fsync(5).unwrap();
            bench.set_size(5, 100);
            drop(file);
            bench.close(5);
            assert!(!bench.passes(5) && bench.file(5).state.read().record.inline);
            bench.core.store.barrier().unwrap();
            remove(bench);
            bench.write(5, grown - 10, &pattern(3, 10));
            bench.core.store.barrier().unwrap();
            let expected = bench.content(5);
            let found = lazy.power_cut().content(5);
            assert_eq!(found[..100], expected[..100], "{what}, {grown}");
            let is_old = |(at, byte): (usize, &u8)| *byte != 0 && expected.get(at) != Some(byte);
            let old = found.iter().enumerate().position(is_old);
            assert_eq!(
                old, None,
                "{what}, {grown}: a byte is as it was before the file was cut"
            );
        }
    }
}

/// What came from the network a moment ago, and is not journaled yet as being here, is cut off in the journal all the same.
#[test]
fn what_was_fetched_and_cut_at_once_does_not_come_back() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.make_absent();
        assert_eq!(bench.content(5), pattern(1, MIB));
        let (half, kept) = (CHUNK / 2, CHUNK / 2 + 100 * BLOCK as u64 / 10);
        bench.change_space(5, SpaceChange::Punch, half..CHUNK, false).unwrap();
        bench.set_size(5, kept);
        bench.set_size(5, CHUNK);
        let (all, _) = bench.store.progress();
        let content = bench.crash_at(all).content(5);
        assert!(content[kept as usize..].iter().all(|byte| *byte == 0), "{at_rest:?}");
    }
}

/// A cache disk with one bad file goes on giving space back, and the file when it is well again.
#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        for ino in [5, 6, 7] {
            bench.create(ino);
            bench.write(ino, 0, &pattern(ino, MIB));
        }
        bench.fsync(5).unwrap();
        let bad = backing_file(&bench, 5);
        std::fs::remove_file(&bad).unwrap();
        std::fs::create_dir(&bad).unwrap();
        let full = bench.data.cache_bytes();
        bench.set_size(7, 4 * BLOCK as u64);
        bench.delete(5);
        bench.delete(6);
        bench.data.shared().keep_house().unwrap_err();
        assert!(!backing_file(&bench, 6).exists(), "{at_rest:?}: the other file went");
        assert!(
            bench.data.cache_bytes() < full / 2,
            "{at_rest:?}: what was cut off, too"
        );
        std::fs::remove_dir(&bad).unwrap();
        bench.data.shared().keep_house().unwrap();
        bench.data.shared().reclaim().unwrap();
        assert_eq!(
            bench.store.scan(b"t", b"t", 10).unwrap(),
            vec![],
            "{at_rest:?}: nothing is left to do"
        );
        assert_eq!(bench.content(7), pattern(7, 4 * BLOCK));
    }
}

#[test]
fn a_writer_without_room_has_what_was_deleted_given_back() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(5, MIB));
        bench.fsync(5).unwrap();
        let full = bench.data.cache_bytes();
        bench.delete(5);
        assert!(bench.data.give_back_waiting(), "{at_rest:?}: it waited");
        assert!(bench.data.cache_bytes() < full / 2, "{at_rest:?}");
    }
}

fn backing_file(bench: &Bench, ino: u64) -> PathBuf {
    bench.dir.path().join(format!("{:02x}/{ino:016x}", ino % 256))
}

#[test]
fn what_is_unsure_of_a_file_is_forgotten_with_it() {
    for at_rest in BOTH {
        let Lazy { bench, .. } = Lazy::new(at_rest);
        bench.set_size(5, 0);
        bench.write(5, 3 * BLOCK as u64, &pattern(2, 2 * BLOCK));
        bench.data.released(&bench.file(5));
        assert!(bench.store.get(&note_key(5)).unwrap().is_some(), "{at_rest:?}");
        bench.delete(5);
        assert_eq!(bench.store.get(&note_key(5)).unwrap(), None, "{at_rest:?}");
    }
}
