//! Rules that a simulation may switch off, to show that it would notice.
//!
//! A check that cannot fail shows nothing. Each rule here guards a promise; a test breaks it in one thread, the thread of one
//! simulated world, and demands that the world finds out. Without the feature `sim` the rules hold, as constants.

/// A rule of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The intent is in the journal before the declaration goes out (I2).
    Intent,
    /// A declaration of unknown fate is waited out before the next (F4).
    Era,
    /// A pack is Confirmed only after its miners gave it back (I1).
    ReadBack,
    /// A body is on the disk before the journal speaks of its pack.
    BodyFirst,
    /// A checkpoint goes out after every pack that it builds on.
    Order,
    /// A writer that was recovered from sends nothing more (I10).
    Fence,
}

#[cfg(any(test, feature = "sim"))]
mod switch {
    use super::Rule;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
        static PERSISTED: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// From now on this rule, and no other, is broken in this thread.
    pub fn switch_off(rule: Option<Rule>) {
        BROKEN.set(rule);
    }

    pub(crate) fn holds(rule: Rule) -> bool {
        BROKEN.get() != Some(rule)
    }

    /// Remembers that a staged body was made durable, for [`was_persisted`].
    pub(crate) fn persisted(body: &File) {
        if let Ok(metadata) = body.metadata() {
            PERSISTED.with_borrow_mut(|inodes| inodes.insert(metadata.ino()));
        }
    }

    /// Whether a power cut would leave the staged body with this inode number as it is; asked by a simulated disk. Only in the
    /// thread that persisted it.
    pub fn was_persisted(inode: u64) -> bool {
        PERSISTED.with_borrow(|inodes| inodes.contains(&inode))
    }

    /// Forgets what was persisted: another simulated world begins in this thread.
    pub fn forget_persisted() {
        PERSISTED.with_borrow_mut(BTreeSet::clear);
    }
}

#[cfg(any(test, feature = "sim"))]
pub use switch::{forget_persisted, switch_off, was_persisted};
#[cfg(any(test, feature = "sim"))]
pub(crate) use switch::{holds, persisted};

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn holds(_: Rule) -> bool {
    true
}

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn persisted(_: &std::fs::File) {}
