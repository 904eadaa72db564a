//! The whole check of a volume that nobody has mounted: names, content in the cache, and what the journal says of both.
//!
//! Promises: without `repair` nothing changes; with it only what the records themselves prove is put right, one batch at a
//! time, so that a check that is cut short leaves a volume as sound as before. A second run after it finds nothing new.
//! Refuses to judge the cache of a volume that was not closed: what a crash leaves there is the next mount's to put right,
//! and with `repair` that is what happens first.
//!
//! | found | put right |
//! |---|---|
//! | a clean chunk's cached bytes are damaged, a pack has them | counts as absent; the network's copy is read |
//! | a dirty chunk without its note, a note without a dirty chunk | the note follows the chunk |
//! | blocks, links or attributes miscounted, the counters of inodes behind | counted again |
//! | a quota of a directory that is no more | removed |
//! | a backing file of no inode | removed |
//! | copies of blocks in the journal after a clean close | removed |
//! | everything else | told: what is missing cannot be proven |

use crate::attr::FileKind;
use crate::backing::{self, Backing};
use crate::check::check_names;
use crate::core::{Core, VfsParts};
use crate::data::logged::LOGGED_PREFIX;
use crate::data::size::deletion_key;
use crate::data::state::{DIRTY_PREFIX, dirty_key, spill_key};
use crate::error::VfsError;
use crate::limits::{BLOCK_BYTES, CHUNK_BLOCKS, FINDINGS_MAX};
use crate::records::{self, Extent, InodeRecord};
use crate::restore::{Restored, each, last_in_trash, recount};
use crate::vfs::Vfs;
use cessfs_sync::{Batch, Standing};
use std::sync::Arc;

/// What became of something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It was put right.
    Repaired,
    /// It can be put right: run again with `repair`.
    Repairable,
    /// Nothing proves what it should be.
    Told,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One sentence.
    pub what: String,
    /// And what became of it.
    pub remedy: Remedy,
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// The volume was closed cleanly, or is now. If not, its cache was not judged.
    pub closed: bool,
    /// Inodes, the root included.
    pub inodes: u64,
    /// Chunks that files are made of.
    pub chunks: u64,
    /// Bytes of resident content that were read.
    pub read_bytes: u64,
    /// What is wrong, at most [`FINDINGS_MAX`] of each kind.
    pub findings: Vec<Finding>,
}

struct Fsck {
    core: Arc<Core>,
    backing: Arc<dyn Backing>,
    repair: bool,
    report: FsckReport,
}

/// Checks a volume. The caller holds it for itself.
///
/// # Errors
/// Journal or cache cannot be read; with `repair`, not be written.
pub fn fsck(parts: VfsParts, repair: bool) -> Result<FsckReport, VfsError> {
    if parts
        .store
        .scan(records::INODE_PREFIX, records::INODE_PREFIX, 1)?
        .is_empty()
    {
        // Never mounted: there is nothing yet.
        return Ok(FsckReport {
            closed: true,
            ..FsckReport::default()
        });
    }
    let mut closed = parts.store.get(records::CLEAN_KEY)?.is_some();
    if !closed && repair {
        // As a mount does it: nobody knows better what a crash leaves.
        Vfs::open(parts.again())?.close()?;
        closed = true;
    }
    let core = Arc::new(Core::new(parts));
    core.marks.open()?;
    let config = &core.config;
    let backing = backing::open(
        &config.cache_dir,
        config.at_rest,
        core.keys.at_rest(),
        core.entropy.clone(),
    )?;
    let mut fsck = Fsck {
        core,
        backing,
        repair,
        report: FsckReport {
            closed,
            ..FsckReport::default()
        },
    };
    fsck.count_links()?;
    if fsck.report.closed {
        fsck.content()?;
        fsck.notes()?;
        fsck.copies()?;
        fsck.leftovers()?;
    }
    fsck.counters()?;
    fsck.quotas()?;
    let tree = check_names(&*fsck.core.store, &fsck.core.keys)?;
    fsck.report.findings.extend(tree.into_iter().map(|what| Finding {
        what,
        remedy: Remedy::Told,
    }));
    if repair {
        fsck.core.store.barrier()?;
    }
    Ok(fsck.report)
}

