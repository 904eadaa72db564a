//! What went wrong lately, for `status`: bounded, and no message twice in a row.
//!
//! A message that holds a name has a second form without it, for whatever rests on the disk unsealed: the log, and the status
//! that is kept when the daemon ends.

use crate::limits::ERRORS_KEPT_MAX;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// The last messages, newest last.
#[derive(Default)]
pub(crate) struct ErrorLog(Mutex<VecDeque<Message>>);

#[derive(PartialEq, Eq)]
struct Message {
    told: String,
    /// Without names.
    kept: String,
}

impl ErrorLog {
    /// A message without names.
    pub(crate) fn add(&self, message: String) {
        self.add_named(message.clone(), message);
    }

    /// A message with names in it, and the same without.
    pub(crate) fn add_named(&self, told: String, kept: String) {
        tracing::warn!("{kept}");
        let message = Message { told, kept };
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
        self.0.lock().iter().map(|message| message.told.clone()).collect()
    }

    pub(crate) fn without_names(&self) -> Vec<String> {
        self.0.lock().iter().map(|message| message.kept.clone()).collect()
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
        assert_eq!(log.without_names(), all);
    }

    #[test]
    fn what_is_kept_has_no_names() {
        let log = ErrorLog::default();
        log.add_named("/taxes.pdf is gone".into(), "inode 7 is gone".into());
        assert_eq!(log.all(), ["/taxes.pdf is gone"]);
        assert_eq!(log.without_names(), ["inode 7 is gone"]);
    }
}
