//! Bringing the store up to date with memory, and both onto the disk.

use super::state::{Staged, decode_holed, encode_holed, holed_key};
use super::{CHUNK, Data, Shared};
use crate::error::VfsError;
use crate::inode::{Inode, InodeState};
use crate::limits::{PENDING_AGE_MAX, SYNC_EACH_MAX};
use crate::records::{self, Extent};
use cessfs_sync::Batch;
use std::sync::Arc;

impl Data {
    /// Notes that times are ahead of the store, for it to be told as soon as of content.
    pub fn times_are_ahead(&self, inode: &Arc<Inode>, state: &mut InodeState) {
        state.data.set_ahead(self.0.core.clock.monotonic(), 0);
        self.0.keep_pending(inode);
    }
}

impl Shared {
    /// Commits one batch with everything about the inode that is ahead of the store and may be journaled. `synced`: changes
    /// up to this one are durable. The caller holds the mutation guard.
    pub(crate) fn journal_locked(&self, ino: u64, state: &mut InodeState, synced: Option<u64>) -> Result<(), VfsError> {
        self.journal_with(ino, state, synced, Batch::new())
    }

    /// The same after what is in `batch` already.
    pub(super) fn journal_with(
        &self,
        ino: u64,
        state: &mut InodeState,
        synced: Option<u64>,
        mut batch: Batch,
    ) -> Result<(), VfsError> {
        if state.gone || self.core.config.read_only {
            return Ok(());
        }
        // What could not be made durable once is not believed to be so later: the kernel tells of a failure only once.
        let synced = synced.filter(|_| state.data.failure.is_none());
        if let Some(change) = synced {
            state.data.set_synced(change);
        }
        let staged = self.stage(ino, state, &mut batch)?;
        if staged.tells_of_chunks() || state.data.ahead.is_some() || state.lazy {
            state.data.put_record(&self.core, ino, &state.record, &mut batch);
        }
        let spill_ended = match synced {
            Some(change) => self.end_spill(ino, state, change, &mut batch)?,
            None => false,
        };
        if batch.is_empty() {
            return Ok(());
        }
        self.core.store.commit(batch)?;
        state.lazy = false;
        state.data.staged(staged);
        if spill_ended {
            state.data.spill = None;
        }
        Ok(())
    }

    /// Adds to `batch` what [`DataState::stage`](super::state::DataState::stage) adds, and notes what follows from it.
    pub(super) fn stage(&self, ino: u64, state: &InodeState, batch: &mut Batch) -> Result<Staged, VfsError> {
        let staged = state.data.stage(&self.core, ino, batch);
        self.note_holes(ino, &staged, batch)?;
        Ok(staged)
    }

    /// Adds a note if a chunk that turns dirty, and was never sent, was a hole in the file that packs told.
    fn note_holes(&self, ino: u64, staged: &Staged, batch: &mut Batch) -> Result<(), VfsError> {
        let inode_key = records::inode_key(ino);
        if staged.untold().next().is_none() || self.core.marks.is_new_since_the_last_cut(&inode_key)? {
            return Ok(());
        }
        // What the store says was the size at some time since whatever was promised last, since that went by way of the store.
        let before = match self.core.store.get(&inode_key)? {
            Some(value) => records::InodeRecord::decode(&value)?.size,
            None => 0,
        };
        // What the store calls dirty was looked at when it came to be so; a slot may not know of a cut since.
        let within = |chunk: &u64| before > chunk.saturating_mul(CHUNK);
        let mut was_a_hole = false;
        for chunk in staged.untold().take_while(within) {
            let value = self.core.store.get(&records::extent_key(ino, chunk))?;
            let there = value.map(|value| Extent::decode(&value)).transpose()?;
            was_a_hole = !there.is_some_and(|there| there.dirty);
            if was_a_hole {
                break;
            }
        }
        if !was_a_hole {
            return Ok(());
        }
        let noted = self.core.store.get(&holed_key(ino))?;
        let noted = noted.as_deref().and_then(decode_holed).map_or(0, |(_, size)| size);
        let value = encode_holed(self.core.marks.generation(), noted.max(before));
        batch.put(holed_key(ino), value);
        Ok(())
    }

