//! What the daemon does when it is asked over the control socket.

mod syncing;

use super::log::LogHandle;
use super::pages::flush_kernel;
use super::places::chunk_place;
use super::tasks::{blocking, detached};
use super::uplink::WhyPaused;
use super::{Start, holders, snapshots, trees, upkeep};
use crate::config::VolumeConfig;
use crate::control::client::{MOUNTED, SENDING};
use crate::control::server::Service;
use crate::control::{Damaged, Event, Evicted, Explained, Op, Reply, Sends, Status};
use crate::exit::{Exit, Failure};
use crate::home::VolumeDir;
use crate::limits::{
    CHAIN_TIMEOUT, FENCE_POLL, ROUNDS_BY_HAND_MAX, STATUS_CHAIN_TIMEOUT, STATUS_ERRORS_MAX, STATUS_PACKS_MAX,
    TERRITORY_LOOK_EVERY, TERRITORY_RETRY,
};
use crate::mountpoint::Place;
use crate::seen;
use crate::survey;
use crate::wiring::Volume;
use cessfs_sync::ChunkStore;
use cessfs_sync::engine::Status as EngineStatus;
use cessfs_sync::ledger::PackState;
use cessfs_vfs::FileKind;
use cessfs_vfs::limits::BLOCK_BYTES;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock, Semaphore, mpsc};

/// A mounted volume as the control socket sees it.
pub struct Daemon {
    dir: VolumeDir,
    config: VolumeConfig,
    place: Arc<Place>,
    read_only: bool,
    volume: Arc<Volume>,
    log: LogHandle,
    why_paused: WhyPaused,
    closing: AtomicBool,
    /// Unmounted, and what is left is being sent.
    sending: AtomicBool,
    /// Ends the sending of a daemon that has unmounted.
    hurry: Notify,
    /// Read-held by a shutdown that sends everything first: the process may not end before it.
    finishing: Arc<RwLock<()>>,
    /// Rounds of upkeep by hand.
    rounds: Arc<Semaphore>,
}

impl Daemon {
    /// The service of a volume that is about to be mounted.
    pub fn new(start: &Start, volume: Arc<Volume>, log: LogHandle) -> Daemon {
        Daemon {
            dir: start.volume.clone(),
            config: start.config.clone(),
            place: Arc::new(Place::new(&start.mountpoint)),
            read_only: start.options.read_only,
            volume,
            log,
            why_paused: WhyPaused::default(),
            closing: AtomicBool::new(false),
            sending: AtomicBool::new(false),
            hurry: Notify::new(),
            finishing: Arc::default(),
            rounds: Arc::new(Semaphore::new(ROUNDS_BY_HAND_MAX)),
        }
    }

    /// The volume's directory.
    pub fn dir(&self) -> &VolumeDir {
        &self.dir
    }

    /// The volume.
    pub fn volume(&self) -> Arc<Volume> {
        self.volume.clone()
    }

    /// Where it is mounted.
    pub fn place(&self) -> Arc<Place> {
        self.place.clone()
    }

    /// Where it is written down why nothing is sent.
    pub fn why_paused(&self) -> WhyPaused {
        self.why_paused.clone()
    }

    /// The mount is gone.
    pub fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Resolves when no shutdown is sending things any more.
    pub async fn waited(&self) {
        drop(self.finishing.write().await);
    }

    /// What `status` tells once this process is gone: it rests on the disk unsealed, so there are no names in it.
    pub fn last_status(&self) -> Status {
        Status {
            state: "unmounted".to_owned(),
            pid: None,
            mountpoint: None,
            // It rests on the disk: no names.
            lost_files: Vec::new(),
            ..self.local_status(self.volume.vfs.errors_without_names())
        }
    }

