//! Snapshots: taken, listed, deleted, looked into, compared.

use super::virtual_dir::SNAPSHOTS_INO;
use super::{Vfs, attr_of};
use crate::attr::{Attr, DirEntry, FileKind};
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::{
    SNAPSHOT_BACKLOG_BYTES, SNAPSHOT_CALM_BYTES, SNAPSHOT_FREEZE_MAX, SNAPSHOT_POLL, SNAPSHOT_ROUNDS_MAX, SNAPSHOTS_MAX,
};
use crate::records::{self, is_snapshot_name};
use crate::snapshot::diff::{self, Difference};
use crate::snapshot::{Snapshot, Tree, Wait, number};
use cessfs_sync::Batch;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// How a look into a snapshot goes on.
pub enum Look {
    /// The tree is there.
    Tree(Arc<Tree>),
    /// It is being put together, which needs the network.
    Wait(BoxFuture<'static, Result<Arc<Tree>, VfsError>>),
}

impl Vfs {
    /// Takes a snapshot of the tree as it is at one instant during the call. Its pack is durable on this disk when this
    /// returns, and on its way to the network. Changes wait for a moment meanwhile, and opening what the kernel may write itself;
    /// reads and closes do not.
    ///
    /// # Errors
    /// `Exists`; `Invalid` for a name that is none; `ReadOnly`; `NoSpace` when there are too many, or too much waits for the
    /// network; `Busy` when writers were faster than the disk: try again.
    pub fn create_snapshot(&self, name: &str) -> Result<Arc<Snapshot>, VfsError> {
        self.core.check_room()?;
        if !is_snapshot_name(name) {
            return Err(VfsError::Invalid(
                "the name of a snapshot has 1 to 128 bytes, no slash, and no dot or dash in front",
            ));
        }
        let snapshots = &self.core.snapshots;
        let _taking = snapshots.taking.lock();
        if snapshots.find(name.as_bytes()).is_some() {
            return Err(VfsError::Exists);
        }
        if snapshots.len() >= SNAPSHOTS_MAX {
            return Err(VfsError::NoSpace("there are as many snapshots as can be"));
        }
        // Most of what is dirty goes while others go on writing.
        for _ in 0..SNAPSHOT_ROUNDS_MAX {
            self.check_backlog()?;
            self.write_back_all()?;
            if self.unsubmitted_bytes() < SNAPSHOT_CALM_BYTES {
                break;
            }
        }
        self.core.marks.freeze();
        let taken = self.take_frozen(name);
        self.core.marks.thaw();
        snapshots.give_up();
        let number = taken?;
        // The cut thaws; if somebody who waited for too long did, this pack carries no snapshot.
        snapshots.get(number).ok_or(VfsError::Busy)
    }