impl Fsck {
    fn found(&mut self, what: String, remedy: Remedy) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding { what, remedy });
        }
    }

    /// Something that can be put right, and is if that was asked for.
    fn mend(&mut self, what: String, repair: impl FnOnce(&Core) -> Result<(), VfsError>) -> Result<(), VfsError> {
        if self.repair {
            repair(&self.core)?;
            self.found(what, Remedy::Repaired);
        } else {
            self.found(what, Remedy::Repairable);
        }
        Ok(())
    }

    /// Links and attributes follow from names: regular files whose records count them otherwise.
    fn count_links(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let (wrong, _) = recount(&*core.store, &mut Restored::default())?;
        for (ino, record) in wrong {
            let what = format!(
                "inode {ino} counts its links or attributes wrong; its names say {} and {}",
                record.nlink, record.xattrs
            );
            self.mend(what, |core| put_inode(core, ino, &record))?;
        }
        Ok(())
    }

    /// Every chunk of every file: where its bytes are, and whether they are its own.
    fn content(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let mut counted = (0u64, 0u64);
        let mut inodes = Vec::new();
        each(&*core.store, records::INODE_PREFIX, |key, value| {
            if let (Ok(ino), Ok(record)) = (records::parse_ino_key(key), InodeRecord::decode(value)) {
                counted.0 += 1;
                if record.kind == FileKind::Regular && !record.inline {
                    inodes.push(ino);
                }
            }
            Ok(())
        })?;
        for ino in inodes {
            if core.store.get(&deletion_key(ino))?.is_none() {
                counted.1 += self.file(ino)?;
            }
        }
        (self.report.inodes, self.report.chunks) = counted;
        Ok(())
    }

    fn file(&mut self, ino: u64) -> Result<u64, VfsError> {
        let core = self.core.clone();
        let mut chunks = Vec::new();
        each(&*core.store, &records::extent_prefix(ino), |key, value| {
            if let (Ok((_, chunk)), Ok(extent)) = (records::parse_extent_key(key), Extent::decode(value)) {
                chunks.push((chunk, extent));
            }
            Ok(())
        })?;
        let mut blocks = 0;
        for (chunk, extent) in &chunks {
            blocks += extent.allocated();
            self.chunk(ino, *chunk, extent)?;
        }
        let record = core.store.get(&records::inode_key(ino))?;
        let Some(Ok(record)) = record.map(|value| InodeRecord::decode(&value)) else {
            return Ok(chunks.len() as u64);
        };
        if record.blocks != blocks {
            let what = format!(
                "inode {ino} says that it takes {} blocks, and takes {blocks}",
                record.blocks
            );
            let record = InodeRecord { blocks, ..record };
            self.mend(what, |core| put_inode(core, ino, &record))?;
        }
        Ok(chunks.len() as u64)
    }

    fn chunk(&mut self, ino: u64, chunk: u64, extent: &Extent) -> Result<(), VfsError> {
        let core = self.core.clone();
        let noted = core.store.get(&dirty_key(ino, chunk))?.is_some();
        if extent.dirty && !noted {
            let what = format!("chunk {chunk} of inode {ino} is not sent yet, and nothing notes that it must be");
            self.mend(what, |core| {
                let mut batch = Batch::new();
                batch.put(dirty_key(ino, chunk), records::encode_counter(0));
                Ok(core.store.commit(batch)?)
            })?;
        }
        let standing = extent.stored.map(|(id, _)| core.chunks.standing(id));
        if !extent.resident {
            if standing.is_some_and(|standing| standing <= Standing::Open) {
                self.found(
                    format!("chunk {chunk} of inode {ino} is in no pack and not in the cache"),
                    Remedy::Told,
                );
            }
            if !extent.is_patched() {
                return Ok(());
            }
        }
        let Some(damage) = self.damage(ino, chunk, &extent.local())? else {
            return Ok(());
        };
        let what = format!("chunk {chunk} of inode {ino} {damage}");
        if extent.dirty || standing.is_none_or(|standing| standing <= Standing::Open) {
            self.found(format!("{what}, and no pack has it"), Remedy::Told);
            return Ok(());
        }
        let absent = Extent {
            resident: false,
            ..*extent
        };
        self.mend(format!("{what}; a pack has it"), |core| {
            let mut batch = Batch::new();
            batch.put(records::extent_key(ino, chunk), absent.encode());
            Ok(core.store.commit(batch)?)
        })
    }

    /// What is wrong with the cached bytes of a chunk.
    fn damage(&mut self, ino: u64, chunk: u64, extent: &Extent) -> Result<Option<String>, VfsError> {
        let mut content = vec![0; CHUNK_BLOCKS * BLOCK_BYTES as usize];
        for (run, there) in extent.blocks.runs(0..CHUNK_BLOCKS) {
            if !there {
                continue;
            }
            let out = &mut content[run.start * BLOCK_BYTES as usize..run.end * BLOCK_BYTES as usize];
            self.report.read_bytes += out.len() as u64;
            let block = run.start;
            match self.backing.read(backing::BlockAt { ino, chunk, block }, out) {
                Ok(()) => {}
                Err(backing::BackingError::Damaged(at)) => {
                    return Ok(Some(format!(
                        "is damaged in the cache at byte {}",
                        at.in_file() * BLOCK_BYTES
                    )));
                }
                Err(e) => return Err(e.into()),
            }
        }
        // The hash of the whole says nothing about a chunk that was cut or written since.
        let Some((id, len)) = extent.stored.filter(|(_, len)| !extent.dirty && extent.valid == *len) else {
            return Ok(None);
        };
        content.truncate(len as usize);
        // Nor about one with holes: blocks may have been punched out of what was stored.
        let whole = (0..content.len().div_ceil(BLOCK_BYTES as usize)).all(|block| extent.blocks.contains(block));
        let right = !whole || self.core.keys.chunk_id(&content) == id;
        Ok((!right).then(|| "is not in the cache what the network has".to_owned()))
    }

    /// Notes of dirty chunks that are not.
    fn notes(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let mut idle = Vec::new();
        each(&*core.store, DIRTY_PREFIX, |key, _| {
            let (ino, chunk) = records::parse_extent_key(key)?;
            let extent = core.store.get(&records::extent_key(ino, chunk))?;
            let dirty = extent
                .and_then(|value| Extent::decode(&value).ok())
                .is_some_and(|extent| extent.dirty);
            if !dirty {
                idle.push((ino, chunk));
            }
            Ok(())
        })?;
        for (ino, chunk) in idle {
            let what = format!("chunk {chunk} of inode {ino} is noted as not sent, and is");
            self.mend(what, |core| {
                let mut batch = Batch::new();
                batch.delete(dirty_key(ino, chunk));
                Ok(core.store.commit(batch)?)
            })?;
        }
        Ok(())
    }

    /// Copies of blocks that a clean close should have ended: the cache has what they hold, or something newer.
    fn copies(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let mut left = Vec::new();
        each(&*core.store, LOGGED_PREFIX, |key, _| {
            left.push(key.to_vec());
            Ok(())
        })?;
        if left.is_empty() {
            return Ok(());
        }
        let what = format!(
            "{} blocks have a copy in the journal that nothing needs any more",
            left.len()
        );
        self.mend(what, |core| {
            let mut batch = Batch::new();
            left.into_iter().for_each(|key| batch.delete(key));
            Ok(core.store.commit(batch)?)
        })
    }

    /// Backing files of inodes that are no more.
    fn leftovers(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let mut files = Vec::new();
        self.backing.recount(&mut |file| files.push(file))?;
        for file in files {
            let known = core.store.get(&records::inode_key(file.ino))?.is_some();
            let deleting = core.store.get(&deletion_key(file.ino))?.is_some();
            let spilling = core.store.get(&spill_key(file.ino))?.is_some();
            if known || deleting || spilling {
                continue;
            }
            let what = format!(
                "the cache has {} bytes of inode {}, which is no more",
                file.bytes, file.ino
            );
            let backing = self.backing.clone();
            self.mend(what, |_| Ok(backing.remove(file.ino)?))?;
        }
        Ok(())
    }

    /// Quotas of directories that are no more.
    fn quotas(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let mut lost = Vec::new();
        each(&*core.store, records::QUOTA_PREFIX, |key, _| {
            let root = records::parse_ino_key(key)?;
            if core.store.get(&records::inode_key(root))?.is_none() {
                lost.push(root);
            }
            Ok(())
        })?;
        for root in lost {
            let what = format!("a quota is set on directory {root}, which is no more");
            self.mend(what, |core| {
                let _guard = core.marks.enter();
                let key = records::quota_key(root);
                let mut batch = Batch::new();
                core.marks.mark(&mut batch, &key);
                batch.delete(key);
                Ok(core.store.commit(batch)?)
            })?;
        }
        Ok(())
    }

    /// The number of inodes, and the next number.
    fn counters(&mut self) -> Result<(), VfsError> {
        let core = self.core.clone();
        let (mut files, mut last) = (0u64, last_in_trash(&*core.store)?);
        each(&*core.store, records::INODE_PREFIX, |key, _| {
            files += 1;
            last = last.max(records::parse_ino_key(key)?);
            Ok(())
        })?;
        self.report.inodes = files;
        let counter = |key: &[u8]| -> Result<Option<u64>, VfsError> {
            let value = core.store.get(key)?;
            Ok(value.map(|value| records::decode_counter(&value)).transpose()?)
        };
        let (told, next) = (counter(records::FILES_KEY)?, counter(records::NEXT_INO_KEY)?);
        if told.is_some_and(|told| told != files) {
            let what = format!(
                "the volume says that it has {} inodes, and has {files}",
                told.unwrap_or(0)
            );
            self.mend(what, |core| put_counter(core, records::FILES_KEY, files))?;
        }
        if next.is_some_and(|next| next <= last) {
            let what = format!("the next inode number is {}, but {last} is taken", next.unwrap_or(0));
            self.mend(what, |core| put_counter(core, records::NEXT_INO_KEY, last + 1))?;
        }
        Ok(())
    }
}

/// The repaired record of an inode, marked so that the next delta carries it.
fn put_inode(core: &Core, ino: u64, record: &InodeRecord) -> Result<(), VfsError> {
    let _guard = core.marks.enter();
    let mut batch = Batch::new();
    core.put_inode(&mut batch, ino, record);
    Ok(core.store.commit(batch)?)
}

fn put_counter(core: &Core, key: &[u8], value: u64) -> Result<(), VfsError> {
    let mut batch = Batch::new();
    batch.put(key, records::encode_counter(value));
    Ok(core.store.commit(batch)?)
}

#[cfg(test)]
mod tests;
