//! Reads that the network takes long for.
//!
//! The kernel has [`FUSE_BACKGROUND_MAX`](crate::limits::FUSE_BACKGROUND_MAX) readaheads and writes of its own pages on their way at most.
//! While as many wait for a network that does not answer, no page of any file is written, though the disk is here. So a
//! readahead that waits for long is refused and goes on by itself. No program hears of that: the kernel asks once more for the
//! page that somebody waits for, as a request that takes none of those places, and that one waits for as long as it takes.
//!
//! Promises: what a program itself waits for is not refused: not a read of a single page, not past the page cache, and not of
//! anything that was among the last [`READS_REFUSED_MAX`] refused.

use crate::limits::{READS_GOING_ON_MAX, READS_REFUSED_MAX};
use fuser::OpenFlags;
use nix::unistd::{SysconfVar, sysconf};
use parking_lot::Mutex;
use std::sync::LazyLock;

/// Bytes of a page; where the system does not say, of the largest there is.
pub(super) static PAGE_BYTES: LazyLock<u32> = LazyLock::new(|| {
    let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(64 << 10)
});

/// What a READ asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) ino: u64,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

impl Wanted {
    pub(super) fn overlaps(&self, other: &Wanted) -> bool {
        let end = |wanted: &Wanted| wanted.offset.saturating_add(u64::from(wanted.bytes));
        self.ino == other.ino && self.offset < end(other) && other.offset < end(self)
    }
}

struct Refused {
    wanted: Wanted,
    /// The network may still answer.
    going: bool,
}

/// The reads that were refused.
#[derive(Default)]
pub(super) struct Patience(Mutex<Vec<Refused>>);

impl Patience {
    /// The kernel asks again if this is refused.
    pub(super) fn may_refuse(&self, wanted: &Wanted, flags: OpenFlags) -> bool {
        wanted.bytes > *PAGE_BYTES
            && flags.0 & libc::O_DIRECT == 0
            && !self.0.lock().iter().any(|refused| refused.wanted.overlaps(wanted))
    }

    /// Notes one that is to be refused. Whether it goes on nevertheless: it does not where many do.
    pub(super) fn refuse(&self, wanted: Wanted) -> bool {
        let mut refused = self.0.lock();
        if refused.len() >= READS_REFUSED_MAX
            && let Some(oldest) = refused.iter().position(|refused| !refused.going)
        {
            refused.remove(oldest);
        }
        let going = refused.iter().filter(|refused| refused.going).count() < READS_GOING_ON_MAX;
        refused.push(Refused { wanted, going });
        going
    }

    /// What went on ended. What did not come is asked for again, and somebody waits then.
    pub(super) fn ended(&self, wanted: &Wanted, came: bool) {
        let mut refused = self.0.lock();
        let Some(at) = refused
            .iter()
            .position(|refused| refused.going && refused.wanted == *wanted)
        else {
            return;
        };
        if came {
            refused.remove(at);
        } else {
            refused[at].going = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFERED: OpenFlags = OpenFlags(libc::O_RDONLY);

    fn wanted(ino: u64, offset: u64) -> Wanted {
        Wanted {
            ino,
            offset,
            bytes: 128 << 10,
        }
    }

    #[test]
    fn what_somebody_waits_for_is_not_refused() {
        let patience = Patience::default();
        assert!(patience.may_refuse(&wanted(5, 0), BUFFERED));
        assert!(!patience.may_refuse(&wanted(5, 0), OpenFlags(libc::O_DIRECT)));
        let page = Wanted {
            bytes: *PAGE_BYTES,
            ..wanted(5, 0)
        };
        assert!(!patience.may_refuse(&page, BUFFERED));
        assert!(patience.refuse(wanted(5, 128 << 10)));
        let folio = Wanted {
            offset: (256 << 10) - 8192,
            bytes: 16 << 10,
            ..page
        };
        assert!(!patience.may_refuse(&folio, BUFFERED), "it was before, in part");
        assert!(patience.may_refuse(&Wanted { ino: 6, ..folio }, BUFFERED));
        assert!(patience.may_refuse(&wanted(5, 0), BUFFERED) && patience.may_refuse(&wanted(5, 256 << 10), BUFFERED));
        patience.ended(&wanted(5, 128 << 10), false);
        assert!(
            !patience.may_refuse(&folio, BUFFERED),
            "who asks again is told what went wrong"
        );
        assert!(patience.refuse(wanted(7, 0)));
        patience.ended(&wanted(7, 0), true);
        assert!(patience.may_refuse(&wanted(7, 0), BUFFERED), "it is here now");
    }

    #[test]
    fn so_many_go_on_and_all_are_refused() {
        let patience = Patience::default();
        for ino in 0..READS_REFUSED_MAX as u64 {
            assert_eq!(
                patience.refuse(wanted(ino, 0)),
                ino < READS_GOING_ON_MAX as u64,
                "{ino}"
            );
        }
        patience.ended(&wanted(3, 0), false);
        assert!(patience.refuse(wanted(u64::MAX, 0)), "another may go on");
        assert!(!patience.refuse(wanted(u64::MAX - 1, 0)));
        let forgotten: Vec<u64> = (0..READS_REFUSED_MAX as u64)
            .filter(|ino| patience.may_refuse(&wanted(*ino, 0), BUFFERED))
            .collect();
        assert_eq!(
            forgotten,
            [3, READS_GOING_ON_MAX as u64],
            "the oldest that do not go on"
        );
    }
}
