//! A tree out of deltas: what is left to do when the last one was replayed.
//!
//! Replay itself is [`apply_delta`](crate::delta::frame::apply_delta). This counts links and attributes anew where a file that
//! was being written could not tell them, checks every invariant of the namespace, finds files with content in packs that
//! nobody can give, and leaves the store as a clean close would, so that the first mount need not look at everything. Refuses
//! to repair anything else: what the network holds is told as it is.

use crate::attr::FileKind;
use crate::check::check_tree;
use crate::core::Core;
use crate::error::VfsError;
use crate::inode::ROOT_INO;
use crate::limits::{MISSING_FILES_MAX, MISSING_NOTES_MAX, SCAN_PAGE, SWEEP_PAGE, TREE_DEPTH_MAX};
use crate::records::{self, DentryBucket, Extent, InodeRecord, XattrBucket};
use cessfs_crypto::{ChunkId, VolumeKeys};
use cessfs_sync::{Batch, MetaStore, Standing, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// First bytes of the keys that note a file with missing content.
const MISSING_PREFIX: &[u8] = b"slost";

/// What a restored tree is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Inodes, the root included.
    pub files: u64,
    /// Bytes of all regular files, as `stat` tells them.
    pub bytes: u64,
    /// Broken invariants, in sentences; empty when all is well.
    pub findings: Vec<String>,
    /// Files with content that is in no pack that can be read, at most [`MISSING_FILES_MAX`] of them.
    pub missing: Vec<MissingFile>,
    /// How many such files there are.
    pub missing_files: u64,
}

/// A file with holes where content should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFile {
    /// Its inode.
    pub ino: u64,
    /// Its path below the root (one of them), lossy where it is no UTF-8.
    pub path: String,
    /// Chunks it has.
    pub chunks: u64,
    /// Chunks of those that are missing.
    pub missing: u64,
}

/// Completes a store into which deltas were replayed. `has_chunk` tells whether some pack holds a chunk.
///
/// # Errors
/// The store fails, or a record in it is damaged.
pub fn finish(
    store: &dyn MetaStore,
    keys: &VolumeKeys,
    has_chunk: &(dyn Fn(ChunkId) -> Result<bool, StoreError> + Sync),
) -> Result<Restored, VfsError> {
    let mut restored = Restored::default();
    let mut wrong = Batch::new();
    let (recounted, last) = recount(store, &mut restored)?;
    for (ino, record) in recounted {
        wrong.put(records::inode_key(ino), record.encode());
    }
    store.commit(wrong)?;
    // Both read nearly everything, and nothing changes meanwhile.
    #[expect(clippy::disallowed_methods, reason = "both only read, so their order shows nowhere")]
    let (findings, missing) = std::thread::scope(|scope| {
        let check = scope.spawn(|| check_tree(store, keys));
        let missing = missing_chunks(store, has_chunk);
        (
            check.join().expect("a check of damaged records ends with findings"),
            missing,
        )
    });
    restored.findings = findings?;
    let missing = missing?;
    restored.missing_files = missing.len() as u64;
    restored.missing = name_missing(store, missing)?;
    let mut batch = Batch::new();
    for file in restored.missing.iter().take(MISSING_NOTES_MAX) {
        let MissingFile {
            ino,
            path,
            chunks,
            missing,
        } = file;
        let note = format!(
            "{path} (inode {ino}): {missing} of {chunks} chunks were in packs that the miners could not give when this volume \
             was recovered"
        );
        batch.put(missing_key(*ino), note.into_bytes());
    }
    batch.put(records::FILES_KEY, records::encode_counter(restored.files));
    let last = last.max(last_in_trash(store)?);
    batch.put(records::NEXT_INO_KEY, records::encode_counter(last + 1));
    batch.put(records::CLEAN_KEY, records::encode_counter(1));
    store.commit(batch)?;
    Ok(restored)
}

/// Key of the sentence about metadata that a restore could not bring back.
const LOST_HISTORY_KEY: &[u8] = b"sgone";

/// Notes in a restored store what of the volume's history nobody could give; `status` tells it from then on.
///
/// # Errors
/// The store fails.
pub fn note_lost_history(store: &dyn MetaStore, told: &str) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    batch.put(LOST_HISTORY_KEY, told.as_bytes());
    store.commit(batch)
}

/// What [`note_lost_history`] noted.
pub(crate) fn lost_history(core: &Core) -> Option<String> {
    let told = core.store.get(LOST_HISTORY_KEY).ok().flatten()?;
    Some(String::from_utf8_lossy(&told).into_owned())
}

/// Regular files whose links or attributes are counted wrong, with the record that they should have, and the highest number of
/// an inode; counts inodes and bytes too. Names always travel, but the record of a file that was being written may be that of an
/// earlier delta (`docs/FORMAT-delta.md`).
pub(crate) fn recount(
    store: &dyn MetaStore,
    restored: &mut Restored,
) -> Result<(Vec<(u64, InodeRecord)>, u64), VfsError> {
    let (mut names, mut attributes) = (HashMap::<u64, u32>::new(), HashMap::<u64, u32>::new());
    each(store, records::DENTRY_PREFIX, |_, value| {
        for dentry in DentryBucket::decode(value)?.0 {
            if dentry.kind != FileKind::Directory {
                *names.entry(dentry.ino).or_default() += 1;
            }
        }
        Ok(())
    })?;
    each(store, records::XATTR_PREFIX, |key, value| {
        let (ino, _) = records::parse_dentry_key(key)?;
        *attributes.entry(ino).or_default() += XattrBucket::decode(value)?.0.len() as u32;
        Ok(())
    })?;
    let mut wrong = Vec::new();
    let mut last = ROOT_INO;
    each(store, records::INODE_PREFIX, |key, value| {
        last = records::parse_ino_key(key)?;
        restored.files += 1;
        let mut record = InodeRecord::decode(value)?;
        if record.kind != FileKind::Regular {
            return Ok(());
        }
        restored.bytes = restored.bytes.saturating_add(record.size);
        let told = (record.nlink, record.xattrs);
        if let Some(links) = names.get(&last) {
            record.nlink = *links;
            record.xattrs = attributes.get(&last).copied().unwrap_or(0);
        }
        if told != (record.nlink, record.xattrs) {
            wrong.push((last, record));
        }
        Ok(())
    })?;
    Ok((wrong, last))
}

