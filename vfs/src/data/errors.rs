//! What went wrong lately, for `status`: bounded, and no message twice in a row.
//!
//! A message that holds a name has a second form without it, for whatever rests on the disk unsealed: the log, and the status
//! that is kept when the daemon ends.

use super::Data;
use crate::error::VfsError;
use crate::limits::ERRORS_KEPT_MAX;
use crate::restore::MissingFile;
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

impl Data {
    /// Adds to what [`errors`](Data::errors) tells.
    pub fn note_error(&self, error: String) {
        self.0.errors.add(error);
    }

    /// The same for a message about something that has a name: `number` tells it apart where names must not be.
    pub(crate) fn note_named_error(&self, name: &str, number: &str, message: &dyn Fn(&str) -> String) {
        self.0.errors.add_named(message(name), message(number));
    }

    /// Tells of files that a recovery could not bring back whole, as long as they are not.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) fn tell_missing(&self) -> Result<(), VfsError> {
        crate::restore::tell_missing(&self.0.core, &|ino, message| {
            let kept = format!("inode {ino}: chunks of it could not be had when this volume was recovered");
            self.0.errors.add_named(message, kept);
        })
    }

    /// The same as [`errors`](Data::errors), for what rests on the disk unsealed.
    pub fn errors_without_names(&self) -> Vec<String> {
        self.0.errors.without_names()
    }

    /// What went wrong lately, newest last.
    pub fn errors(&self) -> Vec<String> {
        self.0.errors.all()
    }

    /// Files with content that the network has lost.
    pub fn lost_files(&self) -> Vec<MissingFile> {
        self.0.lost.lock().clone()
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
