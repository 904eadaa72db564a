//! Without a descriptor nothing was tried: whoever asks again may succeed, and until then nothing counts as durable.

use super::*;
use crate::backing::DESCRIPTORS;

/// A file whose backing file is closed, and cannot be opened.
fn shut_out(at_rest: AtRest) -> Bench {
    let bench = Bench::new(at_rest);
    for ino in [5, 6] {
        bench.create(ino);
    }
    bench.write(5, 0, &pattern(1, 2 * MIB));
    DESCRIPTORS.set(1);
    bench.write(6, 0, &pattern(2, MIB));
    DESCRIPTORS.set(0);
    bench
}

#[test]
fn an_fsync_that_had_no_descriptor_can_be_tried_again() {
    for at_rest in BOTH {
        let bench = shut_out(at_rest);
        assert!(matches!(bench.fsync(5), Err(VfsError::Disk(_))));
        assert!(bench.data.write_back_all().is_err(), "a sync promises it, too");
        DESCRIPTORS.set(usize::MAX);
        bench.fsync(5).unwrap();
        bench.settle();
        assert_eq!(bench.data.dirty_bytes(), 0);
        let (_, durable) = bench.store.progress();
        assert_eq!(bench.crash_at(durable).content(5), pattern(1, 2 * MIB));
    }
}

#[test]
fn what_could_not_be_synced_for_want_of_one_does_not_turn_clean() {
    for at_rest in BOTH {
        let bench = Bench::new(at_rest);
        bench.create(5);
        bench.write(5, 0, &pattern(1, MIB));
        bench.data.write_back_all().unwrap();
        bench.seal(CutCause::Forced);
        bench.write(5, CHUNK, &pattern(2, MIB));
        bench.create(6);
        DESCRIPTORS.set(1);
        bench.write(6, 0, &pattern(3, MIB));
        DESCRIPTORS.set(0);
        assert!(bench.data.shared().settle_submitted().is_err());
        assert!(bench.extent(5, 0).unwrap().dirty);
        DESCRIPTORS.set(usize::MAX);
        bench.data.shared().settle_submitted().unwrap();
        assert!(!bench.extent(5, 0).unwrap().dirty);
    }
}
