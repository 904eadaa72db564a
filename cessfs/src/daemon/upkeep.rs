//! Scrub, repair and collection, as the control socket asks for them.

use crate::control::{Collected, Damaged, LostFile, Repaired, Reply, Scrubbed};
use crate::exit::Failure;
use crate::wiring::Volume;
use cessfs_crypto::PackSeq;
use cessfs_sync::upkeep::Depth;

fn numbers(packs: Vec<PackSeq>) -> Vec<u64> {
    packs.into_iter().map(|seq| seq.0).collect()
}

/// Looks at every pack.
pub(super) async fn scrub(volume: &Volume, full: bool, rate: Option<u64>) -> Result<Reply, Failure> {
    let depth = if full { Depth::Full } else { Depth::Sample };
    let report = volume.engine.scrub(depth, rate).await?;
    let damaged = |(seq, good, grade): (PackSeq, u8, &str)| Damaged {
        pack: seq.0,
        good,
        grade: Some(grade.to_owned()),
    };
    Ok(Reply::Scrubbed(Scrubbed {
        packs: report.packs,
        bytes_read: report.bytes,
        damaged: report.damaged.into_iter().map(damaged).collect(),
    }))
}

/// Rewrites what is damaged.
pub(super) async fn repair(volume: &Volume) -> Result<Reply, Failure> {
    volume.engine.poke();
    let report = volume.engine.repair().await?;
    Ok(Reply::Repaired(Repaired {
        rewritten: numbers(report.packs),
        chunks: report.chunks,
        bytes: report.bytes,
        deleted: numbers(report.deleted),
        lost: numbers(report.lost),
    }))
}

/// Collects what is dead.
pub(super) async fn collect(volume: &Volume, dry_run: bool) -> Result<Reply, Failure> {
    volume.engine.poke();
    let report = volume.engine.collect(dry_run).await?;
    Ok(Reply::Collected(Collected {
        dry_run,
        live_bytes: report.live_bytes,
        dead_bytes: report.dead_bytes,
        chosen: numbers(report.chosen),
        moving_bytes: report.moving_bytes,
        gain_bytes: report.gain_bytes,
        deleted: numbers(report.deleted),
        freed_bytes: report.freed_bytes,
        kept: numbers(report.kept),
    }))
}

/// Files that the network has lost content of.
pub(super) fn lost_files(volume: &Volume) -> Vec<LostFile> {
    let file = |file: cessfs_vfs::restore::MissingFile| LostFile {
        path: file.path,
        chunks: file.chunks,
        missing_chunks: file.missing,
    };
    volume.vfs.lost_files().into_iter().map(file).collect()
}
