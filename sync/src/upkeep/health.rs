//! How well a pack is held: what was seen of its twelve columns, kept in the journal under `H` and its number.

use crate::limits::{COLUMNS, DATA_FRAGMENTS};
use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::PackSeq;
use codec::{Decode, DecodeAll, Encode};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HEALTH_VERSION: u8 = 1;
/// Records read per scan.
const SCAN_RECORDS: usize = 256;

/// What was seen of a column last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// Nothing yet: it was right when the pack was confirmed.
    #[default]
    Unseen,
    /// Right.
    Good,
    /// Its miner did not answer, in any look since then. Counts as bad once two of those were far enough apart.
    Away,
    /// Its miner says that it does not have the fragment.
    Missing,
    /// Its miner gives other bytes than those the chain has the hash of.
    Corrupt,
    /// The chain says that its miner lost it, leaves, is no more, or has another column, too.
    Dropped,
}

/// One column's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ColumnHealth {
    /// What was seen.
    pub verdict: Verdict,
    /// In this segment.
    pub segment: u32,
    /// Wall time since when it is so, seconds since 1970.
    pub since_s: u64,
}

/// A pack's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Health {
    /// Wall time of the last look at all columns, seconds since 1970; 0: none.
    pub sampled_at_s: u64,
    /// Wall time of the last look at all bytes.
    pub read_at_s: u64,
    /// By column.
    pub columns: [ColumnHealth; COLUMNS],
}

/// What to do about a pack, by its good columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// All twelve are good.
    Whole,
    /// Some are bad; nothing to do yet.
    Watch,
    /// To be rewritten, when there is time.
    Rewrite,
    /// To be rewritten before anything else is sent.
    Urgent,
    /// Fewer than four are left.
    Lost,
}

impl Grade {
    /// Its name in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Whole => "whole",
            Grade::Watch => "watch",
            Grade::Rewrite => "rewrite",
            Grade::Urgent => "urgent",
            Grade::Lost => "lost",
        }
    }
}

/// Where the grades begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Packs with fewer good columns are rewritten.
    pub rewrite_below: u8,
    /// Packs with fewer are rewritten first.
    pub urgent_below: u8,
    /// How far two looks that a miner did not answer, nor any between them, must be apart for its columns to count as bad.
    pub away: Duration,
}

impl Health {
    /// Good columns of the twelve.
    pub fn good(&self, thresholds: &Thresholds) -> u8 {
        let good = |column: &&ColumnHealth| match column.verdict {
            Verdict::Unseen | Verdict::Good => true,
            Verdict::Away => self.is_away_lately(column, thresholds),
            Verdict::Missing | Verdict::Corrupt | Verdict::Dropped => false,
        };
        self.columns.iter().filter(good).count() as u8
    }

    /// Its miner did not answer the last look, and has not been silent for long. How long ago that look was says nothing: nobody has
    /// asked since.
    fn is_away_lately(&self, column: &ColumnHealth, thresholds: &Thresholds) -> bool {
        let silent_s = self.sampled_at_s.saturating_sub(column.since_s);
        column.verdict == Verdict::Away && silent_s < thresholds.away.as_secs()
    }

    /// Only another look tells whether a miner is back, or gone.
    pub(super) fn is_undecided(&self, thresholds: &Thresholds) -> bool {
        self.columns
            .iter()
            .any(|column| self.is_away_lately(column, thresholds))
    }

    /// Nobody was reached in a look: whoever did not answer is not to blame, and his time begins with the next look. Until then it
    /// begins after the last one, which no other's does.
    pub(super) fn excuse(&mut self, now_s: u64) {
        let away = self.columns.iter_mut().filter(|c| c.verdict == Verdict::Away);
        away.for_each(|column| column.since_s = now_s + 1);
    }

    /// See [`Grade`].
    pub fn grade(&self, thresholds: &Thresholds) -> Grade {
        match self.good(thresholds) {
            good if usize::from(good) < DATA_FRAGMENTS => Grade::Lost,
            good if good < thresholds.urgent_below => Grade::Urgent,
            good if good < thresholds.rewrite_below => Grade::Rewrite,
            good if usize::from(good) < COLUMNS => Grade::Watch,
            _ => Grade::Whole,
        }
    }

    /// Takes in what was seen of a column in a segment. That another segment is right says nothing about one that was not, and that
    /// a miner is silent makes nothing good that it did not have.
    pub(super) fn see(&mut self, column: u8, segment: u32, verdict: Verdict, now_s: u64) {
        let before = &mut self.columns[usize::from(column)];
        let bad = matches!(before.verdict, Verdict::Missing | Verdict::Corrupt);
        let elsewhere = verdict == Verdict::Good && before.segment != segment;
        if bad && (elsewhere || verdict == Verdict::Away) {
            return;
        }
        let is_excused = verdict == Verdict::Away && before.since_s > self.sampled_at_s;
        let since_s = match before.verdict == verdict && !is_excused {
            true => before.since_s,
            false => now_s,
        };
        *before = ColumnHealth {
            verdict,
            segment,
            since_s,
        };
    }
}

