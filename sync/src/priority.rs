//! Work that nobody waits for steps back when somebody waits for something else.

use crate::limits::BACKGROUND_NICE;

/// Lowers the calling thread's priority to the background's. Where the system refuses, all stays as it was.
pub fn step_back() {
    // SAFETY: setpriority takes three integers and touches no memory of ours. With `PRIO_PROCESS` and 0 Linux changes the
    // calling thread alone.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND_NICE) } != 0;
    if refused {
        tracing::debug!(
            "background work keeps its priority: {}",
            std::io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_steps_back() {
        // SAFETY: as above.
        let own = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = own();
        let other = std::thread::spawn(move || {
            step_back();
            own()
        });
        assert_eq!(other.join().unwrap(), before.max(BACKGROUND_NICE));
        assert_eq!(own(), before);
    }
}