    /// Everything this process knows by itself.
    fn local_status(&self, mut errors: Vec<String>) -> Status {
        let (vfs, engine) = (&self.volume.vfs, self.volume.engine.status());
        let counted = |state: PackState| (state.to_string(), engine.packs.get(&state).copied().unwrap_or(0));
        errors.extend(engine.errors.iter().map(|trouble| trouble.text.clone()));
        let older = errors.len().saturating_sub(STATUS_ERRORS_MAX);
        errors.drain(..older);
        let state = match (
            self.sending.load(Ordering::Acquire),
            self.closing.load(Ordering::Acquire),
        ) {
            (true, _) => SENDING,
            (_, true) => "closing",
            _ => MOUNTED,
        };
        let lost_files = upkeep::lost_files(&self.volume);
        Status {
            name: self.dir.name().to_string(),
            state: state.to_owned(),
            pid: Some(std::process::id()),
            mountpoint: Some(
                self.place
                    .now()
                    .unwrap_or_else(|_| self.place.dir().to_owned())
                    .display()
                    .to_string(),
            ),
            device: (state == MOUNTED).then(|| self.place.device()).flatten(),
            at_rest: survey::at_rest(&self.config),
            read_only: self.read_only || vfs.is_stopped(),
            read_only_reason: vfs.is_stopped().then(|| self.why_fenced().to_owned()),
            // What is in the open pack counts as unsent.
            dirty_bytes: vfs.unsubmitted_bytes(),
            unsent_bytes: engine.backlog.unsent_bytes,
            unsent_bound_bytes: engine.backlog.bound_bytes,
            cache_bytes: vfs.cache_bytes(),
            cache_bound_bytes: self.config.cache_size,
            files: vfs.file_count(),
            trash_files: vfs.trash_size().files,
            trash_bytes: vfs.trash_size().blocks * BLOCK_BYTES,
            snapshots: vfs.snapshot_counts().0 as u64,
            snapshot_trees: vfs.snapshot_counts().1 as u64,
            lost: vfs.lost_history(),
            packs: PackState::ALL.into_iter().map(counted).collect(),
            pack_health: engine
                .health
                .iter()
                .map(|(grade, count)| ((*grade).to_owned(), *count))
                .collect(),
            damaged_packs: engine
                .damaged
                .iter()
                .take(STATUS_PACKS_MAX)
                .map(|(seq, good)| Damaged {
                    pack: seq.0,
                    good: *good,
                    grade: None,
                })
                .collect(),
            lost_file_count: lost_files.len() as u64,
            lost_files: lost_files.into_iter().take(STATUS_PACKS_MAX).collect(),
            scrubbed_at: (engine.scrubbed_at_s > 0).then_some(engine.scrubbed_at_s),
            live_bytes: engine.living.map(|(live, _)| live),
            dead_bytes: engine.living.map(|(_, dead)| dead),
            blocked: self.blocked(&engine),
            rpc: self.config.rpc.clone(),
            account: self.config.account.clone(),
            errors,
            errors_left_out: older as u64,
            ..Status::default()
        }
    }

