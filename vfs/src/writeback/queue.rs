//! Which chunks are dirty, since when, and how far their writeback is. One entry per dirty MiB: about 250 bytes of memory.

use crate::limits::WRITEBACK_DELAYS_MAX;
use crate::records::{Extent, Kept};
use cessfs_crypto::ChunkId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A chunk that somebody is writing back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) ino: u64,
    pub(crate) chunk: u64,
    /// Whoever writes to the chunk or takes it again makes this ticket worthless.
    ticket: u64,
}

/// A chunk that was submitted and not written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Submitted {
    pub(crate) taken: Taken,
    pub(crate) id: ChunkId,
    pub(crate) len: u32,
}

/// What of a chunk was submitted last, though it was written since. The network may be told of that until what was written is
/// submitted, too: whoever waited for it was promised so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: ChunkId,
    pub(crate) len: u32,
    /// What the chunk's record said of it then.
    shape: Kept,
    ticket: u64,
}

impl Sent {
    /// What of it the chunk still is: nothing that was cut off or punched out since.
    pub(crate) fn kept_in(&self, now: &Extent) -> Kept {
        Kept {
            valid: self.shape.valid.min(now.valid),
            blocks: self.shape.blocks.common(&now.blocks),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Due at this time.
    Waiting(Duration),
    Taken,
    Submitted(ChunkId, u32),
}

#[derive(Clone, Copy, Debug)]
struct Dirty {
    /// When it turned dirty, or was taken last.
    since: Duration,
    bytes: u64,
    ticket: u64,
    /// The ticket it turned dirty with: what was taken before is of another content.
    first: u64,
    sent: Option<Sent>,
    stage: Stage,
}

/// Dirty chunks.
#[derive(Debug, Default)]
pub(crate) struct DirtyQueue {
    chunks: BTreeMap<(u64, u64), Dirty>,
    due: BTreeSet<(Duration, u64, u64)>,
    bytes: u64,
    last_ticket: u64,
}

impl DirtyQueue {
    /// Bytes of all dirty chunks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A chunk was written: it is due once it was quiet for `delay`, or some delays after it turned dirty if it never is.
    pub(crate) fn touch(&mut self, ino: u64, chunk: u64, bytes: u64, now: Duration, delay: Duration) {
        let before = self.remove(ino, chunk);
        let since = match before {
            Some(Dirty {
                since,
                stage: Stage::Waiting(_),
                ..
            }) => since,
            _ => now,
        };
        let due = (now + delay).min(since + delay * WRITEBACK_DELAYS_MAX);
        self.last_ticket += 1;
        let dirty = Dirty {
            since,
            bytes,
            ticket: self.last_ticket,
            first: before.map_or(self.last_ticket, |before| before.first),
            sent: before.and_then(|before| before.sent),
            stage: Stage::Waiting(due),
        };
        self.due.insert((due, ino, chunk));
        self.bytes += bytes;
        self.chunks.insert((ino, chunk), dirty);
    }

    fn remove(&mut self, ino: u64, chunk: u64) -> Option<Dirty> {
        let dirty = self.chunks.remove(&(ino, chunk))?;
        if let Stage::Waiting(due) = dirty.stage {
            self.due.remove(&(due, ino, chunk));
        }
        self.bytes -= dirty.bytes;
        Some(dirty)
    }

    /// The chunk is dirty no more, or gone.
    pub(crate) fn forget(&mut self, ino: u64, chunk: u64) {
        self.remove(ino, chunk);
    }

    /// The same for all chunks of an inode from `first` on.
    pub(crate) fn forget_from(&mut self, ino: u64, first: u64) {
        let gone: Vec<u64> = self
            .chunks
            .range((ino, first)..=(ino, u64::MAX))
            .map(|((_, chunk), _)| *chunk)
            .collect();
        for chunk in gone {
            self.remove(ino, chunk);
        }
    }

    /// The chunk is dirty.
    pub(super) fn has(&self, at: &(u64, u64)) -> bool {
        self.chunks.contains_key(at)
    }

    /// Some chunk is due.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due.first().is_some_and(|(due, ..)| *due <= now)
    }

    /// Takes the chunk that has been due for longest.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<Taken> {
        let &(due, ino, chunk) = self.due.first()?;
        if due > now { None } else { self.take(ino, chunk) }
    }

    /// Takes a chunk unless it is submitted already; from somebody else who has it, too.
    pub(super) fn take(&mut self, ino: u64, chunk: u64) -> Option<Taken> {
        let dirty = self.chunks.get_mut(&(ino, chunk))?;
        match dirty.stage {
            Stage::Submitted(..) => return None,
            Stage::Waiting(due) => {
                self.due.remove(&(due, ino, chunk));
            }
            Stage::Taken => {}
        }
        self.last_ticket += 1;
        dirty.ticket = self.last_ticket;
        dirty.stage = Stage::Taken;
        let ticket = dirty.ticket;
        Some(Taken { ino, chunk, ticket })
    }

    fn held(&mut self, taken: Taken) -> Option<&mut Dirty> {
        self.chunks
            .get_mut(&(taken.ino, taken.chunk))
            .filter(|dirty| dirty.ticket == taken.ticket)
    }

    /// Nobody wrote to the chunk or took it since.
    pub(super) fn still_taken(&mut self, taken: Taken) -> bool {
        self.held(taken).is_some()
    }

