//! What is not known to be on the network: for whoever has to save it by hand, because another machine has taken the volume over.
//!
//! A path is told if a record of its inode, or its name, changed since the last pack that the network is known to hold: in
//! packs that wait to be sent, or in none yet. Where another machine has taken the volume over, it is told too if it is not as in
//! the last pack that both histories have: what was sent after that is on the network, but in no tree that anybody else sees.

use super::Vfs;
use crate::attr::FileKind;
use crate::data::state::DIRTY_PREFIX;
use crate::delta::frame::decode_frame;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::{TREE_DEPTH_MAX, UNSENT_PATHS_MAX};
use crate::records::{self, DENTRY_PREFIX, DentryBucket};
use crate::snapshot::diff::{self, Change, Difference};
use cessfs_sync::StoreError;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A path that is not known to be on the network as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// The path from the root, a slash in front.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
}

/// What [`Vfs::unsent`] found.
#[derive(Debug, Default)]
pub struct Unsents {
    /// The paths, sorted.
    pub paths: Vec<Unsent>,
    /// Why it cannot be told what was sent here after another machine took the volume over; paths may be missing.
    pub untold: Option<VfsError>,
}

/// Inodes of which something was not sent.
#[derive(Default)]
struct Inodes(BTreeSet<u64>);

impl Inodes {
    /// A record was changed; `value`: what it is now, if it is there.
    fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), VfsError> {
        match (key.first(), value) {
            (Some(b'd'), Some(bucket)) => {
                self.0
                    .extend(DentryBucket::decode(bucket)?.0.iter().map(|dentry| dentry.ino));
            }
            (Some(b'e' | b'x'), _) => drop(self.0.insert(records::parse_dentry_key(key)?.0)),
            (Some(b'i' | b'b'), _) => drop(self.0.insert(records::parse_ino_key(key)?)),
            _ => {}
        }
        if self.0.len() > UNSENT_PATHS_MAX {
            return Err(VfsError::NoSpace("more than a million paths are unsent"));
        }
        Ok(())
    }
}

impl Vfs {
    /// From now on every change is refused with `EROFS`: another machine has taken the volume over, and nothing that is changed
    /// here would ever be sent. What is here stays and can be read.
    pub fn stop_changes(&self) {
        self.core.stopped.store(true, Ordering::SeqCst);
    }

    /// Changes are refused because another machine has taken the volume over.
    pub fn is_stopped(&self) -> bool {
        self.core.stopped.load(Ordering::SeqCst)
    }

    /// Every path that is not known to be on the network as it is here, sorted; while writers are at work, roughly. Where another
    /// machine has taken the volume over that asks the network.
    ///
    /// # Errors
    /// `NoSpace` when there are more than can be told; a store, or a pack that waits to be sent, cannot be read.
    pub fn unsent(self: &Arc<Self>) -> BoxFuture<'static, Result<Unsents, VfsError>> {
        let vfs = self.clone();
        async move {
            let inodes = Arc::new(Mutex::new(Inodes::default()));
            let found = inodes.clone();
            let sink = Box::new(move |frame: Vec<u8>| {
                for (key, value) in decode_frame(&frame)? {
                    let added = found.lock().add(&key, value.as_deref());
                    added.map_err(|e| StoreError::Corrupt(e.to_string()))?;
                }
                Ok(())
            });
            vfs.core.chunks.replay_unsent(sink).await?;
            let mut inodes = std::mem::take(&mut *inodes.lock());
            vfs.add_pending(&mut inodes)?;
            let mut unsents = Unsents {
                paths: vfs.name_unsent(&inodes)?,
                untold: None,
            };
            match vfs.parted().await {
                Ok(parted) => unsents.paths.extend(parted),
                Err(error) => unsents.untold = Some(error),
            }
            unsents.paths.sort_by(|a, b| a.path.cmp(&b.path));
            unsents.paths.dedup();
            Ok(unsents)
        }
        .boxed()
    }

    /// What is not as in the last pack that the history of the machine that took the volume over has too.
    async fn parted(&self) -> Result<Vec<Unsent>, VfsError> {
        let Some(pack) = self.core.chunks.parted_at().await? else {
            return Ok(Vec::new());
        };
        let shared = self.core.shelf.borrow(pack).await?;
        let differences = diff::compare(shared.store(), &*self.core.store)?;
        let is_here = |difference: &Difference| difference.change != Change::Removed;
        let here = differences.into_iter().filter(is_here);
        Ok(here
            .map(|Difference { path, kind, .. }| Unsent { path, kind })
            .collect())
    }

    /// What no pack carried yet.
    fn add_pending(&self, inodes: &mut Inodes) -> Result<(), VfsError> {
        let mut keys = Vec::new();
        self.core.marks.each_pending(&mut |key| {
            keys.push(key.to_vec());
            match keys.len() > UNSENT_PATHS_MAX {
                true => Err(StoreError::Corrupt("more than a million records are unsent".into())),
                false => Ok(()),
            }
        })?;
        for key in keys {
            let value = match key.starts_with(DENTRY_PREFIX) {
                true => self.core.store.get(&key)?,
                false => None,
            };
            inodes.add(&key, value.as_deref())?;
        }
        crate::restore::each(&*self.core.store, DIRTY_PREFIX, |key, _| {
            inodes.add(key_of_dirty(key)?.as_slice(), None)
        })
    }

    fn name_unsent(&self, inodes: &Inodes) -> Result<Vec<Unsent>, VfsError> {
        if inodes.0.is_empty() {
            return Ok(Vec::new());
        }
        let mut dirs: HashMap<u64, (u64, Vec<u8>)> = HashMap::new();
        let mut found = Vec::new();
        crate::restore::each(&*self.core.store, DENTRY_PREFIX, |key, value| {
            let (parent, _) = records::parse_dentry_key(key)?;
            for dentry in DentryBucket::decode(value)?.0 {
                if inodes.0.contains(&dentry.ino) {
                    found.push((parent, dentry.name.clone(), dentry.kind));
                }
                if dentry.kind == FileKind::Directory {
                    dirs.insert(dentry.ino, (parent, dentry.name));
                }
            }
            Ok(())
        })?;
        let found = found.into_iter().map(|(parent, name, kind)| Unsent {
            path: path(parent, &name, &dirs),
            kind,
        });
        Ok(found.collect())
    }
}

/// The extent's key that a note about a dirty chunk belongs to.
fn key_of_dirty(key: &[u8]) -> Result<Vec<u8>, VfsError> {
    let (ino, chunk) = records::parse_extent_key(key)?;
    Ok(records::extent_key(ino, chunk))
}

fn path(parent: u64, name: &[u8], dirs: &HashMap<u64, (u64, Vec<u8>)>) -> Vec<u8> {
    let mut parts = vec![name];
    let mut at = parent;
    while at != ROOT_INO
        && let Some((parent, name)) = dirs.get(&at).filter(|_| parts.len() < TREE_DEPTH_MAX)
    {
        parts.push(name);
        at = *parent;
    }
    let parts = parts.into_iter().rev();
    parts.flat_map(|part| [&b"/"[..], part].concat()).collect()
}
