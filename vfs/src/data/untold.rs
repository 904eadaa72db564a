//! Times of content that nobody told.
//!
//! Where the kernel keeps the times of files it tells them before each fsync and close, after the content. But for a process that is
//! being killed (Ctrl-C in a `close` that takes long) it hands the content over and tells no times, and never does again: once it
//! forgot the inode, the file would look as if nothing had been written, and a backup would pass it by. So whoever closes the file
//! asks here for what was not told.
//!
//! Not all that comes without times was forgotten: the kernel tells none that it told before, nor those that are as they were at the
//! clock's last tick. So only a time from before the file was opened is too old.

use crate::attr::Timestamp;

/// Seconds by which a time may be before the opening though it is of what was written afterwards: more than any clock's tick.
const TICK_SECS: i64 = 1;

/// What of an inode's content came without times.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    /// When the first of those was opened who may write; none: the file was made by then.
    opened: Option<Timestamp>,
    /// When content came that no times were told of.
    came: Option<Timestamp>,
}

impl Untold {
    /// The file is opened for writing, and for nobody else.
    pub(crate) fn opened(&mut self, now: Timestamp) {
        self.opened = Some(now);
    }

    /// Times were told, or a program set them: the kernel handed over first what was written before.
    pub(crate) fn told(&mut self) {
        self.came = None;
    }

    /// Content came.
    pub(crate) fn written(&mut self, now: Timestamp) {
        self.came = Some(now);
    }

    /// When content came last, if its times were not told and `mtime` is too old for it.
    pub(crate) fn take(&mut self, mtime: Timestamp) -> Option<Timestamp> {
        let came = self.came.take()?;
        let ticked = Timestamp {
            secs: mtime.secs.saturating_add(TICK_SECS),
            ..mtime
        };
        (ticked < self.opened?).then_some(came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp { secs, nanos: 0 }
    }

    #[test]
    fn content_without_times_is_told_of_once() {
        let mut untold = Untold::default();
        untold.opened(at(100));
        assert_eq!(untold.take(at(7)), None);
        untold.written(at(101));
        untold.written(at(102));
        assert_eq!(untold.take(at(7)), Some(at(102)));
        assert_eq!(untold.take(at(7)), None);
        untold.written(at(103));
        untold.told();
        assert_eq!(untold.take(at(7)), None);
    }

    #[test]
    fn a_time_since_the_opening_is_not_too_old() {
        let mut untold = Untold::default();
        untold.opened(at(100));
        for mtime in [99, 100, 101, 200] {
            untold.written(at(150));
            assert_eq!(untold.take(at(mtime)), None, "{mtime}");
        }
        let mut made = Untold::default();
        made.written(at(150));
        assert_eq!(made.take(at(7)), None);
    }
}
