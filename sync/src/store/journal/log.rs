//! The write-ahead log: a file of two segments beside the database, written in turn, each from its start.
//!
//! Its bytes were all written once when it was made, so an append changes bytes in place and nothing else of the filesystem's:
//! one `fdatasync` is one write and one flush of the disk. Whoever begins a page writes all of it, the rest as zeros: the kernel
//! need not read it from the disk before, as it would once it has dropped the page. A record is one atomic batch, sealed as a
//! whole if the volume seals. Records count on by one within an *epoch*, which begins whenever the log is opened and is never
//! named twice; so whatever else a segment still holds, or a power cut left of a record, is not taken for the next one
//! (`docs/FORMAT-log.md`, `docs/decisions/0015-write-ahead-log.md`).
//!
//! Promises: what was appended before a [`sync`](LogSync::sync) that succeeded is read back after a power cut; what is read back
//! is every record up to some point, none after it. Refuses: to know when a segment may be written over; see
//! [`may_turn`](Log::may_turn).

use super::Sealer;
use crate::erasure::sha256_of;
use crate::limits::DISK_RESERVE_BYTES;
use crate::stages;
use crate::store::{StoreError, from_io};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// A changed key, shared by all who remember it.
pub(super) type Key = Arc<[u8]>;
/// Its new value; `None`: deleted.
pub(super) type Value = Option<Arc<[u8]>>;
/// Changes of distinct keys, in key order.
pub(super) type Changes = BTreeMap<Key, Value>;

/// Where the database says how much of the log it has.
pub(super) const LOG_KEY: &[u8] = b"Slog";

const MAGIC: &[u8; 4] = b"CFSL";
const HEADER_BYTES: usize = 24;
const CHECK_BYTES: usize = 16;
/// What sealing adds to a record's payload.
const SEAL_BYTES: usize = 28;
const KIND_CHANGES: u8 = 1;
const DELETED: u32 = u32::MAX;
const SEGMENTS: usize = 2;
/// The kernel's pages; a divisor of a segment.
const PAGE_BYTES: u64 = 4096;
/// Zeros are written so many at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Bytes of each of the two segments; a multiple of 4096.
    pub segment_bytes: u64,
    /// Always true but in the tests that show why.
    pub synced: bool,
}

/// What the database says of its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogState {
    /// The log may have records that the database lacks.
    pub(super) in_use: bool,
    pub(super) epoch: u64,
    /// The database has the records of the epoch up to this one.
    pub(super) applied: u64,
    pub(super) segment_bytes: u64,
}

