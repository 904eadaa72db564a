//! Data and holes, as the extents tell: never as the cache happens to have them.

use super::{BLOCK, CHUNK, Shared};
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::SCAN_PAGE;
use crate::records::{self, Extent};
use crate::request::Seek;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

impl Shared {
    /// The first byte from `offset` on that is data (or in a hole).
    pub(super) fn seek(&self, inode: &Inode, offset: u64, what: Seek) -> Result<u64, VfsError> {
        let state = inode.state.read();
        state.check_alive()?;
        if let Some(pass) = &state.data.pass {
            return Shared::seek_passing(&pass.file, offset, what);
        }
        let size = state.record.size;
        if offset >= size {
            return Err(VfsError::NoOffset);
        }
        if state.record.inline {
            return match (what, state.record.blocks > 0) {
                (Seek::Data, true) | (Seek::Hole, false) => Ok(offset),
                (Seek::Hole, true) => Ok(size),
                (Seek::Data, false) => Err(VfsError::NoOffset),
            };
        }
        match what {
            Seek::Data => {
                let found = self.find_data(inode.ino, &state, offset)?;
                found.filter(|at| *at < size).ok_or(VfsError::NoOffset)
            }
            Seek::Hole => Ok(self.find_hole(inode.ino, &state, offset)?.min(size)),
        }
    }

    fn find_data(&self, ino: u64, state: &InodeState, offset: u64) -> Result<Option<u64>, VfsError> {
        let mut found = None;
        self.walk(ino, state, offset / CHUNK, &mut |chunk, extent| {
            let start = chunk * CHUNK;
            let first = offset.saturating_sub(start) as usize / BLOCK;
            match extent.blocks.first(first, true) {
                Some(block) => {
                    found = Some(offset.max(start + (block * BLOCK) as u64));
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            }
        })?;
        Ok(found)
    }

    fn find_hole(&self, ino: u64, state: &InodeState, offset: u64) -> Result<u64, VfsError> {
        let mut at = offset;
        self.walk(ino, state, offset / CHUNK, &mut |chunk, extent| {
            let start = chunk * CHUNK;
            if start > at {
                return ControlFlow::Break(());
            }
            match extent.blocks.first((at - start) as usize / BLOCK, false) {
                Some(block) => {
                    at = at.max(start + (block * BLOCK) as u64);
                    ControlFlow::Break(())
                }
                None => {
                    at = start + CHUNK;
                    ControlFlow::Continue(())
                }
            }
        })?;
        Ok(at)
    }

    /// Visits the chunks from `first` on, ascending, as they are: in memory where it is ahead of the store. Those that are
    /// not visited are holes; some that are visited may be.
    pub(super) fn walk(
        &self,
        ino: u64,
        state: &InodeState,
        first: u64,
        visit: &mut dyn FnMut(u64, &Extent) -> ControlFlow<()>,
    ) -> Result<(), VfsError> {
        let mut in_memory: BTreeMap<u64, Extent> = {
            let cache = state.data.chunks.lock();
            let known = |chunk| cache.peek(chunk).map(|(now, _)| (chunk, now));
            cache.numbers_from(first).into_iter().filter_map(known).collect()
        };
        let prefix = records::extent_prefix(ino);
        let mut from = records::extent_key(ino, first);
        loop {
            let page = self.core.store.scan(&prefix, &from, SCAN_PAGE)?;
            let mut found = BTreeMap::new();
            for (key, value) in &page {
                let (_, chunk) = records::parse_extent_key(key)?;
                found.insert(chunk, Extent::decode(value)?);
            }
            let later = match page.last() {
                Some((last, _)) if page.len() == SCAN_PAGE => {
                    from.clone_from(last);
                    from.push(0);
                    let (_, chunk) = records::parse_extent_key(last)?;
                    in_memory.split_off(&(chunk + 1))
                }
                _ => BTreeMap::new(),
            };
            found.append(&mut in_memory);
            in_memory = later;
            for (chunk, extent) in &found {
                if visit(*chunk, extent).is_break() {
                    return Ok(());
                }
            }
            if page.len() < SCAN_PAGE {
                return Ok(());
            }
        }
    }
}
