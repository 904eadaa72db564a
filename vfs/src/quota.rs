//! What directory trees with a quota use: counted in memory, and exact.
//!
//! Every inode names the directory whose quota it counts for (its *tree*, as a project id elsewhere), and takes that from the
//! directory it is made in: an operation looks at one counter, however deep it happens. A tree within a tree counts for
//! itself alone. Bytes are allocated blocks, wherever they rest.
//!
//! What counts is written nowhere while the volume is mounted: a clean close writes the sums, and after a crash they are
//! summed up again from the records, which are an atomic prefix of what happened, in the sweep that counts inodes anyway. So
//! they cannot drift. Growth is admitted before it happens ([`admit`](Quotas::admit)); whatever an operation really did is
//! settled by whoever journals the record ([`settle`](Quotas::settle)).

use crate::error::VfsError;
use crate::inode::Inode;
use crate::limits::BLOCK_BYTES;
use crate::records::{InodeRecord, QuotaRecord};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a tree uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUse {
    /// Allocated blocks of 4096 bytes.
    pub blocks: u64,
    /// Inodes, the tree's root included.
    pub inodes: u64,
}

/// What a tree may use, and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaReport {
    /// The directory that the quota was set on.
    pub root: u64,
    /// Bytes at most; 0: any number.
    pub bytes_max: u64,
    /// Inodes at most; 0: any number.
    pub inodes_max: u64,
    /// What is used.
    pub used: QuotaUse,
}

/// The trees of a volume. Empty for most.
#[derive(Default)]
pub(crate) struct Quotas {
    trees: RwLock<HashMap<u64, Arc<Tree>>>,
}

#[derive(Default)]
struct Tree {
    bytes_max: AtomicU64,
    inodes_max: AtomicU64,
    blocks: AtomicU64,
    inodes: AtomicU64,
}

impl Quotas {
    fn tree(&self, root: u64) -> Option<Arc<Tree>> {
        if root == 0 {
            return None;
        }
        self.trees.read().get(&root).cloned()
    }

    /// Makes a tree known, or changes what it may use.
    pub(crate) fn set(&self, root: u64, record: &QuotaRecord) {
        let mut trees = self.trees.write();
        let tree = trees.entry(root).or_default();
        tree.bytes_max.store(record.bytes_max, Ordering::Relaxed);
        tree.inodes_max.store(record.inodes_max, Ordering::Relaxed);
    }

    /// The tree has no quota any more.
    pub(crate) fn forget(&self, root: u64) {
        self.trees.write().remove(&root);
    }

    /// There is a quota on this directory.
    pub(crate) fn knows(&self, root: u64) -> bool {
        self.trees.read().contains_key(&root)
    }

    /// The tree that an inode counts for by its record: 0 if that tree is no more, as for a file whose other names lay in it.
    pub(crate) fn counted(&self, record: &InodeRecord) -> u64 {
        if record.quota != 0 && self.knows(record.quota) {
            record.quota
        } else {
            0
        }
    }

    /// What a tree may use and uses; `None` if it has no quota.
    pub(crate) fn report(&self, root: u64) -> Option<QuotaReport> {
        let tree = self.tree(root)?;
        Some(QuotaReport {
            root,
            bytes_max: tree.bytes_max.load(Ordering::Relaxed),
            inodes_max: tree.inodes_max.load(Ordering::Relaxed),
            used: QuotaUse {
                blocks: tree.blocks.load(Ordering::Relaxed),
                inodes: tree.inodes.load(Ordering::Relaxed),
            },
        })
    }

    /// Every tree, by its root's number.
    pub(crate) fn all(&self) -> Vec<QuotaReport> {
        let mut roots: Vec<u64> = self.trees.read().keys().copied().collect();
        roots.sort_unstable();
        roots.into_iter().filter_map(|root| self.report(root)).collect()
    }

    /// Every tree uses nothing, until it is counted.
    pub(crate) fn start_counting(&self) {
        for tree in self.trees.read().values() {
            tree.blocks.store(0, Ordering::Relaxed);
            tree.inodes.store(0, Ordering::Relaxed);
        }
    }

    /// Counts something for a tree if there is room for it.
    ///
    /// # Errors
    /// `Quota`, and nothing is counted.
    pub(crate) fn admit(&self, root: u64, what: QuotaUse) -> Result<(), VfsError> {
        let Some(tree) = self.tree(root) else { return Ok(()) };
        let blocks_max = tree.bytes_max.load(Ordering::Relaxed) / BLOCK_BYTES;
        let bytes_limited = tree.bytes_max.load(Ordering::Relaxed) > 0;
        let inodes_max = tree.inodes_max.load(Ordering::Relaxed);
        raise(&tree.blocks, what.blocks, bytes_limited.then_some(blocks_max))?;
        raise(&tree.inodes, what.inodes, (inodes_max > 0).then_some(inodes_max))
            .inspect_err(|_| lower(&tree.blocks, what.blocks))
    }

    /// Counts something for a tree, room or not.
    pub(crate) fn add(&self, root: u64, what: QuotaUse) {
        if let Some(tree) = self.tree(root) {
            tree.blocks.fetch_add(what.blocks, Ordering::Relaxed);
            tree.inodes.fetch_add(what.inodes, Ordering::Relaxed);
        }
    }

