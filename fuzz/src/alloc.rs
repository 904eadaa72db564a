//! An allocator that counts what each thread holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes this thread allocated and did not free. Others may free them, so it can go below zero.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// Highest value of it since the measurement began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting.
#[derive(Debug)]
pub struct Counting;

fn count(change: isize) {
    // A thread that ends may allocate when its counters are gone already.
    let _ = HELD.try_with(|held| {
        let now = held.get().wrapping_add(change);
        held.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting allocates nothing, because
// the counters are constants at first and need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the memory came from `System` under this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new may exist at once while it is copied.
        count(size as isize);
        // SAFETY: as for `dealloc`; the new size is the caller's promise.
        let moved = unsafe { System.realloc(memory, layout, size) };
        count(-(layout.size() as isize));
        moved
    }
}

/// Most bytes that this thread held at a time while `work` ran, beyond what it held before.
pub fn peak_bytes(work: impl FnOnce()) -> usize {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    work();
    usize::try_from(PEAK.with(Cell::get) - before).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let peak = peak_bytes(|| {
            for _ in 0..10 {
                drop(std::hint::black_box(vec![1u8; 100_000]));
            }
            let mut growing = Vec::with_capacity(50_000);
            growing.resize(60_000, 0u8);
            std::hint::black_box(growing);
        });
        assert!((140_000..160_000).contains(&peak), "{peak}");
        assert!(peak_bytes(|| ()) < 1000);
    }

    #[test]
    fn a_target_that_holds_too_much_fails() {
        let bound = crate::Bound {
            fixed: 1000,
            per_byte: 10,
        };
        let greedy = |input: &[u8]| drop(std::hint::black_box(vec![0u8; input.len() * 20]));
        crate::check(greedy, bound, &[0; 10]);
        assert!(std::panic::catch_unwind(|| crate::check(greedy, bound, &[0; 1000])).is_err());
    }
}
