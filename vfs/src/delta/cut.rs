//! A cut: the marked records as they were at one instant, fit to travel.
//!
//! What travels is not always what the store has. Local matters (resident, dirty) are left out; chunks that were submitted
//! count as stored, because their pack is this one or an earlier one. A file with dirty chunks that were not submitted is
//!
//! | | told before | new |
//! |---|---|---|
//! | pack is full | left as the last delta told it | named, but empty |
//! | cut is forced | told with what was submitted, never longer than that | the same |
//! | it is forced, and the file was a record until its first chunk, which was not submitted | told as that record, which is kept for it | as that record |
//!
//! and whatever was left out is marked again, for the next cut. Names always travel. An inode without links does not,
//! unless it is in the trash.
//!
//! A checkpoint carries all records, not only marked ones, as a forced cut carries them: replay may start there.
//!
//! While changes are frozen for a snapshot nothing is unsent; the cut that is made then carries the snapshot's record, and
//! the tree as of its pack is the snapshot. If something is unsent all the same, it is a cut like any other.

use super::frame::{DELTA_KINDS, FrameWriter};
use super::marks::SAVED_PREFIX;
use crate::data::state::{DIRTY_PREFIX, HOLED_PREFIX, KEPT_PREFIX, decode_holed, holed_key, kept_key};
use crate::data::young::inline_blocks;
use crate::data::{CHUNK, Shared};
use crate::inode::ROOT_INO;
use crate::records::{
    self, BlockMap, DENTRY_PREFIX, EXTENT_PREFIX, Extent, INLINE_PREFIX, INODE_PREFIX, InodeRecord, QUOTA_PREFIX,
    RecordError, SNAPSHOT_PREFIX, SnapshotRecord, TRASH_PREFIX, XATTR_PREFIX,
};
use crate::snapshot::Wanted;
use crate::writeback::Sent;
use cessfs_crypto::{ChunkId, PackSeq};
use cessfs_sync::{Batch, ChunkSink, CutCause, DeltaSource, StoreError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// Cuts that were written and neither sealed nor abandoned: pack, and the last generation of marks it carries.
#[derive(Default)]
pub(crate) struct Cutter(Mutex<BTreeMap<PackSeq, Written>>);

/// What a pack with a cut ends once it is sealed.
struct Written {
    /// The marks up to this generation.
    until: u64,
    /// Inodes of which nothing need be kept, or known, for the network any longer.
    told: Vec<u64>,
}

/// Ids of chunks that count as stored, by inode and chunk.
type InFlight = BTreeMap<(u64, u64), (ChunkId, u32)>;

/// How an inode travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// As it is.
    Whole,
    /// Not now.
    Left,
    /// With no content.
    Empty,
    /// With what was submitted, up to this size.
    Partly(u64),
    /// As the record that it has outgrown.
    Record,
    /// As one that is no more.
    Gone,
}

/// One cut being written.
struct Cut<'a> {
    shared: &'a Shared,
    cause: CutCause,
    until: u64,
    in_flight: InFlight,
    /// Of chunks that were written since: what was submitted last.
    behind: BTreeMap<(u64, u64), Sent>,
    /// Inodes with dirty chunks that were not submitted.
    unsent: BTreeSet<u64>,
    /// Inodes that outgrew a record which is kept for this.
    kept: BTreeSet<u64>,
    /// How long files were, at the least, that were written where they had holes.
    holed: BTreeMap<u64, u64>,
    /// Those of both that travel as they are.
    told: Vec<u64>,
    /// The inode decided last: records of one inode and kind follow each other.
    decided: Option<(u64, Passage)>,
    /// Keys the next cut has to carry.
    left: Vec<Vec<u8>>,
}

