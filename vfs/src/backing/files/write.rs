//! Writing to a part, and what is known of a write that failed half-way.

use super::{Files, Part, PartAt, Unsynced};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

impl Files {
    /// Writes all of `data`.
    pub(in crate::backing) fn write(&self, at: PartAt, data: &[u8]) -> io::Result<()> {
        self.write_some(at, data).1
    }

    /// Writes all of `data`, or as much as the disk takes: tells how much, and what kept it from taking the rest.
    pub(in crate::backing) fn write_some(&self, at: PartAt, data: &[u8]) -> (usize, io::Result<()>) {
        let part = match self.part_to_write(at) {
            Ok(part) => part,
            Err(e) => return (0, Err(e)),
        };
        let mut done = 0;
        let written = loop {
            if done == data.len() {
                break Ok(());
            }
            match self.write_at(&part, &data[done..], at.offset + done as u64) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(more) => done += more,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        // Once more, also if it failed: a sync that ran meanwhile took the note, and may have had only a part.
        self.note_unsynced(at.ino, at.part);
        (done, written.and_then(|()| self.account(&part)))
    }

    fn write_at(&self, part: &Part, data: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(takes) = &self.takes {
            return match takes(offset, data.len()) {
                0 => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                taken => part.file.write_at(&data[..taken], offset),
            };
        }
        part.file.write_at(data, offset)
    }

    /// What was written and not synced is no longer there as it was: as after a sync that failed, none succeeds any more.
    pub(in crate::backing) fn give_up(&self, ino: u64, error: &io::Error) {
        self.put_back(ino, Unsynced::default(), Some(error));
    }

    /// The same files on a disk that takes no more of a write than this says.
    #[cfg(test)]
    pub(in crate::backing) fn taking(mut self, takes: crate::backing::Takes) -> Files {
        self.takes = Some(takes);
        self
    }
}
