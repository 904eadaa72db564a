//! Packs that were sealed here and never reached the network: their bodies are whole packs, and can be read back like others.
//!
//! A journal that is lost takes with it what it knew of them. They are taken up again as sealed packs whose declaration may be
//! under way: the pipeline asks the chain, and waits until no earlier declaration can be alive, before it declares one (I2).

use super::{Pack, Packs};
use crate::check::{bodies, open_body};
use crate::ledger::{Column, Intent, PackRecord, PackState};
use crate::limits::COLUMNS;
use crate::staging::{Staging, store_error};
use crate::store::StoreError;
use cessfs_crypto::{FrameId, FrameKind, LabelKey, PackLabel, PackSeq, VolumeKeys};
use std::path::Path;

/// What a staging directory gives back.
#[derive(Clone, Debug, Default)]
pub struct StagedPacks {
    /// Packs that the network does not have, added to those that it has.
    pub taken: Vec<PackSeq>,
    /// Bodies that are no whole packs, and why. The open pack of a crash is one: its chunks are in the cache.
    pub torn: Vec<(PackSeq, String)>,
}

/// Adds the whole bodies below `dir` that the network does not have to `packs`.
///
/// # Errors
/// The directory cannot be read.
pub fn take_staged(
    packs: &mut Packs,
    dir: &Path,
    keys: &VolumeKeys,
    labels: &LabelKey,
    territory: &str,
) -> Result<StagedPacks, StoreError> {
    let staging = Staging::open(dir)?;
    let mut staged = StagedPacks::default();
    // They were sealed by whoever sealed the newest that is known.
    let epoch = packs.good.values().map(|pack| pack.record.epoch).max().unwrap_or(1);
    for seq in bodies(dir)? {
        if packs.good.contains_key(&seq) {
            continue;
        }
        let (footer, directory) = match open_body(keys, &staging, seq) {
            Ok(opened) => opened,
            Err(why) => {
                staged.torn.push((seq, why));
                continue;
            }
        };
        let label = PackLabel {
            volume: keys.volume(),
            seq,
            epoch,
            kind: footer.kind,
        };
        let record = PackRecord {
            seq,
            kind: footer.kind,
            epoch,
            segments: footer.segments,
            chunks: footer.chunks,
            deltas: footer.deltas,
            delta_bytes: directory.deltas.iter().map(|delta| u64::from(delta.len)).sum(),
            label: labels.seal(&label),
            territory: territory.to_owned(),
            state: PackState::Sealed,
            blocked: None,
            encoded: None,
            intent: Some(Intent { height: 0, attempt: 1 }),
            columns: [Column::default(); COLUMNS],
            sealed_at_s: footer.sealed_at_s,
            changed_at_s: footer.sealed_at_s,
            drain: None,
            stands_for: None,
            beside: false,
        };
        let pack = Pack {
            record,
            previous: footer.previous,
            directory,
            deltas_lost: None,
        };
        packs.lost.remove(&seq);
        packs.good.insert(seq, pack);
        staged.taken.push(seq);
    }
    Ok(staged)
}

/// The delta frames of a pack that [`take_staged`] took, in their order.
///
/// # Errors
/// A sentence: the body is damaged.
pub fn staged_deltas(pack: &Pack, dir: &Path, keys: &VolumeKeys) -> Result<Vec<Vec<u8>>, String> {
    let staging = Staging::open(dir).map_err(|e| e.to_string())?;
    let seq = pack.record.seq;
    let mut frames = Vec::with_capacity(pack.directory.deltas.len());
    for (index, delta) in pack.directory.deltas.iter().enumerate() {
        let sealed = staging.read(seq, delta.offset, delta.len);
        let sealed = sealed.map_err(|e| store_error(e).to_string())?;
        let frame = FrameId::Pack {
            seq,
            kind: FrameKind::Delta,
            index: index as u32,
        };
        frames.push(keys.open(frame, &sealed).map_err(|e| e.to_string())?.to_vec());
    }
    Ok(frames)
}