    /// Nobody changes anything: hands over the rest of what is dirty, and seals.
    fn take_frozen(&self, name: &str) -> Result<u64, VfsError> {
        let began = self.core.clock.monotonic();
        loop {
            self.check_backlog()?;
            self.data.write_back_all()?;
            if self.data.all_submitted() {
                break;
            }
            let waited = self.core.clock.monotonic().saturating_sub(began);
            if waited > SNAPSHOT_FREEZE_MAX || !self.core.marks.is_frozen() {
                return Err(VfsError::Busy);
            }
            // Somebody else is just handing it over.
            #[expect(
                clippy::disallowed_methods,
                reason = "only with threads of its own can somebody else be handing over"
            )]
            std::thread::sleep(SNAPSHOT_POLL);
        }
        let number = self.core.snapshots.want(name, self.core.now());
        self.core.chunks.seal()?;
        Ok(number)
    }

    /// Handing over must not have to wait for the network.
    fn check_backlog(&self) -> Result<(), VfsError> {
        let backlog = self.core.chunks.backlog();
        let dirty = self.unsubmitted_bytes();
        let needed = backlog
            .unsent_bytes
            .saturating_add(dirty)
            .saturating_add(SNAPSHOT_BACKLOG_BYTES);
        if needed > backlog.bound_bytes {
            return Err(VfsError::NoSpace(
                "too much waits for the network; a snapshot needs room for what is unsent",
            ));
        }
        Ok(())
    }

    /// Every snapshot, in the order of their packs.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let mut all = self.core.snapshots.after(0);
        all.sort_by_key(|snapshot| snapshot.record.pack);
        all
    }

    /// How many there are, and of how many the tree is kept on this disk.
    pub fn snapshot_counts(&self) -> (usize, usize) {
        (self.core.snapshots.len(), self.core.shelf.len())
    }

    /// The snapshot of this name.
    pub fn snapshot(&self, name: &str) -> Option<Arc<Snapshot>> {
        self.core.snapshots.find(name.as_bytes())
    }

    /// Deletes a snapshot; what only it needed can be freed from then on.
    ///
    /// # Errors
    /// `NotFound`, `ReadOnly`.
    pub fn delete_snapshot(&self, name: &str) -> Result<(), VfsError> {
        self.core.check_writable()?;
        let snapshot = self.snapshot(name).ok_or(VfsError::NotFound)?;
        {
            let _change = self.core.marks.enter();
            let key = records::snapshot_key(snapshot.number);
            let mut batch = Batch::new();
            self.core.marks.mark(&mut batch, &key);
            batch.delete(key);
            self.core.store.commit(batch)?;
        }
        self.core.snapshots.removed(snapshot.number, self.core.now());
        self.core.shelf.remove(snapshot.number);
        Ok(())
    }

    /// The tree that an inode number of a snapshot belongs to.
    ///
    /// # Errors
    /// `Stale`: it is no number of a snapshot that there is.
    pub fn look(&self, seen: u64) -> Result<Look, VfsError> {
        let (snapshot, _) = number::split(seen).ok_or(VfsError::Stale)?;
        let snapshot = self.core.snapshots.get(snapshot).ok_or(VfsError::Stale)?;
        Ok(self.look_into(&snapshot))
    }

    /// The tree of a snapshot.
    pub fn look_into(&self, snapshot: &Arc<Snapshot>) -> Look {
        if let Some(tree) = self.core.shelf.get(snapshot.number) {
            return Look::Tree(tree);
        }
        let wait: Wait = self.core.shelf.build(snapshot);
        let (data, snapshot) = (self.data.clone(), snapshot.clone());
        let told = async move {
            wait.await.inspect_err(|e| {
                data.note_named_error(&snapshot.record.name, &number_of(&snapshot), &|which| {
                    format!("the tree of snapshot {which} cannot be put together: {e}")
                });
            })
        };
        Look::Wait(told.boxed())
    }

    /// What is known of a snapshot's root directory without its tree, if the number is that of one.
    pub fn snapshot_root(&self, seen: u64) -> Option<(Attr, bool)> {
        let (snapshot, ino) = number::split(seen)?;
        let snapshot = self.core.snapshots.get(snapshot).filter(|_| ino == ROOT_INO)?;
        let record = &snapshot.record.root;
        Some((attr_of(seen, record), record.xattrs > 0))
    }

    /// A read of a snapshot failed: `status` tells.
    pub fn note_snapshot_error(&self, seen: u64, error: &VfsError) {
        if let Some((snapshot, ino)) = number::split(seen)
            && let Some(snapshot) = self.core.snapshots.get(snapshot)
        {
            self.data
                .note_named_error(&snapshot.record.name, &number_of(&snapshot), &|which| {
                    format!("snapshot {which}, inode {ino}: {error}")
                });
        }
    }

    pub(super) fn snapshot_lookup(&self, name: &[u8]) -> Result<Attr, VfsError> {
        let snapshot = self.core.snapshots.find(name).ok_or(VfsError::NotFound)?;
        Ok(attr_of(number::seen(snapshot.number, ROOT_INO), &snapshot.record.root))
    }

    /// Tells the snapshots after number `after`. Their cookies are their numbers and 2.
    pub(super) fn snapshots_readdir(
        &self,
        after: u64,
        plus: bool,
        fill: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        for snapshot in self.core.snapshots.after(after) {
            let ino = number::seen(snapshot.number, ROOT_INO);
            let full = fill(DirEntry {
                ino,
                cookie: snapshot.number + 2,
                kind: FileKind::Directory,
                name: snapshot.record.name.as_bytes(),
                attr: plus.then(|| attr_of(ino, &snapshot.record.root)),
            });
            if full {
                break;
            }
        }
        Ok(())
    }

    /// How tree `new` differs from tree `old`; `None`: the live one, as it is while it is looked at. Sorted by path.
    ///
    /// # Errors
    /// `NoSpace` when more differs than can be told; a store cannot be read.
    pub fn compare(&self, old: &Tree, new: Option<&Tree>) -> Result<Vec<Difference>, VfsError> {
        match new {
            Some(new) => diff::compare(old.store(), new.store()),
            None => {
                if self.core.check_writable().is_ok() {
                    self.journal_lazy()?;
                    self.data.persist_all()?;
                    self.data.settle()?;
                }
                diff::compare(old.store(), &*self.core.store)
            }
        }
    }
}

/// How a snapshot is called where its name must not be.
fn number_of(snapshot: &Snapshot) -> String {
    format!("number {}", snapshot.number)
}

const _: () = assert!(super::virtual_dir::is_virtual(SNAPSHOTS_INO));
