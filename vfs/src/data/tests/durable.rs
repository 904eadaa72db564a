//! What an fsync promised, after the power went at the worst moment.

use super::*;
use crate::backing::{Backing, BackingError, BackingFile, BlockAt, Prepared};
use crate::fakes::bench::{copy_dir, scratch};
use crate::limits::SYNC_EACH_MAX;
use crate::records::BlockMap;
use crate::request::SpaceChange;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The cache directory as a power cut could leave it: of the units that differ between `durable` and `newest`, every one
/// whose number `keeps` says so is new. Plain blocks are written whole or not (the disk's own pages), tags by the sector.
pub(super) fn torn_dir(durable: &Path, newest: &Path, unit: usize, keeps: &dyn Fn(usize) -> bool) -> tempfile::TempDir {
    let image = scratch();
    copy_dir(durable, image.path());
    let mut seen = 0;
    for dir in fs::read_dir(newest).unwrap() {
        let dir = dir.unwrap();
        for file in fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            let target = image.path().join(dir.file_name()).join(file.file_name());
            let new = fs::read(file.path()).unwrap();
            let mut bytes = fs::read(&target).unwrap_or_default();
            bytes.resize(new.len().max(bytes.len()), 0);
            for (old, new) in bytes.chunks_mut(unit).zip(new.chunks(unit)) {
                if old[..new.len()] != *new {
                    if keeps(seen) {
                        old[..new.len()].copy_from_slice(new);
                    }
                    seen += 1;
                }
            }
            fs::write(target, bytes).unwrap();
        }
    }
    image
}

fn unit(at_rest: AtRest) -> usize {
    match at_rest {
        AtRest::Plain => 4096,
        AtRest::Sealed => 512,
    }
}

/// Every block of `found` is the durable one or a newer one.
#[track_caller]
pub(super) fn old_or_new(found: &[u8], old: &[u8], new: &[u8], what: &str) {
    for at in (0..old.len()).step_by(4096) {
        let end = (at + 4096).min(old.len());
        let block = found
            .get(at..end)
            .unwrap_or_else(|| panic!("{what}: the file ends at {}", found.len()));
        let is_new = new.get(at..end).is_some_and(|new| new == block);
        assert!(
            block == &old[at..end] || is_new,
            "{what}: block at {at} is neither old nor new"
        );
    }
}

/// Runs `overwrite` after an fsync, and looks at what power cuts leave of it.
fn after_power_cuts(at_rest: AtRest, prepare: &dyn Fn(&Bench), overwrite: &dyn Fn(&Bench), what: &str) {
    for keep in 0..6_usize {
        let bench = Bench::new(at_rest);
        bench.create(5);
        prepare(&bench);
        bench.fsync(5).unwrap();
        let old = bench.content(5);
        let durable_dir = scratch();
        copy_dir(bench.dir.path(), durable_dir.path());
        overwrite(&bench);
        let new = bench.content(5);
        bench.data.released(&bench.file(5));
        // Space is given back after a barrier only: what that made durable stays.
        let (all, durable) = bench.store.progress();
        let keeps = |unit: usize| match keep {
            0 => false,
            1 => true,
            2 => unit.is_multiple_of(2),
            3 => unit % 3 == 1,
            4 => unit < 5,
            _ => unit.is_multiple_of(7),
        };
        let image = torn_dir(durable_dir.path(), bench.dir.path(), unit(at_rest), &keeps);
        // The journal may be ahead of the cache, or the cache of the journal.
        let batches = if keep % 2 == 0 { all } else { durable };
        let copy = scratch();
        copy_dir(image.path(), copy.path());
        let reader = bench.read_only_copy(batches, copy);
        let shown = reader.try_read(5, 0, old.len() as u32);
        let after = bench.power_cut(batches, image.path());
        let what = format!("{at_rest:?}, {what}, cut {keep}, {batches} batches of {durable}..{all}");
        old_or_new(&after.content(5), &old, &new, &what);
        let shown = shown.unwrap_or_else(|e| panic!("{what}, read only: {e}"));
        old_or_new(&shown, &old, &new, &format!("{what}, read only"));
        // And it goes on from there.
        after.write(5, 0, b"on");
        assert_eq!(after.try_read(5, 0, 2).unwrap(), b"on", "{what}");
    }
}

