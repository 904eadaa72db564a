//! What sends, or waits until something is sent.

use super::super::pages::flush_kernel;
use super::super::snapshots;
use super::super::tasks::blocking;
use super::Daemon;
use crate::control::{Event, Progress, Reply};
use crate::exit::{Exit, FREE_SOME_SPACE, Failure};
use crate::limits::{PROGRESS_INTERVAL, SYNC_ROOM_PAUSE, SYNC_ROUNDS_MAX};
use cessfs_sync::{ChunkStore, StoreError};
use cessfs_vfs::VfsError;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

impl Daemon {
    /// Sees to it that nothing is asked for that a mount which only reads does not do.
    ///
    /// # Errors
    /// [`Exit::Refused`] on such a mount.
    pub(super) fn may_send(&self) -> Result<(), Failure> {
        match self.read_only {
            false => Ok(()),
            true => Err(Failure::new(
                Exit::Refused,
                "the volume is mounted read-only: nothing is sent, rewritten or deleted",
            )
            .hint("mount it without `-o ro` for that")),
        }
    }

    /// Hands over everything written before the call, and with `wait` sees it to the network.
    pub(super) async fn sync(&self, wait: bool, events: &mpsc::Sender<Event>) -> Result<(), Failure> {
        if wait {
            self.may_send()?;
        }
        if self.read_only {
            // Nothing was written, and what an earlier mount left stays as it is.
            return Ok(());
        }
        if !self.closing.load(Ordering::Acquire) {
            let place = self.place();
            blocking(move || flush_kernel(&place)).await?;
        }
        // Once more if a pack could not be sealed, or what was known already lay in one that is about to go.
        let (mut incomplete, mut no_room) = (None, None);
        for _ in 0..SYNC_ROUNDS_MAX {
            if wait {
                incomplete = self.complete(events).await.err();
            }
            let (vfs, untold) = (self.volume.vfs.clone(), self.volume.vfs.untold());
            let written = blocking(move || unless_full(vfs.write_back_all()));
            no_room = self.with_progress(written, events).await?;
            if !wait {
                return no_room.map_or(Ok(()), Err);
            }
            self.volume.engine.poke();
            if no_room.is_none() {
                let settled = self.volume.engine.settle().map(unless_full).boxed();
                no_room = self.with_progress(settled, events).await?;
            }
            if no_room.is_some() {
                // What is being sent meanwhile leaves room too.
                tokio::time::sleep(SYNC_ROOM_PAUSE).await;
                let vfs = self.volume.vfs.clone();
                blocking(move || Ok(vfs.give_way_to_pack())).await?;
                continue;
            }
            let told = self.volume.vfs.clone();
            blocking(move || told.note_sent().map_err(Failure::from)).await?;
            self.note_seen();
            if self.volume.vfs.untold() == untold && incomplete.is_none() {
                return Ok(());
            }
        }
        if let Some(failure) = no_room {
            return Err(failure.hint(FREE_SOME_SPACE));
        }
        if let Some(failure) = incomplete {
            return Err(
                failure.hint("everything else was sent; what was written into these files is safe on this disk")
            );
        }
        let failure = Failure::new(Exit::Failed, "what was handed over got into no pack, again and again");
        Err(failure.hint("`cessfs status` tells the errors; nothing is lost here"))
    }

    /// Fetches what is missing of chunks that were written over in part: they go to the network as a whole.
    async fn complete(&self, events: &mpsc::Sender<Event>) -> Result<(), Failure> {
        let completed = self.volume.vfs.complete_all().map(|done| done.map_err(Failure::from));
        self.with_progress(completed.boxed(), events).await
    }

    /// Takes a snapshot of everything written before the call.
    pub(super) async fn create_snapshot(&self, name: String, events: &mpsc::Sender<Event>) -> Result<Reply, Failure> {
        let (place, volume) = (self.place(), self.volume.clone());
        blocking(move || flush_kernel(&place)).await?;
        self.complete(events).await?;
        let place = self.place();
        let taken = blocking(move || {
            flush_kernel(&place)?;
            snapshots::create(&volume, &name)
        });
        let numbers = self.with_progress(taken, events).await?;
        // The client may be gone; the snapshot is there all the same.
        let _client_may_be_gone = events.send(Event::Snapshot(Box::new(numbers))).await;
        Ok(Reply::Told)
    }

    /// Tells how far it is while something goes on.
    pub(super) async fn with_progress<T>(
        &self,
        work: BoxFuture<'static, Result<T, Failure>>,
        events: &mpsc::Sender<Event>,
    ) -> Result<T, Failure> {
        let mut work = work;
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = ticks.tick() => {
                    if self.volume.engine.fenced().is_some() {
                        return Err(self.fenced());
                    }
                    let status = self.volume.engine.status();
                    let progress = Progress {
                        dirty_bytes: self.volume.vfs.unsubmitted_bytes(),
                        unsent_bytes: status.backlog.unsent_bytes,
                        blocked: self.blocked(&status),
                    };
                    // The client is gone when this fails; the connection notices by itself.
                    let _client_may_be_gone = events.send(Event::Progress(progress)).await;
                }
            }
        }
    }
}

/// Tells that this disk has no room, which may not last, from what does not get better.
fn unless_full(done: Result<(), impl Into<VfsError>>) -> Result<Option<Failure>, Failure> {
    match done.map_err(Into::into) {
        Ok(()) => Ok(None),
        Err(full @ (VfsError::NoSpace(_) | VfsError::Store(StoreError::Full))) => Ok(Some(full.into())),
        Err(other) => Err(other.into()),
    }
}