    /// Journals what is ahead of the store, except what has to wait for a sync.
    pub(crate) fn journal(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        if inode.state.read().data.ahead.is_none() {
            // Whoever journaled it had the lock, and it may have been the last that kept the inode here.
            self.drop_settled(inode);
            return Ok(());
        }
        self.journal_now(inode)
    }

    /// The same, also if only an access time is ahead.
    fn journal_now(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        self.journal_locked(inode.ino, &mut state, None)?;
        drop(state);
        self.drop_settled(inode);
        Ok(())
    }

    /// Syncs the backing file if something waits for that, and journals everything.
    pub(crate) fn persist(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        let (change, needs_sync) = {
            let state = inode.state.read();
            (state.data.begin_sync(), state.data.needs_sync())
        };
        if !needs_sync {
            return self.journal(inode);
        }
        self.sync_backing(inode)?;
        self.journal_synced(inode, change)
    }

    /// Journals everything up to `change`, which is durable in the backing file.
    fn journal_synced(&self, inode: &Arc<Inode>, change: u64) -> Result<(), VfsError> {
        let _guard = self.core.marks.enter_unseen();
        let mut state = inode.state.write();
        let mut batch = Batch::new();
        if state.data.failure.is_none() {
            self.drop_copies(inode.ino, &mut state, change, &mut batch);
        }
        self.journal_with(inode.ino, &mut state, Some(change), batch)?;
        if state
            .data
            .spill
            .is_some_and(|spill| spill.noted && spill.change <= change)
        {
            self.journal_locked(inode.ino, &mut state, Some(change))?;
        }
        // Another sync failed meanwhile, so what waited for this one is not journaled: whoever asked for it must not hear of success.
        let failure = state.data.failure.clone();
        drop(state);
        self.drop_settled(inode);
        failure.map_or(Ok(()), Err)
    }

    /// Makes the backing file durable; failing to is remembered for every later fsync, unless nothing was tried.
    fn sync_backing(&self, inode: &Arc<Inode>) -> Result<(), VfsError> {
        // What others wrote is not known to need it.
        let passes = inode.state.read().data.pass.as_ref().is_some_and(|pass| pass.noted);
        let noted = if passes {
            self.backing.written_by_others(inode.ino)
        } else {
            Ok(())
        };
        noted.and_then(|()| self.backing.sync(inode.ino)).map_err(|e| {
            let is_undecided = e.lacks_descriptors();
            let error = VfsError::from(e);
            if is_undecided {
                return error;
            }
            self.note_failure(inode, error.clone());
            error
        })
    }

    pub(super) fn note_failure(&self, inode: &Arc<Inode>, error: VfsError) {
        self.errors.add(format!(
            "inode {}: what was written cannot be made durable: {error}",
            inode.ino
        ));
        let mut state = inode.state.write();
        state.data.failure.get_or_insert(error);
        self.keep_pending(inode);
    }

    fn drop_settled(&self, inode: &Arc<Inode>) {
        let state = inode.state.read();
        if state.data.is_settled() {
            self.pending.lock().remove(&inode.ino);
        }
    }

