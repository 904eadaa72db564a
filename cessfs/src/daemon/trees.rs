//! What the daemon does about quotas and the trash when it is asked over the control socket.

use super::tasks::blocking;
use crate::control::{Event, QuotaChange, QuotaNumbers, Reply, Trashed};
use crate::exit::{Exit, Failure};
use crate::limits::TRASH_PAGE;
use cessfs_vfs::limits::BLOCK_BYTES;
use cessfs_vfs::{FileKind, QuotaReport, TrashItem, Vfs};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Changes or tells the quota at a path, or tells all.
pub async fn quota(
    vfs: &Arc<Vfs>,
    path_hex: Option<String>,
    change: QuotaChange,
    events: &mpsc::Sender<Event>,
) -> Result<Reply, Failure> {
    let path = path_hex
        .map(hex::decode)
        .transpose()
        .map_err(|e| Failure::new(Exit::Usage, format!("path: {e}")))?;
    let inside = vfs.clone();
    let reports = blocking(move || match path {
        Some(path) => at(&inside, &path, change).map(|report| report.into_iter().collect()),
        None => Ok(inside.quotas()),
    })
    .await?;
    for report in reports {
        if events.send(Event::Quota(numbers(vfs, &report))).await.is_err() {
            break;
        }
    }
    Ok(Reply::QuotaTold)
}

fn at(vfs: &Vfs, path: &[u8], change: QuotaChange) -> Result<Option<QuotaReport>, Failure> {
    let ino = vfs.resolve(path)?;
    if vfs.getattr(ino)?.kind != FileKind::Directory && change != QuotaChange::Show {
        return Err(Failure::new(Exit::Usage, "a quota is set on a directory"));
    }
    let before = vfs.quota_of(ino)?;
    match change {
        QuotaChange::Show => Ok(before),
        QuotaChange::Set { bytes, inodes } => {
            let own = before.filter(|report| report.root == ino);
            let bytes = bytes.or(own.map(|report| report.bytes_max)).unwrap_or(0);
            let inodes = inodes.or(own.map(|report| report.inodes_max)).unwrap_or(0);
            Ok(Some(vfs.set_quota(ino, bytes, inodes)?))
        }
        QuotaChange::Clear => {
            if !vfs.clear_quota(ino)? {
                return Err(Failure::new(Exit::Failed, "no quota is set on this directory")
                    .hint("`cessfs quota show PATH` tells which directory's quota it counts for"));
            }
            Ok(None)
        }
    }
}

fn numbers(vfs: &Vfs, report: &QuotaReport) -> QuotaNumbers {
    let text = |path: Vec<u8>| match &path[..] {
        b"" => "/".to_owned(),
        path => String::from_utf8_lossy(path).into_owned(),
    };
    QuotaNumbers {
        inode: report.root,
        path: vfs.known_path(report.root).map(text),
        bytes_max: report.bytes_max,
        bytes_used: report.used.blocks * BLOCK_BYTES,
        inodes_max: report.inodes_max,
        inodes_used: report.used.inodes,
    }
}

/// Tells everything in the trash, in the order of deletion.
pub async fn list_trash(vfs: &Arc<Vfs>, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
    let mut after = 0;
    loop {
        let inside = vfs.clone();
        let page = blocking(move || Ok(inside.trash_list(after, TRASH_PAGE)?)).await?;
        let Some(last) = page.last() else {
            return Ok(Reply::TrashListed);
        };
        after = last.id;
        for item in &page {
            if events.send(Event::Trashed(Box::new(trashed(item)))).await.is_err() {
                return Ok(Reply::TrashListed);
            }
        }
    }
}

fn trashed(item: &TrashItem) -> Trashed {
    let path = match &item.dir {
        Some(dir) => [&dir[..], b"/", &item.name].concat(),
        None => item.name.clone(),
    };
    Trashed {
        id: item.id,
        size: item.size,
        deleted: item.deleted.secs,
        path: String::from_utf8_lossy(&path).into_owned(),
        path_hex: hex::encode(&path),
        path_known: item.dir.is_some(),
        entry_hex: hex::encode(item.entry_name()),
    }
}

/// Deletes entries of the trash for good: these, or all.
pub async fn empty_trash(vfs: &Arc<Vfs>, ids: Vec<u64>) -> Result<Reply, Failure> {
    let inside = vfs.clone();
    let files = blocking(move || {
        let mut files = 0;
        for id in &ids {
            if !inside.trash_purge(*id)? {
                return Err(Failure::new(Exit::Failed, format!("the trash has no entry {id}"))
                    .hint("`cessfs trash list NAME` tells the numbers"));
            }
            files += 1;
        }
        while ids.is_empty() {
            let purged = inside.trash_give_way(TRASH_PAGE)?;
            if purged == 0 {
                break;
            }
            files += purged as u64;
        }
        Ok(files)
    })
    .await?;
    Ok(Reply::TrashEmptied { files })
}
