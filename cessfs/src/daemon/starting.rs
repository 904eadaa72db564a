//! Telling those who wait for a daemon that it is still opening its volume: `mount`, and systemd.
//!
//! What a recovery after a crash takes is as long as what was written shortly before, and it begins anew at the next start: who gave up
//! on it too soon would never get the volume back. So the daemon tells that it works, but only while it does: while its other
//! threads use the processor or the disk, and not for longer than [`WORKING_MAX`]. One that is stuck says nothing.

use super::notify;
use crate::limits::{READY_TIMEOUT, WORKING_EVERY, WORKING_MAX, WORKING_TIME_MIN};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Tells until it is dropped.
pub struct Working {
    /// `None` once it is to end.
    end: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Working {
    /// Begins. `say` tells the process that started this one, if there is one that listens.
    pub fn tell(say: impl Fn() + Send + 'static) -> Working {
        let tell = move || {
            say();
            notify::working(READY_TIMEOUT);
        };
        Working::tell_every(WORKING_EVERY, tell)
    }

    fn tell_every(every: Duration, tell: impl Fn() + Send + 'static) -> Working {
        let (end, ended) = mpsc::channel::<()>();
        let teller = std::thread::Builder::new().name("starting".to_owned()).spawn(move || {
            let mut before = Used::by_others();
            let mut left = WORKING_MAX;
            while !left.is_zero() && ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let now = Used::by_others();
                if now.is_work_since(&before) {
                    tell();
                }
                before = now;
                left = left.saturating_sub(every);
            }
        });
        // Without the thread the start may take as long as it may without a word.
        let teller = teller
            .inspect_err(|e| tracing::warn!("cannot start a thread: {e}"))
            .ok();
        Working { end: Some(end), teller }
    }
}

impl Drop for Working {
    /// Nothing is told after it.
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(teller) = self.teller.take() {
            let _or_it_panicked = teller.join();
        }
    }
}

/// What the process has used so far, but for the thread that asks.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    processor: Duration,
    /// Blocks that were read from the disk or written to it.
    blocks: i64,
}

impl Used {
    fn by_others() -> Used {
        let of = |who| getrusage(who).map(|usage| Used::of(&usage)).unwrap_or_default();
        let (all, own) = (of(UsageWho::RUSAGE_SELF), of(UsageWho::RUSAGE_THREAD));
        Used {
            processor: all.processor.saturating_sub(own.processor),
            blocks: all.blocks - own.blocks,
        }
    }

    fn of(usage: &Usage) -> Used {
        let (user, system) = (usage.user_time(), usage.system_time());
        let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
        Used {
            processor: Duration::from_micros(micros(user) + micros(system)),
            blocks: usage.block_reads() + usage.block_writes(),
        }
    }

    fn is_work_since(&self, before: &Used) -> bool {
        self.blocks > before.blocks || self.processor.saturating_sub(before.processor) >= WORKING_TIME_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_or_the_disk_is_work_and_waiting_is_none() {
        let used = |millis, blocks| Used {
            processor: Duration::from_millis(millis),
            blocks,
        };
        let before = used(1000, 7);
        assert!(used(1000, 8).is_work_since(&before));
        assert!(used(1050, 7).is_work_since(&before));
        assert!(!used(1000, 7).is_work_since(&before));
        assert!(!used(1001, 7).is_work_since(&before), "threads that only wait");
    }

    #[test]
    fn who_works_is_told_of_until_the_end() {
        let (sender, told) = mpsc::channel();
        let working = Working::tell_every(Duration::from_millis(50), move || {
            let _test_is_over = sender.send(());
        });
        let began = std::time::Instant::now();
        let mut sum = 0_u64;
        while told.try_recv().is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "this thread works ({sum})");
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        drop(working);
        let _before_the_end = told.try_iter().count();
        assert!(told.recv().is_err(), "it has let go of the channel");
    }
}