    pub(super) fn fsync(&self, inode: &Arc<Inode>, data_only: bool) -> Result<(), VfsError> {
        if self.fsync_by_log(inode, data_only)? {
            return Ok(());
        }
        if !data_only && inode.state.read().lazy {
            self.journal_now(inode)?;
        }
        let (change, told, ordered, content_only) = {
            let state = inode.state.read();
            state.check_alive()?;
            if let Some(error) = &state.data.failure {
                return Err(error.clone());
            }
            let data = &state.data;
            let content_only = data_only && !state.record.inline && data.is_promised();
            (data.begin_sync(), data.told(), data.needs_sync(), content_only)
        };
        if content_only {
            // What a database does all day: pages over pages. Times follow with the journal.
            self.sync_backing(inode)?;
            return self.end_copies(inode, change);
        }
        if ordered {
            self.sync_backing(inode)?;
            self.journal_synced(inode, change)?;
            return Ok(self.core.store.barrier()?);
        }
        // What the journal says now promises nothing that the old records did not: it may be durable before the content is,
        // and both are when this returns. So the two are made durable side by side.
        self.journal(inode)?;
        let barrier = self.core.store.begin_barrier();
        self.sync_backing(inode)?;
        self.journal_synced(inode, change)?;
        self.core.store.end_barrier(barrier)?;
        // Not of what came meanwhile: that is counted beyond `told` as soon as it is staged.
        inode.state.write().data.set_promised(told);
        Ok(())
    }

    /// Journals everything about every inode; syncs what has to be synced for that.
    pub(crate) fn persist_all(&self) -> Result<(), VfsError> {
        let inodes: Vec<Arc<Inode>> = self.pending.lock().values().cloned().collect();
        self.persist_many(&inodes, &|state| !state.data.logged.is_empty())
    }

    /// Makes durable here whatever was written before the call, also what nobody asked to be.
    pub(crate) fn make_durable(&self) -> Result<(), VfsError> {
        self.persist_all()?;
        self.backing.sync_all().inspect_err(|e| {
            self.errors
                .add(format!("what was written cannot be made durable on this disk: {e}"));
        })?;
        Ok(self.core.store.barrier()?)
    }

    /// The same for inodes that have been ahead of the store for long enough.
    pub(crate) fn persist_aged(&self) -> Result<(), VfsError> {
        let now = self.core.clock.monotonic();
        let mut inodes: Vec<Arc<Inode>> = self.pending.lock().values().cloned().collect();
        inodes.retain(|inode| {
            let state = inode.state.read();
            state
                .data
                .ahead
                .is_none_or(|ahead| now.saturating_sub(ahead.since) >= PENDING_AGE_MAX)
        });
        self.persist_many(&inodes, &|state| self.copies_are_due(state, now))
    }

    /// `copies_go`: the inode's copies in the store shall be replaced by a sync of its backing file.
    pub(crate) fn persist_many(
        &self,
        inodes: &[Arc<Inode>],
        copies_go: &dyn Fn(&InodeState) -> bool,
    ) -> Result<(), VfsError> {
        let changes: Vec<(u64, bool)> = inodes
            .iter()
            .map(|inode| {
                let state = inode.state.read();
                let wants_sync = state.data.needs_sync() || copies_go(&state);
                (state.data.begin_sync(), wants_sync && state.data.failure.is_none())
            })
            .collect();
        let to_sync = changes.iter().filter(|(_, needs_sync)| *needs_sync).count();
        let mut first_error = None;
        // Where that fails each is synced by itself: whoever cannot be is told so, and the others go on.
        let all_synced = to_sync > SYNC_EACH_MAX && self.backing.sync_all().is_ok();
        for (inode, (change, needs_sync)) in inodes.iter().zip(changes) {
            let failed = || inode.state.read().data.failure.is_some();
            let mut synced = all_synced && !failed();
            if needs_sync && !synced {
                let tried = self.sync_backing(inode);
                synced = tried.is_ok();
                // What the inode remembers is told by whoever asks for it.
                first_error = first_error.or(tried.err().filter(|_| !failed()));
            }
            let result = if synced {
                self.journal_synced(inode, change)
            } else {
                self.journal(inode)
            };
            first_error = first_error.or(result.err());
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Content was written, or fetched, and the backing files may be ahead of the store.
    pub(crate) fn content_came(&self) -> bool {
        self.dirty.lock().bytes() > 0 || !self.pending.lock().is_empty()
    }
}
