//! Panics of a world: tasks of the engine begin again after one, and the world goes on, but it is a mistake all the same.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// What panicked first in this thread's world.
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on every panic is noted for the thread, and so the world, that it happens in.
pub fn note() {
    static NOTES: Once = Once::new();
    NOTES.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            FIRST.with_borrow_mut(|first| {
                first.get_or_insert_with(|| info.to_string());
            });
            tell(info);
        }));
    });
}

/// The first panic of this thread since it was asked last.
pub fn take() -> Option<String> {
    FIRST.take()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_panic_that_somebody_caught_is_told_once() {
        super::note();
        let caught = std::panic::catch_unwind(|| panic!("this panic is part of the test"));
        assert!(caught.is_err());
        let told = super::take().expect("it was noted");
        assert!(told.contains("part of the test"), "{told}");
        assert_eq!(super::take(), None);
    }
}
