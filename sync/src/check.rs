//! The check of what the journal says of packs, and of the staged bodies, while no engine runs.
//!
//! Reads all records of packs and of places of chunks, and every staged body of a pack that is not confirmed, chunk by chunk.
//! Puts right only what changes nothing for anybody: a place in a pack that is not known counts for nothing and may go, a
//! counter that is behind what is there may catch up, a body of no pack may go (an opening engine would remove it). A pack whose record
//! cannot be read is not known and yet there: its places and its body stay, since a rebuilt journal takes the body up again.

use crate::ledger::{LAST_SEQ_KEY, Ledger, PackRecord, PackState, Place, pack_key};
use crate::pack::{Directory, FOOTER_SEALED_BYTES, Footer};
use crate::staging::{Staging, store_error};
use crate::store::{Batch, MetaStore, StoreError};
use cessfs_crypto::{FrameId, PackSeq, VolumeKeys};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Records read per scan.
const SCAN_RECORDS: usize = 256;
/// Findings that are told.
const FINDINGS_MAX: usize = 1000;

/// Something that is wrong: what, whether it can be put right, and whether it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackFinding {
    /// One sentence.
    pub what: String,
    /// It can be put right, and was if that was asked for.
    pub repairable: bool,
}

/// What a check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackCheck {
    /// Packs in the journal.
    pub packs: u64,
    /// Chunks whose place is known.
    pub places: u64,
    /// Bytes of staged chunks that were opened.
    pub read_bytes: u64,
    /// What is wrong.
    pub findings: Vec<PackFinding>,
}

struct Check<'a> {
    store: &'a dyn MetaStore,
    keys: &'a VolumeKeys,
    staging: Staging,
    packs: BTreeMap<PackSeq, PackRecord>,
    /// Packs of which no more than the number can be read.
    doubtful: BTreeSet<PackSeq>,
    repairs: Batch,
    report: PackCheck,
}

/// Checks packs, places and staged bodies; with `repair` puts right what can be.
///
/// # Errors
/// The store or the staging directory cannot be read, or with `repair` not be written.
pub fn check_packs(
    store: &dyn MetaStore,
    keys: &VolumeKeys,
    staging_dir: &Path,
    repair: bool,
) -> Result<PackCheck, StoreError> {
    let mut check = Check {
        store,
        keys,
        staging: Staging::open(staging_dir)?,
        packs: BTreeMap::new(),
        doubtful: BTreeSet::new(),
        repairs: Batch::new(),
        report: PackCheck::default(),
    };
    check.read_packs()?;
    check.read_places()?;
    check.read_counter()?;
    check.read_bodies();
    let leftovers = check.leftovers(staging_dir)?;
    if repair {
        if !check.repairs.is_empty() {
            store.commit(check.repairs)?;
        }
        for seq in leftovers {
            check.staging.remove(seq)?;
        }
        store.barrier()?;
    }
    Ok(check.report)
}

/// An engine takes this journal: it can read every record of a pack, and where the volume stands.
///
/// # Errors
/// `Corrupt`: it would refuse it. Or the store cannot be read.
pub fn opens(store: Arc<dyn MetaStore>) -> Result<(), StoreError> {
    Ledger::load(store).map(drop)
}

