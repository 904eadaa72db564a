//! Work that nobody waits for steps back when somebody waits for something else.

use crate::limits::{BACKGROUND_NICE, BACKGROUND_SLICE};
use std::io;

/// Lowers the calling thread's priority to the background's, and asks for long turns: the kernel (Linux 6.12) lets whoever wakes up
/// with a shorter one, so everybody else, have the processor at once instead of at the end of the turn. Where the system
/// refuses, all stays as it was.
pub fn step_back() {
    if let Err(e) = lower() {
        tracing::debug!("background work keeps its priority: {e}");
    }
}

fn lower() -> io::Result<()> {
    // SAFETY: getpriority takes two integers. With `PRIO_PROCESS` and 0 Linux looks at the calling thread alone.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }.max(BACKGROUND_NICE);
    // SAFETY: all of its fields are integers, for which zeros are a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = libc::SCHED_OTHER as u32;
    attributes.sched_nice = nice;
    attributes.sched_runtime = BACKGROUND_SLICE.as_nanos() as u64;
    // SAFETY: the kernel reads `size` bytes of the attributes, which live through the call, and writes none. 0 is the calling thread.
    let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0;
    if !refused {
        return Ok(());
    }
    // SAFETY: setpriority takes three integers and touches no memory of ours.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
