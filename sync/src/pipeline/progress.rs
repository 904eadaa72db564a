//! How far the columns of each pack are: for `status`, kept in memory only.

use crate::limits::COLUMNS;
use cessfs_crypto::PackSeq;
use parking_lot::Mutex;
use std::collections::HashMap;

/// One column, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnProgress {
    /// Bytes its miner took since this process started.
    pub sent_bytes: u64,
    /// The chain has its report.
    pub reported: bool,
    /// What is wrong with it, if anything.
    pub trouble: Option<String>,
}

#[derive(Default)]
pub(crate) struct ProgressBoard {
    packs: Mutex<HashMap<PackSeq, [ColumnProgress; COLUMNS]>>,
}

impl ProgressBoard {
    pub(super) fn change(&self, seq: PackSeq, column: u8, change: impl FnOnce(&mut ColumnProgress)) {
        let mut packs = self.packs.lock();
        change(&mut packs.entry(seq).or_default()[usize::from(column)]);
    }

    pub(super) fn forget(&self, seq: PackSeq) {
        self.packs.lock().remove(&seq);
    }

    pub(crate) fn get(&self, seq: PackSeq) -> [ColumnProgress; COLUMNS] {
        self.packs.lock().get(&seq).cloned().unwrap_or_default()
    }
}
