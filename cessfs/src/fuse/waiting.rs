//! Requests that wait for the network: which reads do, and whose process is being killed meanwhile.
//!
//! fuser 0.18 does not hand the kernel's INTERRUPT on and answers that it does not know it. From then on a process whose request was
//! read here waits for the answer whatever comes, SIGKILL too. So the daemon looks itself, every [`KILLED_LOOK_EVERY`], and gives a
//! process that is ending its answer, `EINTR`. Only then: a process that goes on is never told of a signal by a file.

use super::patience::Wanted;
use super::privileges::field;
use crate::limits::KILLED_LOOK_EVERY;
use fuser::{OpenFlags, Request};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

/// Who reads.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    pub(super) flags: OpenFlags,
    /// 0: the kernel itself, or somebody whom the daemon cannot see.
    pub(super) pid: u32,
}

impl Reader {
    pub(super) fn of(req: &Request, flags: OpenFlags) -> Reader {
        Reader { flags, pid: req.pid() }
    }
}

/// The reads that wait for the network. Bounded by what the kernel has on its way.
#[derive(Clone, Default)]
pub(super) struct Reads(Arc<Mutex<Vec<Wanted>>>);

/// One of them, until this is dropped.
pub(super) struct Waiting {
    wanted: Wanted,
    reads: Reads,
}

impl Reads {
    pub(super) fn begin(&self, wanted: Wanted) -> Waiting {
        self.0.lock().push(wanted);
        Waiting {
            wanted,
            reads: self.clone(),
        }
    }

    /// A read of this place waits.
    pub(super) fn wait_for(&self, place: &Wanted) -> bool {
        self.0.lock().iter().any(|read| read.overlaps(place))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut reads = self.reads.0.lock();
        if let Some(at) = reads.iter().position(|read| *read == self.wanted) {
            reads.swap_remove(at);
        }
    }
}

/// What `work` comes to; `None` if process `pid` is killed first. `work` is given up then.
pub(super) async fn unless_killed<T>(pid: u32, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(KILLED_LOOK_EVERY, &mut work).await {
            Ok(done) => return Some(done),
            Err(_elapsed) if is_ending(pid) => return None,
            Err(_elapsed) => {}
        }
    }
}

fn is_ending(pid: u32) -> bool {
    pid != 0 && std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| ends(&status))
}

/// The text of `/proc/PID/status` is of a thread that will not go on with its program. The kernel turns nearly every signal that
/// ends a process into SIGKILL for each of its threads; not those that leave a core file.
fn ends(status: &str) -> bool {
    const CORES: [i32; 9] = [
        libc::SIGQUIT,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGXCPU,
        libc::SIGSYS,
    ];
    const SHORT: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
    let signals = |name| {
        let mask = field(status, name).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.unwrap_or(0)
    };
    let bit = |signal: i32| 1_u64 << (signal - 1);
    let pending = signals("SigPnd") | signals("ShdPnd");
    let kept = signals("SigBlk") | signals("SigIgn") | signals("SigCgt");
    let ending = CORES.into_iter().chain(SHORT).fold(0, |all, signal| all | bit(signal));
    pending & bit(libc::SIGKILL) != 0 || pending & ending & !kept != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_killed_and_who_is_not() {
        let status = |pending: u64, shared: u64, blocked: u64, ignored: u64, caught: u64| {
            format!(
                "Name:\tcat\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\n\
                 SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
            )
        };
        let (kill, term, chld) = (1 << 8, 1 << 14, 1 << 16);
        assert!(ends(&status(kill, 0, 0, 0, 0)) && ends(&status(0, kill, 0, 0, 0)));
        assert!(ends(&status(0, term, 0, 0, 0)));
        assert!(!ends(&status(0, term, term, 0, 0)) && !ends(&status(0, term, 0, term, 0)));
        assert!(
            !ends(&status(0, term, 0, 0, term)),
            "its handler runs when the answer is there"
        );
        assert!(!ends(&status(0, chld, 0, 0, 0)) && !ends(&status(0, 0, 0, 0, 0)) && !ends(""));
    }

    #[test]
    fn a_read_waits_until_it_is_dropped() {
        let (reads, wanted) = (
            Reads::default(),
            Wanted {
                ino: 5,
                offset: 4096,
                bytes: 8192,
            },
        );
        let (first, second) = (reads.begin(wanted), reads.begin(wanted));
        let at = |offset| Wanted {
            offset,
            bytes: 1,
            ..wanted
        };
        assert!(reads.wait_for(&at(12_287)) && !reads.wait_for(&at(12_288)) && !reads.wait_for(&at(4095)));
        drop(first);
        assert!(reads.wait_for(&at(4096)));
        drop(second);
        assert!(!reads.wait_for(&at(4096)));
    }

    #[tokio::test]
    async fn what_ends_is_told_and_a_process_that_lives_waits() {
        let slow = async {
            tokio::time::sleep(KILLED_LOOK_EVERY.mul_f32(1.1)).await;
            7
        };
        assert_eq!(unless_killed(std::process::id(), slow).await, Some(7));
        assert_eq!(unless_killed(0, async { 8 }).await, Some(8));
    }
}