/// The highest number of what is in the trash, 0 if it is empty. They come from the counter of inodes.
pub(crate) fn last_in_trash(store: &dyn MetaStore) -> Result<u64, VfsError> {
    let mut last = 0;
    each(store, records::TRASH_PREFIX, |key, _| {
        last = last.max(records::parse_ino_key(key)?);
        Ok(())
    })?;
    Ok(last)
}

/// Chunks and missing chunks of every file that misses any.
fn missing_chunks(
    store: &dyn MetaStore,
    has_chunk: &(dyn Fn(ChunkId) -> Result<bool, StoreError> + Sync),
) -> Result<BTreeMap<u64, (u64, u64)>, VfsError> {
    let mut all = BTreeMap::new();
    let (mut at, mut chunks, mut missing) = (0, 0, 0);
    each(store, records::EXTENT_PREFIX, |key, value| {
        let (ino, _) = records::parse_extent_key(key)?;
        if ino != at {
            if missing > 0 {
                all.insert(at, (chunks, missing));
            }
            (at, chunks, missing) = (ino, 0, 0);
        }
        chunks += 1;
        if let Some((id, _)) = Extent::decode(value)?.stored {
            missing += u64::from(!has_chunk(id)?);
        }
        Ok(())
    })?;
    if missing > 0 {
        all.insert(at, (chunks, missing));
    }
    Ok(all)
}

/// A path for each, one of them where there are several.
pub(crate) fn name_missing(
    store: &dyn MetaStore,
    missing: BTreeMap<u64, (u64, u64)>,
) -> Result<Vec<MissingFile>, VfsError> {
    let inos: Vec<u64> = missing.keys().copied().take(MISSING_FILES_MAX).collect();
    let mut paths = paths(store, &inos)?;
    let files = missing.into_iter().take(MISSING_FILES_MAX);
    Ok(files
        .map(|(ino, (chunks, missing))| MissingFile {
            ino,
            path: paths.remove(&ino).unwrap_or_default(),
            chunks,
            missing,
        })
        .collect())
}

/// Paths below the root of these inodes, as far as they have names, with one look at all names; lossy where they are no UTF-8.
///
/// # Errors
/// The store fails, or a record in it is damaged.
pub fn paths(store: &dyn MetaStore, inos: &[u64]) -> Result<BTreeMap<u64, String>, VfsError> {
    let wanted: BTreeSet<u64> = inos.iter().copied().collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut names: HashMap<u64, (u64, Vec<u8>)> = HashMap::new();
    each(store, records::DENTRY_PREFIX, |key, value| {
        let (parent, _) = records::parse_dentry_key(key)?;
        for dentry in DentryBucket::decode(value)?.0 {
            if dentry.kind == FileKind::Directory || wanted.contains(&dentry.ino) {
                names.insert(dentry.ino, (parent, dentry.name.to_vec()));
            }
        }
        Ok(())
    })?;
    let path = |ino: &u64| {
        let mut parts = Vec::new();
        let mut at = *ino;
        while let Some((parent, name)) = names.get(&at).filter(|_| parts.len() < TREE_DEPTH_MAX) {
            parts.push(String::from_utf8_lossy(name).into_owned());
            at = *parent;
        }
        parts.reverse();
        (!parts.is_empty()).then(|| (*ino, parts.join("/")))
    };
    Ok(wanted.iter().filter_map(path).collect())
}

/// Tells what [`finish`] noted, and forgets the notes of files that are gone or whole again.
pub(crate) fn tell_missing(core: &Core, tell: &dyn Fn(u64, String)) -> Result<(), VfsError> {
    let notes = core.store.scan(MISSING_PREFIX, MISSING_PREFIX, MISSING_NOTES_MAX)?;
    for (key, note) in notes {
        let ino = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let ino = ino.ok_or(records::RecordError::Short)?;
        let mut misses = false;
        let prefix = records::extent_prefix(ino);
        each(core.store.as_ref(), &prefix, |_, value| {
            let extent = Extent::decode(value)?;
            let unknown = |(id, _)| core.chunks.standing(id) == Standing::Unknown;
            misses |= !extent.resident && extent.stored.is_some_and(unknown);
            Ok(())
        })?;
        if misses {
            tell(ino, String::from_utf8_lossy(&note).into_owned());
        } else if !core.config.read_only {
            let mut batch = Batch::new();
            batch.delete(key);
            core.store.commit(batch)?;
        }
    }
    Ok(())
}

fn missing_key(ino: u64) -> Vec<u8> {
    [MISSING_PREFIX, &ino.to_be_bytes()].concat()
}

/// Visits every record under `prefix`, a page at a time.
pub(crate) fn each(
    store: &dyn MetaStore,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), VfsError>,
) -> Result<(), VfsError> {
    let mut from = prefix.to_vec();
    loop {
        // Values of attributes may be long.
        let limit = if prefix == records::XATTR_PREFIX {
            SCAN_PAGE
        } else {
            SWEEP_PAGE
        };
        let page = store.scan(prefix, &from, limit)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in &page {
            visit(key, value)?;
        }
    }
}