impl DeltaSource for Shared {
    fn cut(
        &self,
        seq: PackSeq,
        cause: CutCause,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // What stays is to be sent as a chunk once, not with each change of its record.
        self.settle_young(true);
        let (until, (in_flight, behind, snapshot)) = self.core.marks.begin_cut(|| {
            let in_flight = self.submitted_ids().into_iter().collect();
            let behind = self.behind().into_iter().collect();
            (in_flight, behind, self.core.take_wanted_snapshot())
        });
        let mut cut = Cut {
            shared: self,
            cause,
            until,
            in_flight,
            behind,
            unsent: BTreeSet::new(),
            kept: BTreeSet::new(),
            holed: BTreeMap::new(),
            told: Vec::new(),
            decided: None,
            left: Vec::new(),
        };
        let written = cut.write(seq, snapshot, sink);
        let ended = self.core.marks.end_cut();
        let carried_over = self.core.marks.carry_over(&cut.left, cause == CutCause::Full);
        match written.and_then(|snapshot| ended.and(carried_over).map(|()| snapshot)) {
            Ok(snapshot) => {
                self.core.snapshots.cut(snapshot);
                self.cutter().0.lock().insert(seq, Written { until, told: cut.told });
                Ok(())
            }
            Err(error) => {
                self.core.marks.give_back();
                Err(error)
            }
        }
    }

    fn sealed(&self, seq: PackSeq, batch: &mut Batch) {
        let Some(Written { until, told }) = self.cutter().0.lock().remove(&seq) else {
            return;
        };
        for ino in told {
            batch.delete(kept_key(ino));
            // One that was noted since the cut is for the next.
            let noted = self.core.store.get(&holed_key(ino)).ok().flatten();
            let noted = noted.as_deref().and_then(decode_holed);
            if noted.is_some_and(|(generation, _)| generation <= until) {
                batch.delete(holed_key(ino));
            }
        }
        self.core.marks.clear(until, batch);
        self.core.snapshots.sealed(seq, batch);
    }

    fn abandoned(&self, seq: PackSeq) {
        self.cutter().0.lock().remove(&seq);
        self.core.snapshots.abandoned(seq);
        self.core.marks.give_back();
    }

    fn pending(&self) -> Option<(Duration, u64)> {
        let pending = self.core.marks.pending();
        // A snapshot needs a pack, though nothing else may have changed.
        pending.or_else(|| self.core.snapshots.is_wanted().then_some((Duration::ZERO, 0)))
    }

    fn pinned(&self) -> Option<PackSeq> {
        self.core.snapshots.pinned()
    }

    fn live(&self, visit: &mut dyn FnMut(ChunkId)) -> Result<bool, StoreError> {
        self.visit_live(visit)?;
        Ok(true)
    }

    fn cached(&self, wanted: &dyn Fn(ChunkId) -> bool, give: &mut ChunkSink<'_>) -> Result<(), StoreError> {
        self.give_cached(wanted, give)
    }

    fn lost(&self, chunks: &HashSet<ChunkId>) -> Result<(), StoreError> {
        self.note_lost(chunks)
    }
}

