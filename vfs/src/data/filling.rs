//! Who is putting which fetched chunk into the cache: one at a time for each, and nobody once the volume is being closed.

use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;

/// No more chunks than there are readers.
#[derive(Default)]
pub(super) struct Filling {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    chunks: HashSet<(u64, u64)>,
    is_over: bool,
}

/// The right to fill a chunk, until it is dropped.
pub(super) struct Filler<'a> {
    filling: &'a Filling,
    chunk: (u64, u64),
}

impl Filling {
    /// `None`: somebody does it, or it is over.
    pub(super) fn begin(&self, ino: u64, chunk: u64) -> Option<Filler<'_>> {
        let chunk = (ino, chunk);
        let mut state = self.state.lock();
        let begins = !state.is_over && state.chunks.insert(chunk);
        begins.then(|| Filler { filling: self, chunk })
    }

    /// Waits for those who fill; nobody begins any more. What they do would be missing from the journal of a volume that was
    /// closed meanwhile.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        while !state.chunks.is_empty() {
            self.left.wait(&mut state);
        }
    }
}

impl Drop for Filler<'_> {
    fn drop(&mut self) {
        self.filling.state.lock().chunks.remove(&self.chunk);
        self.filling.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_filled_by_one_and_the_end_waits_for_him() {
        let filling = Filling::default();
        let filler = filling.begin(5, 1).unwrap();
        assert!(filling.begin(5, 1).is_none());
        drop(filling.begin(5, 2).unwrap());
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| filling.end());
            while !filling.state.lock().is_over {
                std::thread::yield_now();
            }
            assert!(!ending.is_finished(), "somebody fills");
            drop(filler);
            ending.join().unwrap();
        });
        assert!(filling.begin(5, 2).is_none());
    }
}
