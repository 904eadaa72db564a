//! Encoded pieces of staged bodies, shared by the columns that send them.
//!
//! A *row* is the same 512 KiB of all twelve fragments of a segment. The columns of a pack move at about the same pace, so a row
//! is read and encoded once, when the first column wants its part of it, and handed out in twelve parts. Parity needs no place on
//! the staging disk, and no fragment is ever whole in memory. Buffers go round: a part that was sent gives its memory to the next
//! row. A column that comes when its row is gone (a slow miner, or one that
//! starts over) has its own part computed alone.

use super::body::{read_column, read_row};
use crate::foreground::Foreground;
use crate::ledger::stopped;
use crate::limits::{COLUMNS, ROWS_KEPT, fragment_bytes, row_bytes};
use crate::stages;
use crate::staging::{Staging, store_error};
use crate::store::StoreError;
use crate::tasks::{Gone, Tasks};
use bytes::Bytes;
use cessfs_crypto::PackSeq;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Segment and row within it; rows of a pack are made in this order.
type Place = (u32, u32);

/// Rows of one fragment.
pub(super) fn rows_per_fragment() -> u32 {
    (fragment_bytes() / row_bytes()) as u32
}

/// The parts that nobody has taken yet.
#[derive(Default)]
struct Row(OnceCell<Mutex<[Option<Bytes>; COLUMNS]>>);

impl Row {
    fn take(&self, column: u8) -> Option<Bytes> {
        self.0.get()?.lock()[usize::from(column)].take()
    }
}

#[derive(Default)]
struct State {
    /// Oldest first; at most [`ROWS_KEPT`].
    kept: VecDeque<(PackSeq, Place, Arc<Row>)>,
    /// How far each pack's rows have come.
    newest: HashMap<PackSeq, Place>,
}

impl State {
    /// The row, if it is kept or is the next to be made.
    fn row(&mut self, seq: PackSeq, place: Place) -> Option<Arc<Row>> {
        let kept = self.kept.iter().find(|(s, p, _)| (*s, *p) == (seq, place));
        if let Some((_, _, row)) = kept {
            return Some(row.clone());
        }
        if self.newest.get(&seq).is_some_and(|newest| *newest >= place) {
            return None;
        }
        self.newest.insert(seq, place);
        if self.kept.len() == ROWS_KEPT {
            self.kept.pop_front();
        }
        let row = Arc::new(Row::default());
        self.kept.push_back((seq, place, row.clone()));
        Some(row)
    }
}

/// Buffers of [`row_bytes`] that nobody uses: at most those of one row, which is what the next one takes.
#[derive(Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// A buffer with anything in it.
    fn take(&self) -> Vec<u8> {
        let used = self.0.lock().pop();
        used.unwrap_or_else(|| vec![0; row_bytes()])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut free = self.0.lock();
        if free.len() < COLUMNS {
            free.push(buffer);
        }
    }
}

/// A buffer that goes back to its pool.
struct Pooled {
    buffer: Vec<u8>,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

/// Rows of the packs that are being sent.
pub(super) struct Rows {
    staging: Staging,
    tasks: Tasks,
    foreground: Arc<Foreground>,
    state: Mutex<State>,
    pool: Arc<Pool>,
}

impl Rows {
    pub(super) fn new(staging: Staging, tasks: Tasks, foreground: Arc<Foreground>) -> Rows {
        Rows {
            staging,
            tasks,
            foreground,
            state: Mutex::default(),
            pool: Arc::default(),
        }
    }

    /// A column's part of a row. Blocks on disk and processor, in a thread for that, and goes behind those who use the mount.
    pub(super) async fn part(&self, seq: PackSeq, place: Place, column: u8) -> Result<Bytes, StoreError> {
        let row = self.state.lock().row(seq, place);
        if let Some(row) = row {
            row.0.get_or_try_init(|| self.encode(seq, place)).await?;
            if let Some(part) = row.take(column) {
                return Ok(part);
            }
        }
        let staging = self.staging.clone();
        let (segment, start) = (place.0, place.1 * row_bytes() as u32);
        let alone = move || {
            let body = staging.body(seq)?;
            read_column(&body, segment, column, start..start + row_bytes() as u32)
        };
        Ok(self.blocking(alone).await?.into())
    }