impl Check<'_> {
    fn found(&mut self, what: String, repairable: bool) {
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(PackFinding { what, repairable });
        }
    }

    fn each(&mut self, prefix: &[u8], mut visit: impl FnMut(&mut Self, &[u8], &[u8])) -> Result<(), StoreError> {
        let mut from = prefix.to_vec();
        loop {
            let page = self.store.scan(prefix, &from, SCAN_RECORDS)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from.clone_from(last);
            from.push(0);
            for (key, value) in &page {
                visit(self, key, value);
            }
        }
    }

    fn read_packs(&mut self) -> Result<(), StoreError> {
        self.each(b"P", |check, key, value| {
            check.report.packs += 1;
            let told = match PackRecord::decode(value) {
                Ok(record) if *key == pack_key(record.seq) => {
                    check.packs.insert(record.seq, record);
                    return;
                }
                Ok(record) => format!("pack {} lies under another number", record.seq.0),
                Err(e) => format!("the record of a pack cannot be read: {e}"),
            };
            let number = key.get(1..).and_then(|number| number.try_into().ok());
            check.doubtful.extend(number.map(u64::from_be_bytes).map(PackSeq));
            check.found(told, false);
        })
    }

    fn read_places(&mut self) -> Result<(), StoreError> {
        self.each(b"K", |check, key, value| {
            check.report.places += 1;
            let place = match Place::decode(value) {
                Ok(place) if key.len() == 33 => place,
                _ => return check.found("the place of a chunk cannot be read".into(), false),
            };
            match check.packs.get(&place.seq) {
                None if check.doubtful.contains(&place.seq) => {}
                None => {
                    check.repairs.delete(key);
                    check.found(
                        format!("a chunk lies in pack {}, which is not known", place.seq.0),
                        true,
                    );
                }
                Some(pack) if place.offset + u64::from(place.len) > pack.body_bytes() => {
                    check.found(format!("a chunk lies beyond the end of pack {}", place.seq.0), false);
                }
                Some(_) => {}
            }
        })
    }

    fn read_counter(&mut self) -> Result<(), StoreError> {
        let Some((highest, _)) = self.packs.last_key_value() else {
            return Ok(());
        };
        let highest = highest.0;
        let stored = self.store.get(LAST_SEQ_KEY)?;
        let stored = stored
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        if stored < highest {
            self.repairs.put(LAST_SEQ_KEY, highest.to_le_bytes());
            self.found(format!("the last pack is {stored}, but {highest} exists"), true);
        }
        Ok(())
    }

    /// Bodies of packs that only this disk has.
    fn read_bodies(&mut self) {
        let waiting: Vec<PackRecord> = self
            .packs
            .values()
            .filter(|pack| pack.state < PackState::Stored)
            .cloned()
            .collect();
        for pack in waiting {
            if let Err(why) = self.body(&pack) {
                self.found(
                    format!("pack {} is not on the network yet, and its body {why}", pack.seq.0),
                    false,
                );
            }
        }
    }

    fn body(&mut self, pack: &PackRecord) -> Result<(), String> {
        let (footer, directory) = open_body(self.keys, &self.staging, pack.seq)?;
        if footer.chunks != pack.chunks || footer.segments != pack.segments || footer.kind != pack.kind {
            return Err("is of another pack".into());
        }
        for chunk in &directory.chunks {
            let sealed = self.staging.read(pack.seq, chunk.offset, chunk.len);
            let sealed = sealed.map_err(|e| format!("cannot be read at byte {}: {e}", chunk.offset))?;
            let opened = self.keys.open(FrameId::Chunk(chunk.id), &sealed);
            let plain = opened.map_err(|_| format!("is damaged at byte {}", chunk.offset))?;
            if self.keys.chunk_id(&plain) != chunk.id {
                return Err(format!("holds another chunk at byte {}", chunk.offset));
            }
            self.report.read_bytes += u64::from(chunk.len);
        }
        Ok(())
    }

    fn leftovers(&mut self, dir: &Path) -> Result<Vec<PackSeq>, StoreError> {
        let mut idle = Vec::new();
        for seq in bodies(dir)? {
            let known = self.packs.get(&seq);
            if !self.doubtful.contains(&seq) && !known.is_some_and(PackRecord::may_be_staged) {
                idle.push(seq);
                self.found(format!("a body of pack {} is left over", seq.0), true);
            }
        }
        Ok(idle)
    }
}

/// Numbers of the bodies in a staging directory, ascending.
pub(crate) fn bodies(dir: &Path) -> Result<Vec<PackSeq>, StoreError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(store_error)? {
        let name = entry.map_err(store_error)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".body")?.parse().ok());
        found.extend(number.map(PackSeq));
    }
    found.sort();
    Ok(found)
}

/// Footer and directory of a staged body; a sentence's end if it is none.
pub(crate) fn open_body(keys: &VolumeKeys, staging: &Staging, seq: PackSeq) -> Result<(Footer, Directory), String> {
    let cannot = |e: std::io::Error| format!("cannot be read: {e}");
    let file = staging.body(seq).map_err(cannot)?;
    let len = file.metadata().map_err(cannot)?.len();
    if len < FOOTER_SEALED_BYTES as u64 {
        return Err("is cut short".into());
    }
    let mut sealed = vec![0; FOOTER_SEALED_BYTES];
    file.read_exact_at(&mut sealed, len - FOOTER_SEALED_BYTES as u64)
        .map_err(cannot)?;
    let footer = Footer::open(keys, seq, &sealed).map_err(|e| format!("has no footer: {e}"))?;
    if footer.body_bytes() != len {
        return Err(format!("has {len} bytes, not {}", footer.body_bytes()));
    }
    let mut sealed = vec![0; footer.directory_bytes() as usize];
    file.read_exact_at(&mut sealed, footer.directory_offset)
        .map_err(cannot)?;
    let directory = match sealed.is_empty() {
        true => Directory::default(),
        false => Directory::open(keys, &footer, &sealed).map_err(|e| format!("has no directory: {e}"))?,
    };
    Ok((footer, directory))
}

#[cfg(test)]
mod tests;