/// The records, in memory too: about 250 bytes a pack.
pub(crate) struct HealthBook {
    store: Arc<dyn MetaStore>,
    known: RwLock<BTreeMap<PackSeq, Health>>,
}

/// Where a pack's health is kept.
pub(super) fn health_key(seq: PackSeq) -> Vec<u8> {
    let mut key = vec![b'H'];
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

impl HealthBook {
    pub(crate) fn load(store: Arc<dyn MetaStore>) -> Result<HealthBook, StoreError> {
        let mut known = BTreeMap::new();
        let mut from = b"H".to_vec();
        loop {
            let found = store.scan(b"H", &from, SCAN_RECORDS)?;
            let Some((last, _)) = found.last() else { break };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &found {
                let seq = key
                    .get(1..)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(u64::from_be_bytes);
                let health = match value.split_first() {
                    Some((&HEALTH_VERSION, mut rest)) => Health::decode_all(&mut rest).ok(),
                    _ => None,
                };
                let (Some(seq), Some(health)) = (seq, health) else {
                    return Err(StoreError::Corrupt("health of a pack".into()));
                };
                known.insert(PackSeq(seq), health);
            }
        }
        Ok(HealthBook {
            store,
            known: RwLock::new(known),
        })
    }

    pub(crate) fn get(&self, seq: PackSeq) -> Health {
        self.known.read().get(&seq).copied().unwrap_or_default()
    }

    pub(super) fn set(&self, seq: PackSeq, health: Health) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        let mut value = vec![HEALTH_VERSION];
        health.encode_to(&mut value);
        batch.put(health_key(seq), value);
        self.store.commit(batch)?;
        self.known.write().insert(seq, health);
        Ok(())
    }

    /// The pack is no more; its record goes with the pack's.
    pub(super) fn forget(&self, seq: PackSeq) {
        self.known.write().remove(&seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;

    const THRESHOLDS: Thresholds = Thresholds {
        rewrite_below: 9,
        urgent_below: 6,
        away: Duration::from_secs(100),
    };

    #[test]
    fn grades_follow_the_number_of_good_columns() {
        let mut health = Health::default();
        let expected = [
            (12, Grade::Whole),
            (9, Grade::Watch),
            (6, Grade::Rewrite),
            (4, Grade::Urgent),
            (0, Grade::Lost),
        ];
        for good in (0..=12u8).rev() {
            let grade = expected
                .iter()
                .find(|(least, _)| good >= *least)
                .expect("0 is the least")
                .1;
            assert_eq!((health.good(&THRESHOLDS), health.grade(&THRESHOLDS)), (good, grade));
            if good > 0 {
                health.see(good - 1, 0, Verdict::Missing, 5);
            }
        }
    }

    #[test]
    fn a_miner_that_is_away_counts_as_bad_only_when_looks_see_that_it_lasts() {
        let mut health = Health::default();
        let mut look = |verdict, now_s| {
            health.see(3, 0, verdict, now_s);
            health.sampled_at_s = now_s;
            (health.good(&THRESHOLDS), health.is_undecided(&THRESHOLDS))
        };
        assert_eq!(look(Verdict::Away, 1000), (12, true));
        assert_eq!(look(Verdict::Away, 1099), (12, true));
        assert_eq!(look(Verdict::Away, 1100), (11, false));
        assert_eq!(look(Verdict::Good, 1200), (12, false));
        assert_eq!(look(Verdict::Away, 1300), (12, true));
        health.excuse(1310);
        health.sampled_at_s = 1310;
        assert!(health.is_undecided(&THRESHOLDS));
        for (now_s, good) in [(1500, 12), (1599, 12), (1600, 11)] {
            health.see(3, 0, Verdict::Away, now_s);
            health.sampled_at_s = now_s;
            assert_eq!(health.good(&THRESHOLDS), good, "nobody was reached at 1310: {now_s}");
        }
    }

    #[test]
    fn a_bad_segment_is_not_made_good_by_another() {
        let mut health = Health::default();
        health.see(0, 2, Verdict::Corrupt, 10);
        health.see(0, 1, Verdict::Good, 20);
        assert_eq!(health.columns[0].verdict, Verdict::Corrupt);
        health.see(0, 2, Verdict::Away, 22);
        health.see(0, 1, Verdict::Good, 24);
        assert_eq!(health.columns[0].verdict, Verdict::Corrupt, "nor by silence");
        health.see(0, 2, Verdict::Good, 30);
        assert_eq!(health.columns[0].verdict, Verdict::Good);
    }

    #[test]
    fn health_is_kept_and_damage_is_refused() {
        let store = Arc::new(MemStore::new());
        let book = HealthBook::load(store.clone()).unwrap();
        let mut health = Health::default();
        health.see(11, 7, Verdict::Dropped, 99);
        book.set(PackSeq(300), health).unwrap();
        let again = HealthBook::load(store.clone()).unwrap();
        assert_eq!(
            (again.get(PackSeq(300)), again.get(PackSeq(1))),
            (health, Health::default())
        );
        let mut batch = Batch::new();
        batch.put(health_key(PackSeq(4)), vec![9, 9]);
        store.commit(batch).unwrap();
        assert!(matches!(HealthBook::load(store), Err(StoreError::Corrupt(_))));
    }
}