    /// Takes something from what a tree uses.
    pub(crate) fn release(&self, root: u64, what: QuotaUse) {
        if let Some(tree) = self.tree(root) {
            lower(&tree.blocks, what.blocks);
            lower(&tree.inodes, what.inodes);
        }
    }

    /// Blocks that a locked inode is about to grow by. [`settle`](Quotas::settle) follows, whatever comes of it.
    ///
    /// # Errors
    /// `Quota`, and nothing is counted.
    pub(crate) fn admit_growth(&self, inode: &Inode, record: &InodeRecord, blocks: u64) -> Result<(), VfsError> {
        if record.quota == 0 || blocks == 0 {
            return Ok(());
        }
        self.admit(record.quota, QuotaUse { blocks, inodes: 0 })?;
        inode.charged.fetch_add(blocks, Ordering::Relaxed);
        Ok(())
    }

    /// Counts for a locked inode what its record says, instead of what was counted before.
    pub(crate) fn settle(&self, inode: &Inode, record: &InodeRecord) {
        if record.quota == 0 {
            return;
        }
        let before = inode.charged.swap(record.blocks, Ordering::Relaxed);
        let used = |blocks| QuotaUse { blocks, inodes: 0 };
        if record.blocks > before {
            self.add(record.quota, used(record.blocks - before));
        } else {
            self.release(record.quota, used(before - record.blocks));
        }
    }
}

/// Raises a counter unless it would exceed its limit.
fn raise(counter: &AtomicU64, by: u64, max: Option<u64>) -> Result<(), VfsError> {
    // What does not grow is allowed also where the limit was set below what is used.
    if by == 0 {
        return Ok(());
    }
    let grown = |now: u64| now.checked_add(by).filter(|sum| max.is_none_or(|max| *sum <= max));
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
        .map(drop)
        .map_err(|_| VfsError::Quota)
}

fn lower(counter: &AtomicU64, by: u64) {
    let lowered = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| now.checked_sub(by));
    debug_assert!(lowered.is_ok(), "more is taken from a quota than was counted for it");
}

/// What was admitted for an operation that is not committed yet; taken back when dropped before it is kept.
pub(crate) struct Admission<'q> {
    quotas: &'q Quotas,
    admitted: Vec<(u64, QuotaUse)>,
}

impl<'q> Admission<'q> {
    pub(crate) fn new(quotas: &'q Quotas) -> Admission<'q> {
        Admission {
            quotas,
            admitted: Vec::new(),
        }
    }

    /// See [`Quotas::admit`].
    pub(crate) fn admit(&mut self, root: u64, what: QuotaUse) -> Result<(), VfsError> {
        self.quotas.admit(root, what)?;
        if root != 0 {
            self.admitted.push((root, what));
        }
        Ok(())
    }

    /// The operation happened.
    pub(crate) fn keep(mut self) {
        self.admitted.clear();
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        for (root, what) in self.admitted.drain(..) {
            self.quotas.release(root, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::QuotaPhase;

    fn quotas(bytes_max: u64, inodes_max: u64) -> Quotas {
        let quotas = Quotas::default();
        let phase = QuotaPhase::Active;
        quotas.set(
            7,
            &QuotaRecord {
                phase,
                bytes_max,
                inodes_max,
            },
        );
        quotas
    }

    fn used(blocks: u64, inodes: u64) -> QuotaUse {
        QuotaUse { blocks, inodes }
    }

    #[test]
    fn what_exceeds_either_limit_is_refused_whole() {
        let quotas = quotas(10 * BLOCK_BYTES + 1, 3);
        quotas.admit(7, used(10, 2)).unwrap();
        assert!(matches!(quotas.admit(7, used(1, 0)), Err(VfsError::Quota)));
        assert!(matches!(quotas.admit(7, used(0, 2)), Err(VfsError::Quota)));
        quotas.release(7, used(1, 0));
        assert!(matches!(quotas.admit(7, used(1, 2)), Err(VfsError::Quota)));
        assert_eq!(
            quotas.report(7).unwrap().used,
            used(9, 2),
            "a refusal leaves nothing behind"
        );
        quotas.admit(7, used(1, 1)).unwrap();
        quotas.admit(7, used(0, 0)).unwrap();
        quotas.admit(8, used(1 << 60, 1 << 60)).unwrap();
    }

    #[test]
    fn an_admission_that_is_not_kept_is_taken_back() {
        let quotas = quotas(0, 2);
        let mut admission = Admission::new(&quotas);
        admission.admit(7, used(5, 1)).unwrap();
        admission.admit(0, used(5, 1)).unwrap();
        admission.admit(7, used(0, 1)).unwrap();
        assert!(admission.admit(7, used(0, 1)).is_err());
        drop(admission);
        assert_eq!(quotas.report(7).unwrap().used, used(0, 0));
        let mut admission = Admission::new(&quotas);
        admission.admit(7, used(5, 1)).unwrap();
        admission.keep();
        assert_eq!(quotas.report(7).unwrap().used, used(5, 1));
    }

    #[test]
    fn together_threads_never_exceed_a_limit_and_use_it_up() {
        let quotas = quotas(0, 1000);
        let taken: usize = std::thread::scope(|scope| {
            let taker = || (0..600).filter(|_| quotas.admit(7, used(1, 1)).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taker)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
        assert_eq!(quotas.report(7).unwrap().used, used(1000, 1000));
    }
}
