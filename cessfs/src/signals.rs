//! What whoever started this program wants of signals.

use nix::sys::signal::Signal;

/// Whether a signal is to be ignored, as nohup(1) wants SIGHUP to be. To be asked before a handler is set.
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.unwrap_or(0) & (1 << (signal as u32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rust_ignores_by_itself() {
        assert!(is_ignored(Signal::SIGPIPE) && !is_ignored(Signal::SIGKILL));
    }
}