#[test]
fn an_fsync_survives_later_writes_that_were_not_synced() {
    for at_rest in BOTH {
        let whole = pattern(1, MIB + 9000);
        let prepare = |bench: &Bench| bench.write(5, 0, &whole);
        let small = |bench: &Bench| {
            for round in 0..3 {
                bench.write(5, 8000, &pattern(round, 300));
                bench.write(5, 40960, &pattern(round, 8192));
            }
        };
        after_power_cuts(at_rest, &prepare, &small, "overwritten in part");
        let large = |bench: &Bench| bench.write(5, 0, &pattern(9, MIB + 9000));
        after_power_cuts(at_rest, &prepare, &large, "overwritten as a whole");
    }
}

#[test]
fn an_fsync_survives_when_the_network_has_the_only_copy() {
    for at_rest in BOTH {
        let prepare = |bench: &Bench| {
            bench.write(5, 0, &pattern(1, MIB));
            bench.settle();
            bench.keep_house();
            assert_eq!(bench.data.evict_all().unwrap().evicted_bytes, CHUNK);
        };
        // The fetched or replaced bytes are not durable yet: the journal must go on naming the network's copy.
        let part = |bench: &Bench| bench.write(5, 5000, &pattern(2, 9000));
        after_power_cuts(at_rest, &prepare, &part, "absent, written in part");
        let whole = |bench: &Bench| bench.write(5, 0, &pattern(2, MIB));
        after_power_cuts(at_rest, &prepare, &whole, "absent, replaced");
        let over = |bench: &Bench| {
            for round in 0..3 {
                bench.write(5, 8192, &pattern(2, 12_288));
                bench.write(5, 40_960 + round * 40_960, &pattern(3, 40_960));
                bench.data.shared().journal(&bench.file(5)).unwrap();
            }
        };
        after_power_cuts(at_rest, &prepare, &over, "absent, blocks written over");
        let halves = |bench: &Bench| {
            bench.write(5, 0, &pattern(2, MIB / 2));
            bench.write(5, CHUNK / 2, &pattern(3, MIB / 2));
        };
        after_power_cuts(at_rest, &prepare, &halves, "absent, written over in halves");
        let filled = |bench: &Bench| {
            bench.write(5, 8192, &pattern(2, 12_288));
            bench.content(5);
            bench.write(5, 4096, &pattern(3, 12_288));
        };
        after_power_cuts(at_rest, &prepare, &filled, "absent, written over, and fetched");
    }
}

#[test]
fn an_fsync_survives_turning_clean_and_being_evicted() {
    for at_rest in BOTH {
        let prepare = |bench: &Bench| bench.write(5, 0, &pattern(1, MIB));
        let sent = |bench: &Bench| {
            bench.write(5, 0, &pattern(2, 5000));
            bench.settle();
        };
        after_power_cuts(at_rest, &prepare, &sent, "sent, not synced");
        let evicted = |bench: &Bench| {
            bench.settle();
            bench.data.evict_all().unwrap();
        };
        after_power_cuts(at_rest, &prepare, &evicted, "evicted");
    }
}

#[test]
fn an_fsync_survives_growing_out_of_the_record() {
    for at_rest in BOTH {
        let prepare = |bench: &Bench| bench.write(5, 0, &pattern(1, 3000));
        let grown = |bench: &Bench| bench.write(5, 10_000, &pattern(2, 300));
        after_power_cuts(at_rest, &prepare, &grown, "outgrown");
        let grown_and_settled = |bench: &Bench| {
            bench.write(5, 10_000, &pattern(2, 300));
            bench.data.released(&bench.file(5));
        };
        after_power_cuts(at_rest, &prepare, &grown_and_settled, "outgrown and journaled");
    }
}

