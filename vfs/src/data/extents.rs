//! The extents of a file, as the store has them and as they are.

use super::{Shared, chunk_len};
use crate::ExtentInfo;
use crate::error::VfsError;
use crate::inode::Inode;
use crate::limits::SCAN_PAGE;
use crate::records::{self, Extent};
use std::collections::BTreeMap;

impl Shared {
    pub(super) fn extents(&self, inode: &Inode) -> Result<Vec<ExtentInfo>, VfsError> {
        let state = inode.state.read();
        if state.record.inline {
            let info = ExtentInfo {
                index: 0,
                stored: None,
                len: state.record.size as u32,
                resident: true,
                dirty: false,
                inline: true,
            };
            return Ok(if state.record.size == 0 { Vec::new() } else { vec![info] });
        }
        let mut found: BTreeMap<u64, Extent> = BTreeMap::new();
        self.each_extent(inode.ino, 0, &mut |chunk, extent| {
            found.insert(chunk, extent);
            Ok(())
        })?;
        let cache = state.data.chunks.lock();
        for chunk in cache.numbers_from(0) {
            if let Some((now, _)) = cache.peek(chunk) {
                found.insert(chunk, now);
            }
        }
        drop(cache);
        let size = state.record.size;
        let info = |(index, extent): (u64, Extent)| ExtentInfo {
            index,
            stored: extent.stored.map(|(id, _)| id),
            len: chunk_len(size, index),
            resident: extent.resident,
            dirty: extent.dirty,
            inline: false,
        };
        Ok(found
            .into_iter()
            .filter(|(_, extent)| !extent.blocks.is_empty())
            .map(info)
            .collect())
    }

    /// Visits the extents of `ino` that the store has, from chunk `first` on.
    pub(crate) fn each_extent(
        &self,
        ino: u64,
        first: u64,
        visit: &mut dyn FnMut(u64, Extent) -> Result<(), VfsError>,
    ) -> Result<(), VfsError> {
        let prefix = records::extent_prefix(ino);
        let mut from = records::extent_key(ino, first);
        loop {
            let page = self.core.store.scan(&prefix, &from, SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &page {
                let (_, chunk) = records::parse_extent_key(key)?;
                visit(chunk, Extent::decode(value)?)?;
            }
        }
    }
}