impl Cut<'_> {
    /// Writes everything; with it the record of a snapshot, if this cut is one.
    fn write(
        &mut self,
        seq: PackSeq,
        snapshot: Option<Wanted>,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<Option<(u64, SnapshotRecord)>, StoreError> {
        let marks = &self.shared.core.marks;
        marks.each(self.until, &mut |_, key, _| {
            if key.starts_with(EXTENT_PREFIX) {
                let (ino, chunk) = records::parse_extent_key(key).map_err(corrupt)?;
                if self.is_unsent(ino, chunk)? {
                    self.unsent.insert(ino);
                }
            }
            Ok(())
        })?;
        self.each_key(KEPT_PREFIX, |cut, key| {
            let ino = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            cut.kept.extend(ino);
            Ok(())
        })?;
        self.each_key(HOLED_PREFIX, |cut, key| {
            let ino = key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            let noted = cut.shared.core.store.get(key)?;
            let size = noted.as_deref().and_then(decode_holed).map(|(_, size)| size);
            cut.holed.extend(ino.zip(size));
            Ok(())
        })?;
        let mut writer = FrameWriter::new(sink);
        match self.cause {
            CutCause::Full | CutCause::Forced => {
                marks.each(self.until, &mut |_, key, _| self.carry(key, &mut writer))?
            }
            CutCause::Checkpoint => {
                writer.only_what_is();
                self.carry_all(&mut writer)?;
            }
        }
        // What was handed over is not all there is, though changes are frozen: a pack like any other, and whoever wants the snapshot
        // tries again.
        let wanted = snapshot.filter(|_| self.unsent.is_empty());
        let snapshot = wanted.map(|wanted| self.take_snapshot(seq, wanted)).transpose()?;
        if let Some((number, record)) = &snapshot {
            writer.record(&records::snapshot_key(*number), Some(&record.encode()))?;
        }
        writer.flush()?;
        Ok(snapshot)
    }

    fn take_snapshot(&self, seq: PackSeq, wanted: Wanted) -> Result<(u64, SnapshotRecord), StoreError> {
        let root = self.inode(ROOT_INO)?;
        let record = SnapshotRecord {
            pack: seq,
            taken: wanted.taken,
            name: wanted.name,
            root: root.ok_or_else(|| StoreError::Corrupt("there is no root directory".into()))?,
        };
        Ok((wanted.number, record))
    }

    /// Carries every record there was at the instant of the cut.
    fn carry_all(&mut self, writer: &mut FrameWriter<'_>) -> Result<(), StoreError> {
        self.each_key(DIRTY_PREFIX, |cut, key| {
            let (ino, chunk) = records::parse_extent_key(key).map_err(corrupt)?;
            if cut.is_unsent(ino, chunk)? {
                cut.unsent.insert(ino);
            }
            Ok(())
        })?;
        for (prefix, _) in DELTA_KINDS {
            self.each_key(prefix, |cut, key| cut.carry(key, writer))?;
        }
        // What was deleted since the cut began may be gone before it was its turn above, but then it was saved before.
        self.each_key(SAVED_PREFIX, |cut, key| cut.carry(&key[SAVED_PREFIX.len()..], writer))
    }

    fn each_key(
        &mut self,
        prefix: &[u8],
        mut visit: impl FnMut(&mut Self, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = prefix.to_vec();
        loop {
            let page = self.shared.core.store.scan(prefix, &from, crate::limits::SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in &page {
                visit(self, key)?;
            }
        }
    }

    fn extent(&self, ino: u64, chunk: u64) -> Result<Option<Extent>, StoreError> {
        let value = self.shared.core.marks.value_at_cut(&records::extent_key(ino, chunk))?;
        value.map(|value| Extent::decode(&value).map_err(corrupt)).transpose()
    }

    fn is_unsent(&self, ino: u64, chunk: u64) -> Result<bool, StoreError> {
        let dirty = self.extent(ino, chunk)?.is_some_and(|extent| extent.dirty);
        Ok(dirty && !self.in_flight.contains_key(&(ino, chunk)))
    }

    /// Writes one marked record, or what of it may travel.
    fn carry(&mut self, key: &[u8], writer: &mut FrameWriter<'_>) -> Result<(), StoreError> {
        match key.get(..1) {
            Some(DENTRY_PREFIX | QUOTA_PREFIX | SNAPSHOT_PREFIX | TRASH_PREFIX) => {
                let value = self.shared.core.marks.value_at_cut(key)?;
                writer.record(key, value.as_deref())
            }
            Some(INODE_PREFIX) => self.carry_inode(key, writer),
            Some(EXTENT_PREFIX) => self.carry_extent(key, writer),
            Some(INLINE_PREFIX) => self.carry_bytes(records::parse_ino_key(key).map_err(corrupt)?, key, writer),
            Some(XATTR_PREFIX) => {
                let (ino, _) = records::parse_dentry_key(key).map_err(corrupt)?;
                let value = match self.passage(ino)? {
                    Passage::Gone => None,
                    _ => self.shared.core.marks.value_at_cut(key)?,
                };
                writer.record(key, value.as_deref())
            }
            _ => Err(StoreError::Corrupt("a record of no known kind is marked".into())),
        }
    }

    fn carry_inode(&mut self, key: &[u8], writer: &mut FrameWriter<'_>) -> Result<(), StoreError> {
        let ino = records::parse_ino_key(key).map_err(corrupt)?;
        let passage = self.passage(ino)?;
        let Some(mut record) = self.inode(ino)? else {
            return writer.record(key, None);
        };
        match passage {
            Passage::Gone => {
                writer.record(key, None)?;
                return self.tell_gone(ino, writer);
            }
            Passage::Left => {
                self.left.push(key.to_vec());
                return Ok(());
            }
            Passage::Whole => {}
            Passage::Empty => {
                record.size = 0;
                record.blocks = 0;
                self.left.push(key.to_vec());
            }
            Passage::Partly(size) => {
                record.size = record.size.min(size);
                self.left.push(key.to_vec());
            }
            Passage::Record => return self.carry_record(ino, record, writer),
        }
        writer.record(key, Some(&record.encode()))?;
        // A file that outgrew its bytes keeps them for a while, unmarked; who replays must not.
        let bytes = records::inline_key(ino);
        if !record.inline && self.shared.core.marks.value_at_cut(&bytes)?.is_some() {
            writer.record(&bytes, None)?;
        }
        let is_noted = self.kept.contains(&ino) || self.holed.contains_key(&ino);
        if passage == Passage::Whole && !record.inline && is_noted {
            self.told.push(ino);
        }
        Ok(())
    }

    /// An inode as it was before its bytes outgrew their record.
    fn carry_record(
        &mut self,
        ino: u64,
        mut record: InodeRecord,
        writer: &mut FrameWriter<'_>,
    ) -> Result<(), StoreError> {
        let key = records::inline_key(ino);
        let bytes = match self.shared.core.marks.value_at_cut(&key)? {
            Some(bytes) => Some(bytes),
            // Who tells of the file without it has to tell that it is gone.
            None => {
                self.left.push(key.clone());
                self.shared.core.store.get(&kept_key(ino))?
            }
        };
        record.inline = true;
        record.size = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        record.blocks = inline_blocks(record.size);
        self.left.push(records::inode_key(ino));
        writer.record(&records::inode_key(ino), Some(&record.encode()))?;
        writer.record(&key, bytes.as_deref())
    }

    /// What an inode without links still has here goes with it: somebody has it open, and if this machine dies before he closes it,
    /// nobody tells of the rest.
    fn tell_gone(&mut self, ino: u64, writer: &mut FrameWriter<'_>) -> Result<(), StoreError> {
        for prefix in [
            records::extent_prefix(ino),
            records::xattr_prefix(ino),
            records::inline_key(ino),
        ] {
            self.each_key(&prefix, |_, key| writer.record(key, None))?;
        }
        Ok(())
    }

    fn carry_bytes(&mut self, ino: u64, key: &[u8], writer: &mut FrameWriter<'_>) -> Result<(), StoreError> {
        let value = match self.passage(ino)? {
            Passage::Left => {
                self.left.push(key.to_vec());
                return Ok(());
            }
            // Told with the inode, which the mark of its bytes need not follow.
            Passage::Record => return Ok(()),
            Passage::Gone | Passage::Empty => None,
            // A file that outgrew its bytes keeps them only until their copy is durable here: no matter for others.
            Passage::Whole | Passage::Partly(_) if !self.inode(ino)?.is_some_and(|record| record.inline) => None,
            Passage::Whole | Passage::Partly(_) => self.shared.core.marks.value_at_cut(key)?,
        };
        writer.record(key, value.as_deref())
    }

    fn carry_extent(&mut self, key: &[u8], writer: &mut FrameWriter<'_>) -> Result<(), StoreError> {
        let (ino, chunk) = records::parse_extent_key(key).map_err(corrupt)?;
        let passage = self.passage(ino)?;
        if matches!(passage, Passage::Left | Passage::Empty | Passage::Record) {
            self.left.push(key.to_vec());
        }
        match passage {
            Passage::Left => return Ok(()),
            Passage::Record => return writer.record(key, None),
            _ => {}
        }
        let Some(mut extent) = self.extent(ino, chunk)?.filter(|_| passage != Passage::Gone) else {
            return writer.record(key, None);
        };
        let unsent = extent.dirty && !self.in_flight.contains_key(&(ino, chunk));
        if let (true, Some(&stored)) = (extent.dirty, self.in_flight.get(&(ino, chunk))) {
            extent.stored = Some(stored);
        }
        if unsent && passage != Passage::Empty {
            self.left.push(key.to_vec());
        }
        if passage == Passage::Empty {
            return writer.record(key, None);
        }
        if unsent {
            if let Some(sent) = self.behind.get(&(ino, chunk)) {
                extent.stored = Some((sent.id, sent.len));
                extent.kept = Some(sent.kept_in(&extent));
            }
            fall_back(&mut extent);
        }
        extent.resident = false;
        extent.dirty = false;
        extent.kept = None;
        extent.over = BlockMap::default();
        if extent == Extent::default() {
            writer.record(key, None)
        } else {
            writer.record(key, Some(&extent.encode()))
        }
    }

    fn inode(&self, ino: u64) -> Result<Option<InodeRecord>, StoreError> {
        let value = self.shared.core.marks.value_at_cut(&records::inode_key(ino))?;
        value
            .map(|value| InodeRecord::decode(&value).map_err(corrupt))
            .transpose()
    }

    fn passage(&mut self, ino: u64) -> Result<Passage, StoreError> {
        if let Some((_, passage)) = self.decided.filter(|(decided, _)| *decided == ino) {
            return Ok(passage);
        }
        let passage = self.decide(ino)?;
        self.decided = Some((ino, passage));
        Ok(passage)
    }

    fn decide(&self, ino: u64) -> Result<Passage, StoreError> {
        let Some(record) = self.inode(ino)? else {
            return Ok(Passage::Gone);
        };
        if record.nlink == 0 && record.trash == 0 {
            return Ok(Passage::Gone);
        }
        if !self.unsent.contains(&ino) {
            return Ok(Passage::Whole);
        }
        match self.cause {
            CutCause::Forced | CutCause::Checkpoint => match self.outgrown(ino)? {
                Some(passage) => Ok(passage),
                None => {
                    let least = self.holed.get(&ino).copied().unwrap_or(0);
                    Ok(Passage::Partly(self.submitted_size(ino)?.max(least)))
                }
            },
            CutCause::Full if self.shared.core.marks.is_new(self.until, &records::inode_key(ino))? => {
                Ok(Passage::Empty)
            }
            CutCause::Full => Ok(Passage::Left),
        }
    }

    /// How a file travels that was a record until lately, and of whose first chunk the network has nothing: whoever saw the record to
    /// the network was promised no less.
    fn outgrown(&self, ino: u64) -> Result<Option<Passage>, StoreError> {
        let first = (ino, 0);
        let is_told = self.in_flight.contains_key(&first) || self.behind.contains_key(&first);
        let untold = |extent: Extent| extent.dirty && extent.stored.is_none();
        if is_told || !self.extent(ino, 0)?.is_some_and(untold) {
            return Ok(None);
        }
        let is_here = self
            .shared
            .core
            .marks
            .value_at_cut(&records::inline_key(ino))?
            .is_some();
        Ok((is_here || self.kept.contains(&ino)).then_some(Passage::Record))
    }

    /// How long a file may be told to be: chunks at its end that the network never had are not part of it yet.
    fn submitted_size(&self, ino: u64) -> Result<u64, StoreError> {
        let prefix = records::extent_prefix(ino);
        let mut size = u64::MAX;
        let mut from = prefix.clone();
        loop {
            let page = self.shared.core.store.scan(&prefix, &from, crate::limits::SCAN_PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(size) };
            from.clone_from(last);
            from.push(0);
            for (key, _) in &page {
                let (_, chunk) = records::parse_extent_key(key).map_err(corrupt)?;
                let Some(extent) = self.extent(ino, chunk)? else {
                    continue;
                };
                let at = (ino, chunk);
                let told = extent.stored.is_some() || self.in_flight.contains_key(&at) || self.behind.contains_key(&at);
                if told {
                    size = u64::MAX;
                } else if extent.dirty {
                    size = size.min(chunk * CHUNK);
                }
            }
        }
    }
}

/// The chunk as the network has it: as it was before it was written over, and nothing of what it is now.
fn fall_back(extent: &mut Extent) {
    let reserved = extent.reserved;
    match (extent.stored, extent.kept) {
        (None, _) => *extent = Extent::default(),
        (Some(_), Some(kept)) => (extent.valid, extent.blocks) = (kept.valid, kept.blocks),
        (Some((_, len)), None) => extent.valid = extent.valid.min(len),
    }
    extent.reserved = reserved;
    extent.reserved.remove_all(&extent.blocks);
}

fn corrupt(error: RecordError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests;