/// A disk writes sectors, not pages: of the record's copy any of them may be missing. Where nothing tells, the record has to.
#[test]
fn an_fsync_survives_growing_out_of_the_record_onto_a_disk_that_keeps_any_sectors() {
    for mask in 0..64_usize {
        let bench = Bench::new(AtRest::Plain);
        bench.create(5);
        bench.write(5, 0, &pattern(1, 3000));
        bench.fsync(5).unwrap();
        let old = bench.content(5);
        let durable_dir = scratch();
        copy_dir(bench.dir.path(), durable_dir.path());
        bench.write(5, 700, &pattern(2, 9000));
        bench.data.released(&bench.file(5));
        let new = bench.content(5);
        let keeps = |sector: usize| mask >> (sector % 6) & 1 == 1;
        let image = torn_dir(durable_dir.path(), bench.dir.path(), 512, &keeps);
        let (all, _) = bench.store.progress();
        let found = bench.power_cut(all, image.path()).content(5);
        for (number, sector) in old.chunks(512).enumerate() {
            let at = number * 512..number * 512 + sector.len();
            assert!(
                found[at.clone()] == *sector || found[at.clone()] == new[at],
                "mask {mask:06b}: sector {number} is neither old nor new"
            );
        }
    }
}

/// Backing files of which somebody hears when an inode was synced, and may make that fail.
pub(super) struct Watched {
    backing: Arc<dyn Backing>,
    synced: Box<dyn Fn() -> std::io::Result<()> + Send + Sync>,
    /// Chunks that the disk was told to begin with.
    ahead: Mutex<Vec<u64>>,
}

