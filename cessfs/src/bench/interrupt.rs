//! Ctrl-C during a measurement: what is being done is done to its end, then nothing of it stays behind. A second one ends at once.

use crate::exit::{Exit, Failure};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Watches for signals from when it is made; threads that were there before would still die of them.
pub struct Interrupt {
    wanted: Arc<AtomicBool>,
    mask: SigSet,
}

impl Interrupt {
    pub fn watch() -> Result<Interrupt, Failure> {
        let cannot = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("cannot watch for signals: {e}"));
        let ignored = ignored();
        let is_heard = |signal: &Signal| ignored & (1 << (*signal as u32 - 1)) == 0;
        let signals: SigSet = SIGNALS.into_iter().filter(is_heard).collect();
        let mask = signals
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(|e| cannot(&e))?;
        let wanted = Arc::new(AtomicBool::new(false));
        let told = wanted.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || wait(signals, &told))
            .map_err(|e| cannot(&e))?;
        Ok(Interrupt { wanted, mask })
    }

    /// # Errors
    /// [`Exit::Interrupted`].
    pub fn check(&self) -> Result<(), Failure> {
        match self.wanted.load(Ordering::Acquire) {
            true => Err(Failure::new(
                Exit::Interrupted,
                "interrupted; what was made is removed again",
            )),
            false => Ok(()),
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        let _mask_is_one = self.mask.thread_set_mask();
    }
}

/// Signals that whoever started this program wants ignored, such as nohup(1), one bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

fn wait(signals: SigSet, told: &AtomicBool) {
    while let Ok(signal) = signals.wait() {
        if told.swap(true, Ordering::AcqRel) {
            let _open = signals.thread_unblock();
            let _ended = raise(signal);
        }
    }
}
