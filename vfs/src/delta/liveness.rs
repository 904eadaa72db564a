//! Which chunks files name: what the pipeline may not drop, what it can have back from here, and what it tells is lost.
//!
//! The ids are those of one instant, as with a cut: the gate is closed for a moment, and from then on the first change of a
//! record saves what it was. Visited is what a record says when it is read, and what was saved of it; together that is
//! everything named at that instant. What is named later is one of these (a copy takes the id of a chunk that is named), or
//! was submitted since.
//!
//! Unlinked files that are still open count, and so does what is in the trash: their extents are there.

use crate::data::{ChunkAt, Shared};
use crate::delta::marks::SAVED_PREFIX;
use crate::error::VfsError;
use crate::limits::{LOST_FILES_MAX, SWEEP_PAGE};
use crate::records::{self, EXTENT_PREFIX, Extent, RecordError};
use crate::restore::{MissingFile, name_missing};
use cessfs_crypto::ChunkId;
use cessfs_sync::{ChunkSink, StoreError};
use std::collections::{BTreeMap, HashSet};

impl Shared {
    /// Visits every chunk named at one instant. Not while a cut is written. Memory: one page of records.
    pub(super) fn visit_live(&self, visit: &mut dyn FnMut(ChunkId)) -> Result<(), StoreError> {
        let (_, (submitted, behind)) = self.core.marks.begin_cut(|| (self.submitted_ids(), self.behind()));
        let submitted = submitted.into_iter().map(|(_, (id, _))| id);
        let behind = behind.into_iter().map(|(_, sent)| sent.id);
        let visited = self.visit_records(submitted.chain(behind), visit);
        let ended = self.core.marks.end_cut();
        // What this cut took is pending as before: nothing was carried.
        self.core.marks.give_back();
        visited.and(ended)
    }

    fn visit_records(
        &self,
        submitted: impl Iterator<Item = ChunkId>,
        visit: &mut dyn FnMut(ChunkId),
    ) -> Result<(), StoreError> {
        submitted.for_each(&mut *visit);
        let mut named = |value: &[u8]| -> Result<(), StoreError> {
            if let Some((id, _)) = Extent::decode(value).map_err(corrupt)?.stored {
                visit(id);
            }
            Ok(())
        };
        self.each_value(EXTENT_PREFIX, &mut named)?;
        // In this order: what was saved after its record was visited does no harm, what was saved before must not be missed.
        let saved = [SAVED_PREFIX, EXTENT_PREFIX].concat();
        self.each_value(&saved, &mut |value| match value.split_first() {
            Some((1, value)) => named(value),
            _ => Ok(()),
        })
    }

    fn each_value(
        &self,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = prefix.to_vec();
        loop {
            let page = self.core.store.scan(prefix, &from, SWEEP_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            page.iter().try_for_each(|(_, value)| visit(value))?;
        }
    }

    /// Hands over wanted chunks that the cache has, if they still are what their ids say.
    pub(super) fn give_cached(
        &self,
        wanted: &dyn Fn(ChunkId) -> bool,
        give: &mut ChunkSink<'_>,
    ) -> Result<(), StoreError> {
        let mut given = HashSet::new();
        let mut from = EXTENT_PREFIX.to_vec();
        loop {
            let page = self.core.store.scan(EXTENT_PREFIX, &from, SWEEP_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &page {
                let extent = Extent::decode(value).map_err(corrupt)?;
                let Some((id, _)) = extent.stored.filter(|(id, _)| wanted(*id) && !given.contains(id)) else {
                    continue;
                };
                let (ino, chunk) = records::parse_extent_key(key).map_err(corrupt)?;
                if let Some(content) = self.cached_content(ino, chunk, id) {
                    give(id, &content)?;
                    given.insert(id);
                }
            }
        }
    }

    /// A chunk's content out of the cache; `None` if that has it not, or not any more.
    fn cached_content(&self, ino: u64, chunk: u64, id: ChunkId) -> Option<Vec<u8>> {
        let read = || -> Result<Option<Vec<u8>>, VfsError> {
            let inode = self.core.inodes.get(&self.core, ino)?;
            let state = inode.state.read();
            let extent = state.data.extent(&self.core, ino, chunk)?;
            let Some((_, len)) = extent.stored.filter(|(stored, _)| *stored == id && extent.resident) else {
                return Ok(None);
            };
            let content = self.read_chunk(ChunkAt { ino, chunk }, &extent, len)?;
            Ok((self.core.keys.chunk_id(&content) == id).then_some(content))
        };
        // Damaged or deleted: no copy to be had, which is an answer.
        read().ok().flatten()
    }

    /// Finds the files whose content is lost, for `status`, and tells of those that were not known to be.
    pub(super) fn note_lost(&self, chunks: &HashSet<ChunkId>) -> Result<(), StoreError> {
        let mut missing: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        if !chunks.is_empty() {
            let mut from = EXTENT_PREFIX.to_vec();
            loop {
                let page = self.core.store.scan(EXTENT_PREFIX, &from, SWEEP_PAGE)?;
                let Some((last, _)) = page.last() else { break };
                from.clone_from(last);
                from.push(0);
                for (key, value) in &page {
                    let extent = Extent::decode(value).map_err(corrupt)?;
                    let (ino, _) = records::parse_extent_key(key).map_err(corrupt)?;
                    let lost = !extent.resident && extent.stored.is_some_and(|(id, _)| chunks.contains(&id));
                    let counted = missing.entry(ino).or_default();
                    counted.0 += 1;
                    counted.1 += u64::from(lost);
                }
                let last = records::parse_extent_key(last).map_err(corrupt)?.0;
                missing.retain(|ino, (_, lost)| *lost > 0 || *ino == last);
            }
            missing.retain(|_, (_, lost)| *lost > 0);
            while missing.len() > LOST_FILES_MAX {
                missing.pop_last();
            }
        }
        let files = name_missing(self.core.store.as_ref(), missing).map_err(|e| match e {
            VfsError::Store(e) => e,
            other => StoreError::Corrupt(other.to_string()),
        })?;
        let mut known = self.lost.lock();
        for file in files.iter().filter(|file| !known.contains(file)) {
            let MissingFile {
                ino,
                path,
                chunks,
                missing,
            } = file;
            let what = format!("{missing} of {chunks} chunks are lost: too few miners have them; they are asked again");
            self.errors
                .add_named(format!("{path}: {what}"), format!("inode {ino}: {what}"));
        }
        *known = files;
        Ok(())
    }
}

fn corrupt(error: RecordError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests;