impl Watched {
    pub(super) fn new(
        backing: Arc<dyn Backing>,
        synced: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Watched {
        Watched {
            backing,
            synced: Box::new(synced),
            ahead: Mutex::default(),
        }
    }
}

impl Backing for Watched {
    fn read(&self, at: BlockAt, out: &mut [u8]) -> Result<(), BackingError> {
        self.backing.read(at, out)
    }
    fn write(&self, at: BlockAt, data: &[u8]) -> Result<(), BackingError> {
        self.backing.write(at, data)
    }
    fn will_sync(&self, ino: u64, chunk: u64) {
        self.ahead.lock().push(chunk);
        self.backing.will_sync(ino, chunk);
    }
    fn prepare(&self, at: BlockAt, data: &[u8]) -> Option<Prepared> {
        self.backing.prepare(at, data)
    }
    fn write_prepared(&self, at: BlockAt, data: &[u8], ready: Prepared) -> Result<(), BackingError> {
        self.backing.write_prepared(at, data, ready)
    }
    fn copy(&self, from: BlockAt, to: BlockAt, blocks: usize) -> Result<bool, BackingError> {
        self.backing.copy(from, to, blocks)
    }
    fn punch(&self, ino: u64, chunk: u64, blocks: Range<usize>) -> Result<(), BackingError> {
        self.backing.punch(ino, chunk, blocks)
    }
    fn may_hold_older(&self, ino: u64, chunk: u64, blocks: Range<usize>) -> Result<bool, BackingError> {
        self.backing.may_hold_older(ino, chunk, blocks)
    }
    fn sync(&self, ino: u64) -> Result<(), BackingError> {
        self.backing.sync(ino)?;
        Ok((self.synced)()?)
    }
    fn sync_all(&self) -> Result<(), BackingError> {
        self.backing.sync_all()?;
        Ok((self.synced)()?)
    }
    fn unsynced(&self, ino: u64, max: usize) -> Option<Vec<(BlockAt, u32)>> {
        self.backing.unsynced(ino, max)
    }
    fn copied(&self, blocks: &[(BlockAt, u32)]) {
        self.backing.copied(blocks);
    }
    fn restore(&self, at: BlockAt, version: u32, data: &[u8]) -> Result<(), BackingError> {
        self.backing.restore(at, version, data)
    }
    fn sync_disk(&self) -> Result<(), BackingError> {
        self.backing.sync_disk()
    }
    fn remove(&self, ino: u64) -> Result<(), BackingError> {
        self.backing.remove(ino)
    }
    fn empty(&self, ino: u64) -> Result<(), BackingError> {
        self.backing.empty(ino)
    }
    fn repair(&self, ino: u64, chunk: u64, written: &BlockMap) -> Result<BlockMap, BackingError> {
        self.backing.repair(ino, chunk, written)
    }
    fn tidy(&self, ino: u64, chunk: u64) -> Result<(), BackingError> {
        self.backing.tidy(ino, chunk)
    }
    fn used_bytes(&self) -> u64 {
        self.backing.used_bytes()
    }
    fn recount(&self, visit: &mut dyn FnMut(BackingFile)) -> Result<(), BackingError> {
        self.backing.recount(visit)
    }
    fn expect_used(&self, bytes: u64) {
        self.backing.expect_used(bytes);
    }
    fn whole_file(&self, ino: u64, make: bool) -> Result<Option<Arc<File>>, BackingError> {
        self.backing.whole_file(ino, make)
    }
    fn whole_files_max(&self) -> usize {
        self.backing.whole_files_max()
    }
    fn written_by_others(&self, ino: u64) -> Result<(), BackingError> {
        self.backing.written_by_others(ino)
    }
    fn is_cut(&self, ino: u64) -> bool {
        self.backing.is_cut(ino)
    }
    fn let_go(&self, ino: u64) {
        self.backing.let_go(ino);
    }
    fn copy_overhang(&self, ino: u64) -> Result<Vec<(u64, BlockMap)>, BackingError> {
        self.backing.copy_overhang(ino)
    }
    fn inodes_in(&self, number: usize) -> Result<BTreeSet<u64>, BackingError> {
        self.backing.inodes_in(number)
    }
}

#[test]
fn a_sync_that_failed_in_the_background_fails_every_fsync() {
    for at_rest in BOTH {
        let mut bench = Bench::new(at_rest);
        let fail = Arc::new(AtomicBool::new(false));
        let backing = bench.data.shared().backing.clone();
        let failing = fail.clone();
        let synced = move || match failing.load(Ordering::Relaxed) {
            true => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        };
        let faulty = Watched::new(backing, synced);
        bench.data = Data::over(bench.core.clone(), Arc::new(faulty)).unwrap();
        for ino in [5, 6] {
            bench.create(ino);
            bench.write(ino, 0, &pattern(1, MIB));
        }
        bench.make_absent();
        // Replaced as a whole: housekeeping has to sync before it may journal.
        bench.write(5, 0, &pattern(2, MIB));
        fail.store(true, Ordering::Relaxed);
        bench.clock.advance(Duration::from_secs(2));
        bench.data.shared().keep_house().unwrap();
        assert!(
            bench.data.errors()[0].contains("cannot be made durable"),
            "{:?}",
            bench.data.errors()
        );
        fail.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            assert!(
                matches!(bench.fsync(5), Err(VfsError::Disk(_))),
                "the kernel told once, we go on telling"
            );
        }
        bench.fsync(6).unwrap();
        assert_eq!(bench.content(5), pattern(2, MIB));
        // The journal still names what the network has: nothing false was made durable.
        let (_, durable) = bench.store.progress();
        let after = bench.crash_at(durable);
        assert!(
            after
                .extent(5, 0)
                .is_some_and(|extent| !extent.dirty && extent.stored.is_some())
        );
    }
}

/// Of many that are synced at once one cannot be: the others go on, and so does the next sync of many.
#[test]
fn a_file_that_cannot_be_synced_takes_no_other_with_it() {
    for at_rest in BOTH {
        let mut bench = Bench::new(at_rest);
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let fails = left.clone();
        // The sync of all, and the third file's own.
        let synced = move || match fails.fetch_sub(1, Ordering::Relaxed) {
            100 | 97 => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        };
        let faulty = Watched::new(bench.data.shared().backing.clone(), synced);
        bench.data = Data::over(bench.core.clone(), Arc::new(faulty)).unwrap();
        let inos = 5..5 + SYNC_EACH_MAX as u64 + 4;
        for ino in inos.clone() {
            bench.create(ino);
            bench.write(ino, 0, &pattern(1, 20_000));
        }
        bench.make_absent();
        for ino in inos.clone() {
            bench.write(ino, 0, &pattern(2, 20_000));
        }
        left.store(100, Ordering::Relaxed);
        bench.clock.advance(Duration::from_secs(2));
        bench.data.shared().keep_house().unwrap();
        left.store(usize::MAX, Ordering::Relaxed);
        let failed = inos.clone().filter(|ino| bench.fsync(*ino).is_err());
        assert_eq!(failed.count(), 1, "{at_rest:?}");
        let journaled = inos.filter(|ino| bench.extent(*ino, 0).unwrap().dirty);
        assert_eq!(journaled.count(), SYNC_EACH_MAX + 3, "{at_rest:?}");
    }
}

