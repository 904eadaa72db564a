//! What the heartbeat vouches for.

use super::durable::Watched;
use super::*;
use crate::limits::HEARTBEAT_MARGIN;
use cessfs_sync::Clock;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

/// It noted when housekeeping was done with that: what was written just after housekeeping had listed what to journal looked old
/// enough to be in the journal.
#[test]
fn a_heartbeat_tells_of_when_the_steps_it_vouches_for_began() {
    let mut bench = Bench::new(AtRest::Plain);
    bench.create(5);
    bench.write(5, 0, &pattern(1, MIB));
    bench.settle();
    bench.fsync(5).unwrap();
    bench.clock.advance(10 * HEARTBEAT_MARGIN);
    let (clock, path) = (bench.clock.clone(), bench.dir.path().join("05/0000000000000005"));
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = armed.clone();
    let synced = move || {
        if is_armed.swap(false, Ordering::Relaxed) {
            // The journal does not hear of it, and the sync takes long.
            let file = File::options().write(true).open(&path)?;
            file.write_all_at(b"x", 0)?;
            file.set_modified(UNIX_EPOCH + clock.wall())?;
            clock.advance(3 * HEARTBEAT_MARGIN);
        }
        Ok(())
    };
    let backing = Watched::new(bench.data.shared().backing.clone(), synced);
    bench.data = Data::over(bench.core.clone(), Arc::new(backing)).unwrap();
    bench.create(6);
    bench.write(6, 0, &pattern(2, 20_000));
    armed.store(true, Ordering::Relaxed);
    bench.keep_house();
    assert!(!armed.load(Ordering::Relaxed), "nothing was synced");
    let (all, _) = bench.store.progress();
    let bench = bench.crash_at(all);
    assert!(bench.extent(5, 0).unwrap().dirty, "nobody looked");
}