    fn why_fenced(&self) -> &'static str {
        if self.volume.engine.is_forked() { FORKED } else { FENCED }
    }

    fn fenced(&self) -> Failure {
        let hint = match self.volume.engine.is_forked() {
            true => {
                "`cessfs unsent NAME` lists what only this copy has: keep it, move this volume's directory away, and go on with the \
                 newer copy, or `cessfs recover` from the phrase"
            }
            false => {
                "`cessfs unsent NAME` lists what only this machine has; copy it over, then move this volume's directory away"
            }
        };
        Failure::new(Exit::Refused, self.why_fenced()).hint(hint)
    }

    /// What sending waits for.
    fn blocked(&self, status: &EngineStatus) -> Option<String> {
        let paused = self.why_paused.lock().clone();
        let blocked = status.underway.iter().find_map(|pack| pack.blocked.as_ref());
        paused.or_else(|| blocked.map(ToString::to_string))
    }

    async fn status(&self) -> Status {
        let mut status = self.local_status(self.volume.vfs.errors());
        let chain = self.volume.chain.clone();
        let asked = survey::ask_chain(chain.as_ref(), &self.config.territory);
        if let Ok(Ok(answer)) = tokio::time::timeout(STATUS_CHAIN_TIMEOUT, asked).await {
            if let Some(territory) = &answer.territory {
                self.volume.engine.note_territory(territory);
            }
            answer.fill(&mut status);
        }
        status
    }

    async fn timings(&self, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
        for stage in crate::timings::all() {
            if events.send(Event::Stage(Box::new(stage))).await.is_err() {
                break;
            }
        }
        Ok(Reply::Status(Box::new(self.local_status(self.volume.vfs.errors()))))
    }

    /// Asks for the territory every now and then, so that `statfs` can tell what room it has. Never ends.
    pub async fn follow_territory(self: Arc<Self>) {
        loop {
            let asked = self.volume.chain.territory(&self.config.territory);
            let heard = tokio::time::timeout(CHAIN_TIMEOUT, asked).await;
            let pause = match heard {
                Ok(Ok(Some(territory))) => {
                    self.volume.engine.note_territory(&territory);
                    TERRITORY_LOOK_EVERY
                }
                _ => TERRITORY_RETRY,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Watches for another machine that takes the volume over: from then on changes are refused here.
    pub async fn watch_fence(self: Arc<Self>) {
        loop {
            if self.volume.engine.fenced().is_some() {
                break;
            }
            tokio::time::sleep(FENCE_POLL).await;
        }
        if !self.volume.vfs.is_stopped() {
            tracing::error!("{}", self.why_fenced());
            // What programs have written and the kernel still holds is kept too.
            let place = self.place();
            if let Err(failure) = blocking(move || flush_kernel(&place)).await {
                tracing::warn!("{failure}");
            }
            self.volume.vfs.stop_changes();
        }
        // While the packs that show it are there, and at each mount, for the network may have been away: `cessfs unsent` needs it.
        if let Err(error) = self.volume.engine.parted_at().await {
            tracing::warn!("where the other machine's history begins is not known: {error}");
        }
    }

    /// Remembers outside the volume's directory how far the network is: a recovery must not accept less (I13).
    pub fn note_seen(&self) {
        if let Some(pack) = self.volume.engine.newest_confirmed()
            && let Err(failure) = seen::note(self.dir.home(), self.volume.id, pack)
        {
            tracing::warn!("{failure}");
        }
    }

    async fn evict(&self) -> Result<Reply, Failure> {
        // What expired is deleted by the chain: the cache may have the only copy of what counts as confirmed.
        let territory = self.status().await.territory;
        if let Some(expired) = territory.filter(|territory| territory.state == "expired") {
            let what = format!(
                "territory `{}` expired, and what it held is gone: nothing is dropped from the cache",
                expired.name
            );
            return Err(Failure::new(Exit::Territory, what).hint("copy what is still here to a safe place first"));
        }
        let vfs = self.volume.vfs.clone();
        let report = blocking(move || vfs.evict_all().map_err(Failure::from)).await?;
        Ok(Reply::Evicted(Evicted {
            evicted_bytes: report.evicted_bytes,
            kept_bytes: report.kept_bytes,
            kept_unconfirmed_chunks: report.kept_unconfirmed_chunks,
        }))
    }

    /// Unmounts; the main loop sees that and closes. Of a daemon that has unmounted and still sends: it ends that.
    async fn shutdown(self: Arc<Self>, sends: Sends, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
        if self.sending.load(Ordering::Acquire) && sends == Sends::Never {
            self.hurry.notify_one();
            return Ok(self.unsent());
        }
        // Before the unmount: whoever wants it sent has to hear that it is not.
        if sends != Sends::Never {
            self.may_send()?;
        }
        let finishing = self.finishing.clone().read_owned().await;
        if sends == Sends::Before {
            self.sync(true, events).await?;
        }
        let (place, device) = (self.place(), self.place.device());
        blocking(move || place.unmount()).await?;
        self.set_closing();
        holders::watch(device);
        match sends {
            Sends::Never => {}
            // Nobody can write any more: what came in between goes too.
            Sends::Before => self.sync(true, events).await?,
            Sends::After => {
                self.sending.store(true, Ordering::Release);
                tokio::spawn(self.clone().send_the_rest(finishing));
            }
        }
        Ok(self.unsent())
    }

    fn unsent(&self) -> Reply {
        let backlog = self.volume.engine.backlog();
        Reply::Closing {
            unsent_bytes: backlog.unsent_bytes + self.volume.vfs.unsubmitted_bytes(),
        }
    }

    /// Sends what is left, until it is told to hurry. Nobody listens any more: the log has what went wrong.
    async fn send_the_rest(self: Arc<Self>, finishing: OwnedRwLockReadGuard<()>) {
        let (events, nobody) = mpsc::channel(1);
        drop(nobody);
        tokio::select! {
            sent = self.sync(true, &events) => match sent {
                Ok(()) => tracing::info!("everything is on the network"),
                Err(failure) => tracing::error!("not everything could be sent: {failure}"),
            },
            () = self.hurry.notified() => tracing::info!("not waiting for the network any more"),
        }
        self.sending.store(false, Ordering::Release);
        drop(finishing);
    }

    /// A round of upkeep goes on to its end, as one in the background does, when who asked for it hangs up: dropped in
    /// the midst of a step on the disk it would let the next round begin beside it.
    fn round(
        &self,
        work: impl Future<Output = Result<Reply, Failure>> + Send + 'static,
    ) -> BoxFuture<'static, Result<Reply, Failure>> {
        let rounds = self.rounds.clone();
        async move {
            let slot = rounds.acquire_owned().await;
            let slot = slot.expect("the semaphore is never closed");
            detached(async move {
                let reply = work.await;
                drop(slot);
                reply
            })
            .await
        }
        .boxed()
    }

    async fn explain(&self, path_hex: &str, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
        let path = hex::decode(path_hex).map_err(|e| Failure::new(Exit::Usage, format!("path: {e}")))?;
        let vfs = self.volume.vfs.clone();
        let (attr, extents) = blocking(move || {
            let ino = vfs.resolve(&path)?;
            let attr = vfs.getattr(ino)?;
            let extents = if attr.kind == FileKind::Regular {
                vfs.extents(ino)?
            } else {
                Vec::new()
            };
            Ok((attr, extents))
        })
        .await?;
        let inline = extents.iter().any(|extent| extent.inline);
        for extent in extents.into_iter().filter(|extent| !extent.inline) {
            let volume = self.volume.clone();
            let place = blocking(move || chunk_place(&volume, &extent)).await?;
            if events.send(Event::Chunk(Box::new(place))).await.is_err() {
                break;
            }
        }
        Ok(Reply::Explained(Explained {
            inode: attr.ino,
            kind: kind_name(attr.kind).to_owned(),
            size: attr.size,
            inline,
        }))
    }
}

impl Service for Daemon {
    fn handle(self: Arc<Self>, op: Op, events: mpsc::Sender<Event>) -> BoxFuture<'static, Result<Reply, Failure>> {
        async move {
            match op {
                Op::Status => Ok(Reply::Status(Box::new(self.status().await))),
                Op::Timings => self.timings(&events).await,
                Op::Sync { wait } => self.sync(wait, &events).await.map(|()| Reply::Synced),
                Op::Evict => self.evict().await,
                Op::Explain { path_hex } => self.explain(&path_hex, &events).await,
                Op::Quota { path_hex, change } => trees::quota(&self.volume.vfs, path_hex, change, &events).await,
                Op::SnapshotCreate { name } => self.create_snapshot(name, &events).await,
                Op::SnapshotList => snapshots::list(&self.volume, &events).await,
                Op::SnapshotDelete { name } => snapshots::delete(&self.volume, name).await,
                Op::SnapshotDiff { old, new } => snapshots::diff(&self.volume, &old, new.as_deref(), &events).await,
                Op::Unsent => snapshots::unsent(&self.volume, &events).await,
                Op::TrashList => trees::list_trash(&self.volume.vfs, &events).await,
                Op::TrashEmpty { ids } => trees::empty_trash(&self.volume.vfs, ids).await,
                Op::Scrub { full, rate } => upkeep::scrub(&self.volume, full, rate).await,
                Op::Repair => {
                    self.may_send()?;
                    let volume = self.volume.clone();
                    let round = self.round(async move { upkeep::repair(&volume).await });
                    self.with_progress(round, &events).await
                }
                Op::Collect { dry_run } => {
                    if !dry_run {
                        self.may_send()?;
                    }
                    let volume = self.volume.clone();
                    let round = self.round(async move { upkeep::collect(&volume, dry_run).await });
                    match dry_run {
                        // It waits for nobody.
                        true => round.await,
                        false => self.with_progress(round, &events).await,
                    }
                }
                // Who waits for the network before the unmount may give that up; nobody leaves half an unmount.
                Op::Shutdown { sends: Sends::Before } => self.shutdown(Sends::Before, &events).await,
                Op::Shutdown { sends } => detached(async move { self.shutdown(sends, &events).await }).await,
                Op::SetLogLevel { level } => {
                    self.log.set(level);
                    Ok(Reply::Ok)
                }
            }
        }
        .boxed()
    }
}

/// Why a volume that another machine has taken over refuses changes.
const FENCED: &str = "this volume was recovered on another machine, which goes on with it: nothing more is sent from here, and \
                      changes are refused";

/// Why a volume refuses changes of which another copy writes.
const FORKED: &str = "packs of this volume are on the network that this directory does not know: it is an older copy, or another \
                      copy of it is in use; nothing more is sent from here, and changes are refused";

pub(super) fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character-device",
        FileKind::BlockDevice => "block-device",
    }
}