#[test]
fn pages_over_pages_are_durable_without_the_journal_and_nothing_else_is() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        for _ in 0..2 {
            bench.fsync(5).unwrap();
        }
        let barrier = |change: &dyn Fn()| {
            let (_, before) = bench.store.progress();
            change();
            bench.fsync(5).unwrap();
            let (all, after) = bench.store.progress();
            assert!(after == before || after == all);
            after > before
        };
        assert!(
            !barrier(&|| bench.write(5, 8000, &pattern(2, 300_000))),
            "{at_rest:?}: overwritten"
        );
        let (_, durable) = bench.store.progress();
        let (image, content) = (scratch(), bench.content(5));
        copy_dir(bench.dir.path(), image.path());

        assert!(
            barrier(&|| bench.write(5, CHUNK - 10, &pattern(3, 20))),
            "{at_rest:?}: longer"
        );
        bench.fsync(5).unwrap();
        let reserve = || {
            let end = bench.file(5).state.read().record.size;
            // Within the last block: no more blocks than before.
            let range = end - 1..end + 5;
            bench.change_space(5, SpaceChange::Reserve, range, true).unwrap();
        };
        assert!(barrier(&reserve), "{at_rest:?}: longer, and nothing else");
        bench.fsync(5).unwrap();
        assert!(barrier(&|| bench.set_size(5, CHUNK / 2)), "{at_rest:?}: shorter");
        bench.fsync(5).unwrap();
        bench.seal(CutCause::Forced);
        let marked_again = barrier(&|| bench.write(5, 4096, &pattern(4, 4096)));
        assert!(marked_again, "{at_rest:?}: a cut has come between");
        // The power went after the first of these.
        assert_eq!(
            bench.power_cut(durable, image.path()).content(5),
            content,
            "{at_rest:?}"
        );
    }
}

#[test]
fn the_disk_begins_with_what_is_large_before_it_is_synced() {
    for at_rest in BOTH {
        let mut bench = Bench::new(at_rest);
        let watched = Arc::new(Watched::new(bench.data.shared().backing.clone(), || Ok(())));
        bench.data = Data::over(bench.core.clone(), watched.clone()).unwrap();
        bench.create(5);
        for at in 0..64 {
            bench.write(5, at * BLOCK_BYTES, &pattern(1, BLOCK));
        }
        assert_eq!(*watched.ahead.lock(), Vec::<u64>::new(), "what is small is gathered");
        // Half a MiB that lies in two chunks, a tenth of it in the first.
        bench.write(5, CHUNK - 50_000, &pattern(2, MIB / 2));
        assert_eq!(*watched.ahead.lock(), vec![1]);
        bench.write(5, 3 * CHUNK, &pattern(3, MIB));
        assert_eq!(*watched.ahead.lock(), vec![1, 3]);
        let content = bench.content(5);
        assert!(content[3 * MIB..] == pattern(3, MIB) && content[MIB - 50_000..][..MIB / 2] == pattern(2, MIB / 2));
    }
}

