//! What went wrong lately, for `status`: bounded, and no message twice in a row.

use crate::limits::ERRORS_KEPT_MAX;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// The last messages, newest last.
#[derive(Default)]
pub(crate) struct ErrorLog(Mutex<VecDeque<String>>);

impl ErrorLog {
    pub(crate) fn add(&self, message: String) {
        tracing::warn!("{message}");
        let mut log = self.0.lock();
        if log.back() == Some(&message) {
            return;
        }
        if log.len() == ERRORS_KEPT_MAX {
            log.pop_front();
        }
        log.push_back(message);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_newest() {
        let log = ErrorLog::default();
        for number in 0..ERRORS_KEPT_MAX + 3 {
            log.add(format!("{number}"));
            log.add(format!("{number}"));
        }
        let all = log.all();
        assert_eq!(all.len(), ERRORS_KEPT_MAX);
        assert_eq!(all[0], "3");
    }
}
