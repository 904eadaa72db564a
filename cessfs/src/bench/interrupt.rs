//! Ctrl-C during a measurement: what is being done is done to its end, then nothing of it stays behind. A second one ends at once.

use crate::exit::{Exit, Failure};
use crate::signals;
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
        let is_heard = |signal: &Signal| !signals::is_ignored(*signal);
        let heard: SigSet = SIGNALS.into_iter().filter(is_heard).collect();
        let mask = heard.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|e| cannot(&e))?;
        let wanted = Arc::new(AtomicBool::new(false));
        let told = wanted.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || wait(heard, &told))
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

fn wait(signals: SigSet, told: &AtomicBool) {
    while let Ok(signal) = signals.wait() {
        if told.swap(true, Ordering::AcqRel) {
            let _open = signals.thread_unblock();
            let _ended = raise(signal);
        }
    }
}