    async fn encode(&self, seq: PackSeq, (segment, row): Place) -> Result<Mutex<[Option<Bytes>; COLUMNS]>, StoreError> {
        let (staging, pool) = (self.staging.clone(), self.pool.clone());
        let parts = self.blocking(move || {
            let _span = stages::ROW_ENCODE.enter();
            let mut parts = std::array::from_fn(|_| pool.take());
            read_row(&staging.body(seq)?, segment, row, &mut parts)?;
            Ok(parts)
        });
        let parts = parts.await?.map(|buffer| {
            let pool = self.pool.clone();
            Some(Bytes::from_owner(Pooled { buffer, pool }))
        });
        Ok(Mutex::new(parts))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.foreground.give_way().await;
        let done = self.tasks.blocking(work).await;
        done.map_err(|Gone| stopped())?.map_err(store_error)
    }

    /// The pack needs no rows any more.
    pub(super) fn forget(&self, seq: PackSeq) {
        let mut state = self.state.lock();
        state.kept.retain(|(s, _, _)| *s != seq);
        state.newest.remove(&seq);
        if state.newest.is_empty() {
            // Nothing is being sent: the memory is not needed.
            drop(state);
            self.pool.0.lock().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ByHand, Clock};
    use crate::limits::{FOREGROUND_PAUSE, FOREGROUND_REQUESTS_MIN, ROW_BYTES, SEGMENT_BYTES};
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    const SEQ: PackSeq = PackSeq(7);

    fn rows() -> (tempfile::TempDir, Rows, Staging) {
        rows_at(Arc::new(ByHand::default()))
    }

    fn rows_at(clock: Arc<ByHand>) -> (tempfile::TempDir, Rows, Staging) {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(dir.path()).unwrap();
        let body = staging.create(SEQ).unwrap();
        body.set_len(SEGMENT_BYTES as u64).unwrap();
        for at in (0..SEGMENT_BYTES as u64).step_by(ROW_BYTES / 2) {
            body.write_all_at(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(), at)
                .unwrap();
        }
        let tasks = tokio::runtime::Handle::current().into();
        let foreground = Arc::new(Foreground::new(clock));
        (dir, Rows::new(staging.clone(), tasks, foreground), staging)
    }

    fn plain(staging: &Staging, (segment, row): Place, column: u8) -> Vec<u8> {
        let start = row * ROW_BYTES as u32;
        read_column(
            &staging.body(SEQ).unwrap(),
            segment,
            column,
            start..start + ROW_BYTES as u32,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn parts_are_those_of_the_column_whoever_comes_when() {
        let (_dir, rows, staging) = rows();
        for row in 0..rows_per_fragment() {
            for column in (0..COLUMNS as u8).rev() {
                let part = rows.part(SEQ, (0, row), column).await.unwrap();
                assert_eq!(part, plain(&staging, (0, row), column), "row {row} column {column}");
            }
        }
        // A column may ask again: for the last row, which all have taken, and for the first, which is no longer kept.
        for row in [rows_per_fragment() - 1, 0] {
            assert_eq!(rows.part(SEQ, (0, row), 9).await.unwrap(), plain(&staging, (0, row), 9));
        }
        assert!(rows.state.lock().kept.len() <= ROWS_KEPT);
        assert_eq!(rows.pool.0.lock().len(), COLUMNS, "buffers go round");
        rows.forget(SEQ);
        assert!(rows.pool.0.lock().is_empty());
        assert!(rows.state.lock().kept.is_empty() && rows.state.lock().newest.is_empty());
    }

    #[tokio::test]
    async fn rows_are_made_when_the_mount_is_quiet() {
        let clock = Arc::new(ByHand::default());
        let (_dir, rows, _staging) = rows_at(clock.clone());
        rows.part(SEQ, (0, 0), 3).await.unwrap();
        assert_eq!(clock.monotonic(), Duration::ZERO, "nobody is there");
        (0..FOREGROUND_REQUESTS_MIN).for_each(|_| rows.foreground.note());
        rows.part(SEQ, (0, 1), 3).await.unwrap();
        assert!(clock.monotonic() >= FOREGROUND_PAUSE);
    }

    #[tokio::test]
    async fn a_body_that_is_gone_is_told() {
        let (_dir, rows, staging) = rows();
        staging.remove(SEQ).unwrap();
        assert!(rows.part(SEQ, (0, 0), 3).await.is_err());
        assert!(rows.part(SEQ, (0, 0), 3).await.is_err(), "and told again");
    }
}
