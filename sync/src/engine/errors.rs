//! The last things that went wrong, for `status`.

use crate::clock::Clock;
use crate::limits::ERRORS_KEPT;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Wall time since 1970.
    pub at: Duration,
    /// What happened.
    pub text: String,
}

pub(crate) struct Errors {
    clock: Arc<dyn Clock>,
    kept: Mutex<VecDeque<Trouble>>,
}

impl Errors {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Errors {
        Errors {
            clock,
            kept: Mutex::default(),
        }
    }

    /// Logs an error and keeps it; the oldest makes room.
    pub(crate) fn push(&self, text: String) {
        tracing::warn!("{text}");
        let mut kept = self.kept.lock();
        if kept.len() == ERRORS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Trouble {
            at: self.clock.wall(),
            text,
        });
    }

    /// Oldest first.
    pub(crate) fn list(&self) -> Vec<Trouble> {
        self.kept.lock().iter().cloned().collect()
    }
}