impl LogState {
    const BYTES: usize = 26;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, u8::from(self.in_use)];
        for number in [self.epoch, self.applied, self.segment_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<LogState> {
        if bytes.len() != LogState::BYTES || bytes[0] != 1 || bytes[1] > 1 {
            return None;
        }
        Some(LogState {
            in_use: bytes[1] == 1,
            epoch: u64_at(bytes, 2),
            applied: u64_at(bytes, 10),
            segment_bytes: u64_at(bytes, 18),
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// What became of a record that should be appended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Append {
    Done,
    /// The segment is full: [`Log::turn`] comes first.
    Full,
    /// No segment is large enough.
    TooLarge,
}

/// A log that is open.
pub(super) struct Log {
    file: Arc<File>,
    settings: LogSettings,
    epoch: u64,
    /// The last record.
    last: u64,
    /// The segment that is written, and where.
    active: usize,
    offset: u64,
    /// The last record in each segment.
    lasts: [u64; SEGMENTS],
    /// Something was appended since the last sync.
    unsynced: bool,
}

impl Log {
    /// The log's file within the journal's directory.
    pub(super) const FILE: &str = "log";

    /// Opens the log for a new epoch, or makes it; `None` if the disk has no room for one. What it held must be in the
    /// database by now.
    pub(super) fn open(dir: &Path, settings: LogSettings, epoch: u64) -> Result<Option<Log>, StoreError> {
        let path = dir.join(Log::FILE);
        let bytes = settings.segment_bytes * SEGMENTS as u64;
        let file = match read_write().open(&path) {
            Ok(file) if file.metadata().map_err(from_io)?.len() == bytes => file,
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(from_io(e)),
            _ => match make(dir, &path, bytes) {
                Ok(Some(file)) => file,
                Ok(None) => return Ok(None),
                Err(e) => return Err(from_io(e)),
            },
        };
        Ok(Some(Log {
            file: Arc::new(file),
            settings,
            epoch,
            last: 0,
            active: 0,
            offset: 0,
            lasts: [0; SEGMENTS],
            unsynced: false,
        }))
    }

    /// What the database has to say of the log once it has the records up to `applied`.
    pub(super) fn state(&self, in_use: bool, applied: u64) -> LogState {
        LogState {
            in_use,
            epoch: self.epoch,
            applied,
            segment_bytes: self.settings.segment_bytes,
        }
    }

    /// The number of the last record.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Appends a record with these changes. It outlives the process from here on; the power only after a [`sync`](LogSync::sync).
    pub(super) fn append(&mut self, changes: &Changes, sealer: Option<&Sealer>) -> Result<Append, StoreError> {
        let payload = encode(changes);
        let bytes = (HEADER_BYTES + payload.len() + if sealer.is_some() { SEAL_BYTES } else { CHECK_BYTES }) as u64;
        if bytes > self.settings.segment_bytes {
            return Ok(Append::TooLarge);
        }
        if bytes > self.settings.segment_bytes - self.offset {
            return Ok(Append::Full);
        }
        let mut record = frame(self.epoch, self.last + 1, &payload, sealer);
        debug_assert_eq!(record.len() as u64, bytes);
        record.resize((bytes + rest_of_page(self.offset, bytes)) as usize, 0);
        let at = self.active as u64 * self.settings.segment_bytes + self.offset;
        let _span = stages::STORE_LOG_APPEND.enter();
        self.file.write_all_at(&record, at).map_err(from_io)?;
        self.unsynced = true;
        self.last += 1;
        self.offset += bytes;
        self.lasts[self.active] = self.last;
        Ok(Append::Done)
    }

    /// Counts a record that is not in the log but goes straight into the database.
    pub(super) fn skip(&mut self) {
        self.last += 1;
    }

    /// Whether the other segment may be written over: the database has all records up to `applied`.
    pub(super) fn may_turn(&self, applied: u64) -> bool {
        self.lasts[1 - self.active] <= applied
    }

    /// Goes on at the start of the other segment.
    pub(super) fn turn(&mut self, applied: u64) {
        assert!(
            self.may_turn(applied),
            "the database does not have what would be written over"
        );
        self.active = 1 - self.active;
        self.offset = 0;
    }

    /// What is to be synced so that everything appended before survives a power cut; `None`: it does already. After a sync that
    /// failed nobody may rely on the next.
    pub(super) fn begin_sync(&mut self) -> Option<LogSync> {
        let unsynced = std::mem::take(&mut self.unsynced) && self.settings.synced;
        unsynced.then(|| LogSync(self.file.clone()))
    }

    /// Lets every later write fail.
    #[cfg(test)]
    pub(super) fn break_file(&mut self, dir: &Path) {
        self.file = Arc::new(File::open(dir.join(Log::FILE)).unwrap());
    }

    /// Bytes on the disk.
    pub(super) fn size_bytes(settings: LogSettings) -> u64 {
        settings.segment_bytes * SEGMENTS as u64
    }
}

/// How many bytes the last page lacks that a record of `bytes` at `offset` begins; zero if it begins none.
fn rest_of_page(offset: u64, bytes: u64) -> u64 {
    let end = offset + bytes;
    let begins = offset.is_multiple_of(PAGE_BYTES) || offset / PAGE_BYTES != end / PAGE_BYTES;
    if begins {
        end.next_multiple_of(PAGE_BYTES) - end
    } else {
        0
    }
}

/// A sync that is due; others may append meanwhile.
pub(super) struct LogSync(Arc<File>);

impl LogSync {
    /// Everything appended before it was begun survives a power cut once this returns.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let _span = stages::STORE_LOG_SYNC.enter();
        self.0.sync_data().map_err(from_io)
    }
}

fn read_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes a log of zeros, whole or not at all; `None` if the disk has no room.
fn make(dir: &Path, path: &Path, bytes: u64) -> std::io::Result<Option<File>> {
    let disk = nix::sys::statvfs::statvfs(dir)?;
    // The types differ from one system to another.
    #[allow(clippy::unnecessary_cast)]
    let free = (disk.blocks_available() as u64).saturating_mul(disk.fragment_size() as u64);
    if free < bytes + DISK_RESERVE_BYTES {
        return Ok(None);
    }
    let fresh = path.with_extension("new");
    match write_zeros(&fresh, bytes) {
        Ok(()) => {}
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => {
            std::fs::remove_file(&fresh)?;
            return Ok(None);
        }
        Err(e) => return Err(e),
    }
    std::fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()?;
    read_write().open(path).map(Some)
}

fn write_zeros(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = read_write().create(true).truncate(true).open(path)?;
    let zeros = vec![0; ZEROS_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(ZEROS_BYTES as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

/// What a log has beyond the state of its database.
pub(super) struct Replay {
    pub(super) changes: Changes,
    /// The last record of them, or the state's `applied` if there is none.
    pub(super) last: u64,
}

/// Reads what the database lacks: record by record from the first it does not have, up to the first that is not there whole.
///
/// # Errors
/// `Corrupt` if there is no such log, or it is shorter than it was made: a log in use never goes away by itself.
pub(super) fn read(dir: &Path, state: &LogState, sealer: Option<&Sealer>) -> Result<Replay, StoreError> {
    let gone = |what: &str| StoreError::Corrupt(format!("its log {what}"));
    let mut file = match File::open(dir.join(Log::FILE)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(gone("is not there")),
        file => file.map_err(from_io)?,
    };
    let expected = state.segment_bytes.checked_mul(SEGMENTS as u64);
    if Some(file.metadata().map_err(from_io)?.len()) != expected {
        return Err(gone("does not have the length it was made with"));
    }
    let mut found: BTreeMap<u64, Changes> = BTreeMap::new();
    let mut segment = vec![0; state.segment_bytes as usize];
    for number in 0..SEGMENTS as u64 {
        file.seek(SeekFrom::Start(number * state.segment_bytes))
            .map_err(from_io)?;
        file.read_exact(&mut segment).map_err(from_io)?;
        found.extend(records(&segment, state.epoch, sealer));
    }
    let mut replay = Replay {
        changes: Changes::new(),
        last: state.applied,
    };
    // A hole ends it: what comes after may build on what is missing.
    while let Some(changes) = found.remove(&(replay.last + 1)) {
        replay.changes.extend(changes);
        replay.last += 1;
    }
    Ok(replay)
}

/// The records of this epoch that stand one after the other from the segment's start. What an earlier turn left has lower numbers;
/// a number that was skipped is the database's to know.
fn records(segment: &[u8], epoch: u64, sealer: Option<&Sealer>) -> Vec<(u64, Changes)> {
    let mut found: Vec<(u64, Changes)> = Vec::new();
    let mut rest = segment;
    while let Some((number, changes, after)) = record(rest, epoch, sealer) {
        if found.last().is_some_and(|(last, _)| *last >= number) {
            break;
        }
        found.push((number, changes));
        rest = after;
    }
    found
}

/// The record at the start of `bytes`, its number, and what comes after it.
fn record<'b>(bytes: &'b [u8], epoch: u64, sealer: Option<&Sealer>) -> Option<(u64, Changes, &'b [u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    if header[..4] != *MAGIC || u64_at(header, 8) != epoch {
        return None;
    }
    let (body, after) = rest.split_at_checked(u32_at(header, 4) as usize)?;
    let changes = match sealer {
        Some(sealer) => decode(&sealer.open(&sealed_as(header), body).ok()?)?,
        None => {
            let (payload, check) = body.split_last_chunk::<CHECK_BYTES>()?;
            if check_of(header, payload) != *check {
                return None;
            }
            decode(payload)?
        }
    };
    Some((u64_at(header, 16), changes, after))
}

fn frame(epoch: u64, number: u64, payload: &[u8], sealer: Option<&Sealer>) -> Vec<u8> {
    let body_bytes = payload.len() + if sealer.is_some() { SEAL_BYTES } else { CHECK_BYTES };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(MAGIC);
    let body_bytes = u32::try_from(body_bytes).expect("a segment is far below 4 GiB");
    header[4..8].copy_from_slice(&body_bytes.to_le_bytes());
    header[8..16].copy_from_slice(&epoch.to_le_bytes());
    header[16..].copy_from_slice(&number.to_le_bytes());
    let mut record = header.to_vec();
    match sealer {
        Some(sealer) => record.extend(sealer.seal(&sealed_as(&header), payload)),
        None => {
            record.extend_from_slice(payload);
            record.extend_from_slice(&check_of(&header, payload));
        }
    }
    record
}

/// What a sealed record is bound to. No key of the store begins with 0, so no value can be put in its place.
fn sealed_as(header: &[u8; HEADER_BYTES]) -> [u8; HEADER_BYTES + 1] {
    let mut out = [0; HEADER_BYTES + 1];
    out[1..].copy_from_slice(header);
    out
}

fn check_of(header: &[u8; HEADER_BYTES], payload: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = sha256_of(&[header, payload]);
    *hash.0.first_chunk().expect("a hash has 32 bytes")
}

fn encode(changes: &Changes) -> Vec<u8> {
    let bytes = changes
        .iter()
        .map(|(key, value)| 8 + key.len() + value.as_ref().map_or(0, |value| value.len()));
    let mut out = Vec::with_capacity(5 + bytes.sum::<usize>());
    let length = |bytes: usize| {
        u32::try_from(bytes)
            .expect("keys and values are far below 4 GiB")
            .to_le_bytes()
    };
    out.push(KIND_CHANGES);
    out.extend_from_slice(&length(changes.len()));
    for (key, value) in changes {
        out.extend_from_slice(&length(key.len()));
        match value {
            Some(value) => {
                out.extend_from_slice(&length(value.len()));
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            None => {
                out.extend_from_slice(&DELETED.to_le_bytes());
                out.extend_from_slice(key);
            }
        }
    }
    out
}

fn decode(payload: &[u8]) -> Option<Changes> {
    let (&[kind, ..], mut rest) = payload.split_first_chunk::<5>()?;
    if kind != KIND_CHANGES {
        return None;
    }
    let mut changes = Changes::new();
    for _ in 0..u32_at(payload, 1) {
        let (lengths, after) = rest.split_first_chunk::<8>()?;
        let (key, after) = after.split_at_checked(u32_at(lengths, 0) as usize)?;
        let value_bytes = u32_at(lengths, 4);
        let (value, after) = match value_bytes {
            DELETED => (None, after),
            bytes => {
                let (value, after) = after.split_at_checked(bytes as usize)?;
                (Some(value.into()), after)
            }
        };
        changes.insert(key.into(), value);
        rest = after;
    }
    rest.is_empty().then_some(changes)
}

#[cfg(test)]
mod tests;
