//! Which numbers packs took here, and which of them a sealed pack bears.
//!
//! A number is taken when a pack is begun. It is used once that pack is in the journal; a pack that is empty, or for which the disk has
//! no room, is thrown away with its number. So a pack on the network under a number that was taken and not used is somebody else's.

use cessfs_crypto::PackSeq;
use std::ops::Range;

/// See the room's head.
pub(super) struct Numbers {
    /// The highest that was taken, or below which none may be.
    last: u64,
    /// The highest that is in the journal, or was.
    sealed: u64,
    /// What was taken below that and thrown away, in this run: at most one range for each pack it sealed.
    unused: Vec<Range<u64>>,
}

impl Numbers {
    /// As a journal has it whose highest number this is.
    pub(super) fn new(highest: u64) -> Numbers {
        Numbers {
            last: highest,
            sealed: highest,
            unused: Vec::new(),
        }
    }

    /// The next one.
    pub(super) fn take(&mut self) -> PackSeq {
        self.last += 1;
        PackSeq(self.last)
    }

    pub(super) fn last(&self) -> PackSeq {
        PackSeq(self.last)
    }

    /// The pack of this number is in the journal: those between the one before it and itself never will be.
    pub(super) fn sealed(&mut self, seq: PackSeq) {
        let thrown_away = self.sealed + 1..seq.0;
        if !thrown_away.is_empty() {
            self.unused.push(thrown_away);
        }
        self.sealed = self.sealed.max(seq.0);
    }

    /// No pack that was sealed here bears this number, as far as this run knows.
    pub(super) fn is_unused(&self, seq: PackSeq) -> bool {
        seq.0 > self.sealed || self.unused.iter().any(|thrown_away| thrown_away.contains(&seq.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_used_only_once_it_is_sealed() {
        let mut numbers = Numbers::new(5);
        let taken: Vec<u64> = (0..4).map(|_| numbers.take().0).collect();
        assert_eq!(taken, [6, 7, 8, 9]);
        let unused = |numbers: &Numbers| (1..=10).filter(|seq| numbers.is_unused(PackSeq(*seq))).collect();
        let seen: Vec<u64> = unused(&numbers);
        assert_eq!(seen, [6, 7, 8, 9, 10]);
        numbers.sealed(PackSeq(8));
        let seen: Vec<u64> = unused(&numbers);
        assert_eq!(seen, [6, 7, 9, 10]);
        numbers.sealed(PackSeq(9));
        let seen: Vec<u64> = unused(&numbers);
        assert_eq!((seen, numbers.last()), (vec![6, 7, 10], PackSeq(9)));
    }
}