#[test]
fn what_cannot_be_made_durable_here_does_not_turn_clean() {
    for at_rest in BOTH {
        let mut bench = Bench::new(at_rest);
        let fail = Arc::new(AtomicBool::new(true));
        let failing = fail.clone();
        let synced = move || match failing.load(Ordering::Relaxed) {
            true => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        };
        let backing = Watched::new(bench.data.shared().backing.clone(), synced);
        bench.data = Data::over(bench.core.clone(), Arc::new(backing)).unwrap();
        let send = |ino: u64| {
            bench.create(ino);
            bench.write(ino, 0, &pattern(ino, MIB));
            bench.clock.advance(Duration::from_secs(60));
            while bench.data.shared().write_back_next() {}
            bench.seal(CutCause::Forced);
            bench.chunks.confirm();
            let settled = bench.data.shared().settle_submitted();
            (settled.is_ok(), bench.extent(ino, 0).is_some_and(|extent| extent.dirty))
        };
        assert_eq!(send(5), (true, true), "{at_rest:?}");
        bench.create(7);
        bench.write(7, 0, &pattern(7, MIB));
        bench.data.write_back_all().unwrap_err();
        assert!(bench.data.all_submitted(), "{at_rest:?}: it is sent all the same");
        fail.store(false, Ordering::Relaxed);
        assert_eq!(send(6), (true, false), "{at_rest:?}: others are in nobody's way");
        assert!(
            bench.extent(5, 0).unwrap().dirty,
            "{at_rest:?}: the kernel tells of a failure once"
        );
    }
}

/// What the disk has for certain: the cache as it was when one of its files was synced last.
pub(super) fn as_synced_last(bench: &mut Bench) -> Arc<Mutex<tempfile::TempDir>> {
    let on_disk = Arc::new(Mutex::new(scratch()));
    let (dir, image) = (bench.dir.clone(), on_disk.clone());
    let synced = move || {
        let now = scratch();
        copy_dir(dir.path(), now.path());
        *image.lock() = now;
        Ok(())
    };
    let backing = Watched::new(bench.data.shared().backing.clone(), synced);
    bench.data = Data::over(bench.core.clone(), Arc::new(backing)).unwrap();
    on_disk
}

/// Nobody synced the file, but its content is on the network: what a power cut leaves of the cache must not be taken for newer.
#[test]
fn what_the_network_has_outlives_a_cache_that_never_reached_the_disk() {
    for at_rest in BOTH {
        for (with_older, asked) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{at_rest:?}, with older content: {with_older}, sync: {asked}");
            let mut bench = Bench::new(at_rest);
            let on_disk = as_synced_last(&mut bench);
            bench.create(5);
            if with_older {
                bench.write(5, 0, &pattern(1, 2 * MIB));
                bench.settle();
                bench.fsync(5).unwrap();
            }
            let new = pattern(2, 2 * MIB);
            bench.write(5, 0, &new);
            if asked {
                bench.data.write_back_all().unwrap();
            } else {
                bench.clock.advance(Duration::from_secs(60));
                while bench.data.shared().write_back_next() {}
            }
            bench.seal(CutCause::Forced);
            bench.chunks.confirm();
            // A sync is enough by itself: no need for the store to know that the network has it.
            if !asked {
                bench.keep_house();
            }
            assert_eq!(bench.extent(5, 0).unwrap().dirty, asked, "{what}");
            let (all, _) = bench.store.progress();
            let image = std::mem::replace(&mut *on_disk.lock(), scratch());
            let bench = bench.power_cut(all, image.path());
            assert!(bench.content(5) == new, "{what}");
            bench.settle();
            assert!(bench.restore().content(5) == new, "{what}");
        }
    }
}

/// Two syncs of one file at a time: one succeeds, and before that is journaled the other fails.
#[test]
fn an_fsync_beside_one_that_failed_is_not_reported_as_done() {
    for at_rest in BOTH {
        let mut bench = Bench::new(at_rest);
        let file: Arc<Mutex<Option<Arc<Inode>>>> = Arc::default();
        let fails = file.clone();
        let synced = move || {
            if let Some(inode) = &*fails.lock() {
                let error = std::io::Error::from_raw_os_error(libc::EIO);
                inode.state.write().data.failure.get_or_insert(error.into());
            }
            Ok(())
        };
        let backing = Watched::new(bench.data.shared().backing.clone(), synced);
        bench.data = Data::over(bench.core.clone(), Arc::new(backing)).unwrap();
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.make_absent();
        bench.write(5, 0, &pattern(2, MIB));
        *file.lock() = Some(bench.file(5));
        assert!(matches!(bench.fsync(5), Err(VfsError::Disk(_))), "{at_rest:?}");
        // What it was not told of is not promised either.
        let extent = bench.extent(5, 0).unwrap();
        assert!(!extent.dirty && extent.stored.is_some(), "{at_rest:?}");
    }
}
