//! First parts that others read and write: open as long as they do.

use super::Files;
use std::fs::File;
use std::io;
use std::sync::Arc;

impl Files {
    /// The first part, kept open until [`unpin`](Files::unpin); `None` if there is none and none shall be made.
    pub(in crate::backing) fn pin(&self, ino: u64, make: bool) -> io::Result<Option<Arc<File>>> {
        let Some(part) = self.part(ino, 0, make)? else {
            return Ok(None);
        };
        let mut open = self.open.lock();
        // Whoever opened it a second time meanwhile has a descriptor that counts: the one that is kept is the only one.
        let part = open.pop((ino, 0)).unwrap_or(part);
        let mut pinned = self.pinned.lock();
        let part = pinned.entry(ino).or_insert(part);
        Ok(Some(part.file.clone()))
    }

    /// First parts that may be pinned at a time. Whoever pins them counts.
    pub(in crate::backing) fn pins_max(&self) -> usize {
        self.pins_max
    }

    /// The first part is closed when others want its descriptor.
    pub(in crate::backing) fn unpin(&self, ino: u64) {
        let mut open = self.open.lock();
        let part = self.pinned.lock().remove(&ino);
        if let Some(part) = part {
            open.put((ino, 0), part);
            if open.len() > self.open_max {
                open.pop_oldest();
            }
        }
    }
}
