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
    /// What lives in a pack lies elsewhere before the pack is deleted (I4).
    Moved,
    /// A later checkpoint tells a tree without a pack before the pack is deleted (I4).
    Superseded,
    /// A dead pack stays until whoever recovered the volume elsewhere must have made himself known.
    Grace,
}

#[cfg(any(test, feature = "sim"))]
mod switch {
    use super::Rule;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
        static PERSISTED: RefCell<BTreeSet<PathBuf>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// From now on this rule, and no other, is broken in this thread.
    pub fn switch_off(rule: Option<Rule>) {
        BROKEN.set(rule);
    }

    pub(crate) fn holds(rule: Rule) -> bool {
        BROKEN.get() != Some(rule)
    }

    /// Remembers whether a staged body is durable, for [`was_persisted`].
    pub(crate) fn persisted(body: &Path, durable: bool) {
        PERSISTED.with_borrow_mut(|bodies| match durable {
            true => bodies.insert(body.to_path_buf()),
            false => bodies.remove(body),
        });
    }

    /// Whether a power cut would leave this staged body as it is; asked by a simulated disk. Only in the thread that persisted
    /// it.
    pub fn was_persisted(body: &Path) -> bool {
        PERSISTED.with_borrow(|bodies| bodies.contains(body))
    }

    /// The staging directory has another name now.
    pub fn bodies_moved(from: &Path, to: &Path) {
        PERSISTED.with_borrow_mut(|bodies| {
            let moved = |body: PathBuf| {
                body.strip_prefix(from)
                    .map(|name| to.join(name))
                    .unwrap_or(body.clone())
            };
            *bodies = std::mem::take(bodies).into_iter().map(moved).collect();
        });
    }

    /// Forgets what was persisted: another simulated world begins in this thread.
    pub fn forget_persisted() {
        PERSISTED.with_borrow_mut(BTreeSet::clear);
    }
}

#[cfg(any(test, feature = "sim"))]
pub use switch::{bodies_moved, forget_persisted, switch_off, was_persisted};
#[cfg(any(test, feature = "sim"))]
pub(crate) use switch::{holds, persisted};

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn holds(_: Rule) -> bool {
    true
}

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn persisted(_: &std::path::Path, _: bool) {}