    /// The copy taken with this ticket was submitted; the chunk's record said this of it.
    pub(super) fn submitted(&mut self, taken: Taken, id: ChunkId, len: u32, shape: Kept) {
        let Some(dirty) = self.chunks.get_mut(&(taken.ino, taken.chunk)) else {
            return;
        };
        let ticket = taken.ticket;
        if ticket >= dirty.first && dirty.sent.is_none_or(|sent| sent.ticket < ticket) {
            dirty.sent = Some(Sent { id, len, shape, ticket });
        }
        if dirty.ticket == ticket {
            dirty.stage = Stage::Submitted(id, len);
        }
    }

    /// What was submitted of chunks that were written since.
    pub(crate) fn behind(&self) -> Vec<((u64, u64), Sent)> {
        let behind = self.chunks.iter().filter_map(|(&key, dirty)| match dirty.stage {
            Stage::Submitted(..) => None,
            _ => dirty.sent.map(|sent| (key, sent)),
        });
        behind.collect()
    }

    /// Nothing of the chunk was submitted since, nor did it turn clean.
    pub(super) fn is_last_sent(&self, at: (u64, u64), sent: &Sent) -> bool {
        self.chunks.get(&at).is_some_and(|dirty| dirty.sent == Some(*sent))
    }

    /// The chunk's record tells of what was submitted, or nothing has it any more.
    pub(super) fn forget_sent(&mut self, (ino, chunk): (u64, u64), sent: &Sent) {
        if let Some(dirty) = self.chunks.get_mut(&(ino, chunk))
            && dirty.sent == Some(*sent)
        {
            dirty.sent = None;
        }
    }

    /// What was taken waits again.
    pub(super) fn put_back(&mut self, taken: Taken, due: Duration) {
        let Some(dirty) = self.held(taken) else { return };
        dirty.stage = Stage::Waiting(due);
        self.due.insert((due, taken.ino, taken.chunk));
    }

    /// Bytes of chunks that are not submitted.
    pub(crate) fn unsubmitted_bytes(&self) -> u64 {
        let open = self.chunks.values();
        let open = open.filter(|dirty| !matches!(dirty.stage, Stage::Submitted(..)));
        open.map(|dirty| dirty.bytes).sum()
    }

    /// Inode and number of all chunks that are not submitted.
    pub(crate) fn not_submitted(&self) -> Vec<(u64, u64)> {
        let open = self
            .chunks
            .iter()
            .filter(|(_, dirty)| !matches!(dirty.stage, Stage::Submitted(..)));
        open.map(|(&key, _)| key).collect()
    }

    /// All chunks that are submitted, by inode and number.
    pub(super) fn all_submitted(&self) -> Vec<Submitted> {
        let submitted = |(&(ino, chunk), dirty): (&(u64, u64), &Dirty)| match dirty.stage {
            Stage::Submitted(id, len) => {
                let ticket = dirty.ticket;
                let taken = Taken { ino, chunk, ticket };
                Some(Submitted { taken, id, len })
            }
            _ => None,
        };
        self.chunks.iter().filter_map(submitted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::BlockMap;

    const DELAY: Duration = Duration::from_secs(5);

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn chunks_are_due_when_quiet_or_at_last() {
        let mut queue = DirtyQueue::default();
        queue.touch(1, 0, 4096, at(100), DELAY);
        queue.touch(1, 1, 4096, at(101), DELAY);
        assert_eq!(queue.take_due(at(104)), None);
        queue.touch(1, 0, 8192, at(104), DELAY);
        assert_eq!(queue.bytes(), 12288);
        assert_eq!(queue.take_due(at(108)).map(|taken| taken.chunk), Some(1));
        for second in 108..200 {
            queue.touch(1, 0, 8192, at(second), DELAY);
        }
        let last = at(100) + DELAY * WRITEBACK_DELAYS_MAX;
        assert_eq!(
            queue.take_due(last).map(|taken| taken.chunk),
            Some(0),
            "never quiet, but due at last"
        );
    }

    #[test]
    fn a_write_makes_tickets_worthless() {
        let mut queue = DirtyQueue::default();
        queue.touch(1, 0, 4096, at(0), DELAY);
        let first = queue.take(1, 0).unwrap();
        queue.touch(1, 0, 4096, at(1), DELAY);
        assert!(!queue.still_taken(first));
        let shape = Kept {
            valid: 9,
            blocks: BlockMap::default(),
        };
        queue.submitted(first, ChunkId([1; 32]), 9, shape);
        assert!(queue.all_submitted().is_empty());
        assert_eq!(
            queue.behind()[0].1.id,
            ChunkId([1; 32]),
            "what whoever waits was promised"
        );
        let second = queue.take(1, 0).unwrap();
        queue.submitted(second, ChunkId([2; 32]), 9, shape);
        assert_eq!(queue.all_submitted().len(), 1);
        assert!(queue.behind().is_empty());
        queue.touch(1, 0, 4096, at(2), DELAY);
        queue.submitted(first, ChunkId([1; 32]), 9, shape);
        assert_eq!(queue.behind()[0].1.id, ChunkId([2; 32]), "an older copy is no news");
        let third = queue.take(1, 0).unwrap();
        queue.submitted(third, ChunkId([3; 32]), 9, shape);
        assert_eq!(queue.take(1, 0), None);
        queue.forget_from(1, 0);
        assert_eq!((queue.bytes(), queue.all_submitted().len()), (0, 0));
        queue.touch(1, 0, 4096, at(3), DELAY);
        queue.submitted(third, ChunkId([3; 32]), 9, shape);
        assert!(queue.behind().is_empty(), "that was content of before it was cut off");
    }
}
