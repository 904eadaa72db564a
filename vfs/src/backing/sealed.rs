//! The sealed layout: every block encrypted, and every block twice if need be.
//!
//! Per chunk a stride of `tag table (16 KiB) ‖ slot A (1 MiB) ‖ slot B (1 MiB)`. A block that was made durable is not
//! overwritten: its next version goes to its other slot, with a version one higher. So a power cut in the middle of a
//! write, in whatever order the disk took data and tags, leaves the durable version whole.
//!
//! In normal running only the highest version counts: if it does not open, the block is damaged, never silently an older
//! one. Only after an unclean end [`repair`](Backing::repair) falls back, or whoever reads a volume that must not change.

mod durable;
mod run;

use super::files::PartAt;
use super::recent::Recent;
use super::tags::{ENTRY_BYTES, Entry, Slot, TABLE_BYTES, TagTable};
use super::{Backing, BackingError, BackingFile, BlockAt, Files};
use crate::limits::{
    BACKING_DIRS, BACKING_PART_CHUNKS, BLOCK_BYTES, CHUNK_BLOCKS, SMALL_FILE_BYTES, STALE_BLOCKS_MIN, TAG_TABLES_MAX,
};
use crate::records::BlockMap;
use crate::stages;
use cessfs_crypto::{AtRestKeys, Entropy, InodeKey};
use cessfs_sync::limits::CHUNK_BYTES;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BLOCK: usize = BLOCK_BYTES as usize;
/// Bytes of a backing file that one chunk takes (mostly as holes).
pub(super) const STRIDE_BYTES: u64 = TABLE_BYTES as u64 + 2 * CHUNK_BYTES as u64;

const _: () = assert!(TABLE_BYTES.is_multiple_of(BLOCK));

/// Backing files of sealed blocks.
pub(super) struct Sealed {
    files: Files,
    keys: AtRestKeys,
    entropy: Arc<Mutex<dyn Entropy>>,
    /// Tag tables of chunks used lately, by inode and chunk.
    tables: Mutex<Recent<Arc<Chunk>>>,
    /// Those of them with blocks that are not known to be durable. Changed while a chunk's table is held.
    fresh: Mutex<Fresh>,
    /// Syncs of one inode take turns, or the end of one would call durable what another has only begun to sync.
    turns: Vec<Mutex<()>>,
    /// Buffers that were sealed into, to be sealed into again: fresh ones of this size are faulted in page by page.
    spare: Mutex<Vec<Vec<u8>>>,
    /// What does not open reads as its older version.
    falls_back: AtomicBool,
}

/// Chunks, by inode and number.
#[derive(Default)]
struct Fresh {
    /// With blocks that are not known to be durable.
    chunks: BTreeSet<(u64, u64)>,
    /// Those of them with blocks of which the store has no copy.
    uncopied: BTreeSet<(u64, u64)>,
}

/// A chunk in use.
struct Chunk {
    ino: u64,
    number: u64,
    key: InodeKey,
    /// Held by whoever reads the table, and by whoever writes the chunk until data and tags are written.
    tags: Mutex<TagTable>,
    /// The table was read.
    is_read: AtomicBool,
}

/// Blocks sealed before they are written.
pub(crate) struct Prepared {
    /// Slot and version that each block was sealed for.
    targets: Vec<(Slot, u32)>,
    /// Their entries.
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

/// Neighbouring blocks in one slot.
struct Run {
    slot: Slot,
    blocks: Range<usize>,
}

impl Sealed {
    pub(super) fn new(files: Files, keys: AtRestKeys, entropy: Arc<Mutex<dyn Entropy>>) -> Sealed {
        Sealed {
            files,
            keys,
            entropy,
            tables: Mutex::default(),
            fresh: Mutex::default(),
            turns: (0..BACKING_DIRS).map(|_| Mutex::new(())).collect(),
            spare: Mutex::default(),
            falls_back: AtomicBool::new(false),
        }
    }

    fn chunk(&self, ino: u64, number: u64) -> Result<Arc<Chunk>, BackingError> {
        loop {
            let known = self.tables.lock().get((ino, number)).cloned();
            match known {
                // Nobody writes a table that is just being read, and nobody waits for another's.
                Some(chunk) if chunk.is_read() => return Ok(chunk),
                // It could not be read: perhaps now.
                Some(_) => {}
                None => {
                    if let Some(chunk) = self.read_table(ino, number)? {
                        return Ok(chunk);
                    }
                }
            }
        }
    }

    /// Reads the table of a chunk that is not in use; `None` if somebody else has just begun to.
    fn read_table(&self, ino: u64, number: u64) -> Result<Option<Arc<Chunk>>, BackingError> {
        self.make_room()?;
        let mut bytes = [0; TABLE_BYTES];
        let chunk = Arc::new(Chunk {
            ino,
            number,
            key: self.keys.inode(ino),
            tags: Mutex::new(TagTable::decode(&bytes)),
            is_read: AtomicBool::new(false),
        });
        let mut tags = chunk.tags.lock();
        {
            let mut tables = self.tables.lock();
            if tables.contains((ino, number)) {
                return Ok(None);
            }
            tables.put((ino, number), chunk.clone());
        }
        if number == 0 {
            // All of a small file lies behind it: one trip to the disk.
            self.will_read_first(ino);
        }
        if let Err(e) = self.files.read(table_place(ino, number), &mut bytes) {
            self.tables.lock().pop((ino, number));
            return Err(e.into());
        }
        *tags = TagTable::decode(&bytes);
        chunk.is_read.store(true, Ordering::Release);
        drop(tags);
        Ok(Some(chunk))
    }

    /// Drops the least recently used tables. One that knows of blocks not yet durable is synced first: without that
    /// knowledge the next write could hit the durable slot. Those of a file that cannot be synced stay, as long as there are
    /// not twice as many tables: who wants room hears nothing of the failure, who syncs that file does.
    fn make_room(&self) -> Result<(), BackingError> {
        let (mut bad, mut failed) = (BTreeSet::new(), None);
        for _ in 0..TAG_TABLES_MAX {
            let unsynced = {
                let mut tables = self.tables.lock();
                if tables.len() < TAG_TABLES_MAX {
                    return Ok(());
                }
                let Some(((ino, number), chunk)) = tables.pop_oldest() else {
                    return Ok(());
                };
                let in_use = Arc::strong_count(&chunk) > 1;
                if in_use || chunk.tags.lock().any_fresh() {
                    tables.put((ino, number), chunk);
                }
                let stays = !in_use && !bad.contains(&ino) && tables.contains((ino, number));
                stays.then_some(ino)
            };
            if let Some((ino, Err(e))) = unsynced.map(|ino| (ino, self.sync(ino))) {
                bad.insert(ino);
                failed = Some(e);
            }
        }
        match failed {
            Some(e) if self.tables.lock().len() >= 2 * TAG_TABLES_MAX => Err(e),
            _ => Ok(()),
        }
    }

    /// Cuts `blocks` of a chunk into runs that lie in one slot.
    fn runs(at: BlockAt, blocks: Range<usize>, tags: &TagTable) -> Result<Vec<Run>, BackingError> {
        let mut runs: Vec<Run> = Vec::new();
        for block in blocks {
            let slot = tags
                .current(block)
                .ok_or(BackingError::Damaged(BlockAt { block, ..at }))?;
            push_run(&mut runs, slot, block);
        }
        Ok(runs)
    }

    /// Opens one block as this entry says it was sealed.
    fn open(chunk: &Chunk, block: usize, entry: &Entry, data: &mut [u8]) -> bool {
        let number = chunk.at(block).in_file();
        entry.version != 0
            && chunk
                .key
                .open_block(number, entry.version, &entry.nonce, &entry.tag, data)
                .is_ok()
    }

    /// Where the next version of each block goes.
    fn targets(at: BlockAt, blocks: Range<usize>, tags: &TagTable) -> Result<Vec<(Slot, u32)>, BackingError> {
        let next = |block| tags.next(block).ok_or(BackingError::WornOut(BlockAt { block, ..at }));
        blocks.map(next).collect()
    }

    /// Seals blocks from `first` on as what `targets` says.
    fn seal(&self, chunk: &Chunk, first: usize, targets: Vec<(Slot, u32)>, data: &[u8]) -> Prepared {
        let _span = stages::SEAL_BLOCKS.enter();
        let mut nonces = vec![0; 12 * targets.len()];
        self.entropy.lock().fill(&mut nonces);
        let (nonces, _) = nonces.as_chunks::<12>();
        let mut bytes = self.spare.lock().pop().unwrap_or_default();
        bytes.resize(data.len(), 0);
        let mut entries = Vec::with_capacity(targets.len());
        let places = (first..).zip(&targets).zip(nonces);
        let blocks = bytes.chunks_exact_mut(BLOCK).zip(data.chunks_exact(BLOCK));
        for (((block, (_, version)), nonce), (bytes, data)) in places.zip(blocks) {
            let number = chunk.at(block).in_file();
            // One at a time: the copy is still in the core's nearest cache when it is sealed.
            bytes.copy_from_slice(data);
            let tag = chunk.key.seal_block(number, *version, nonce, bytes);
            entries.push(Entry {
                nonce: *nonce,
                tag,
                version: *version,
            });
        }
        Prepared {
            targets,
            entries,
            bytes,
        }
    }

    fn write_entries(
        &self,
        chunk: &Chunk,
        tags: &mut TagTable,
        run: &Run,
        entries: &[Entry],
    ) -> Result<(), BackingError> {
        let place = entry_place(chunk.at(run.blocks.start), run.slot);
        self.files.write(place, &TagTable::encode_run(entries))?;
        for (block, entry) in run.blocks.clone().zip(entries) {
            tags.set_entry(run.slot, block, *entry);
        }
        Ok(())
    }

    /// Waits until none of `blocks` is just being made durable: the running sync promises its newest version, and the other
    /// slot may hold the only durable one until the sync has ended. So neither may be overwritten.
    fn lock_to_write<'c>(&self, chunk: &'c Chunk, blocks: &Range<usize>) -> MutexGuard<'c, TagTable> {
        loop {
            let tags = chunk.tags.lock();
            if !blocks.clone().any(|block| tags.is_syncing(block)) {
                return tags;
            }
            drop(tags);
            drop(self.turn(chunk.ino).lock());
        }
    }

    fn turn(&self, ino: u64) -> &Mutex<()> {
        &self.turns[(ino % BACKING_DIRS as u64) as usize]
    }

    /// Forgets what these slots hold and gives their space back.
    fn drop_runs(&self, chunk: &Chunk, tags: &mut TagTable, runs: &[Run]) -> Result<(), BackingError> {
        for run in runs {
            self.write_entries(chunk, tags, run, &vec![Entry::default(); run.blocks.len()])?;
            let place = slot_place(chunk.at(run.blocks.start), run.slot);
            self.files.punch(place, run.blocks.len() as u64 * BLOCK_BYTES)?;
        }
        Ok(())
    }

    /// Whether the slot holds a block that opens.
    fn slot_opens(&self, chunk: &Chunk, slot: Slot, block: usize, entry: &Entry) -> Result<bool, BackingError> {
        let mut data = [0; BLOCK];
        self.files.read(slot_place(chunk.at(block), slot), &mut data)?;
        Ok(Self::open(chunk, block, entry, &mut data))
    }
}

impl Chunk {
    /// Waits for whoever is reading the table; false if it could not be read.
    fn is_read(&self) -> bool {
        if !self.is_read.load(Ordering::Acquire) {
            drop(self.tags.lock());
        }
        self.is_read.load(Ordering::Acquire)
    }

    fn at(&self, block: usize) -> BlockAt {
        BlockAt {
            ino: self.ino,
            chunk: self.number,
            block,
        }
    }
}

impl Backing for Sealed {
    fn read(&self, at: BlockAt, out: &mut [u8]) -> Result<(), BackingError> {
        let blocks = at.block..at.block + out.len() / BLOCK;
        let chunk = self.chunk(at.ino, at.chunk)?;
        let tags = chunk.tags.lock();
        let runs = Self::runs(at, blocks.clone(), &tags)?;
        let entry = |run: &Run, block| *tags.entry(run.slot, block);
        let entries: Vec<Entry> = runs
            .iter()
            .flat_map(|run| run.blocks.clone().map(move |block| entry(run, block)))
            .collect();
        drop(tags);
        for run in &runs {
            let out = &mut out[(run.blocks.start - at.block) * BLOCK..(run.blocks.end - at.block) * BLOCK];
            self.files.read(slot_place(chunk.at(run.blocks.start), run.slot), out)?;
            let _span = stages::OPEN_BLOCKS.enter();
            for (block, data) in run.blocks.clone().zip(out.chunks_exact_mut(BLOCK)) {
                let opens = Self::open(&chunk, block, &entries[block - at.block], data);
                if !opens && !self.open_older(&chunk, run.slot.other(), block, data)? {
                    return Err(BackingError::Damaged(chunk.at(block)));
                }
            }
        }
        Ok(())
    }

    fn will_read(&self, ino: u64, chunk: u64) {
        // What was rewritten since lies in slot B, or a hole is read: advice need not be right.
        self.files
            .will_read(table_place(ino, chunk), (TABLE_BYTES + CHUNK_BYTES) as u64);
    }

    fn will_read_first(&self, ino: u64) {
        self.files
            .will_read(table_place(ino, 0), TABLE_BYTES as u64 + SMALL_FILE_BYTES);
    }

    fn read_ahead(&self, ino: u64) {
        // Whoever reads the file is told if that fails.
        let _ = self.chunk(ino, 0);
    }

    fn will_sync(&self, ino: u64, chunk: u64) {
        self.files.will_sync(table_place(ino, chunk), STRIDE_BYTES);
    }

    fn write(&self, at: BlockAt, data: &[u8]) -> Result<(), BackingError> {
        debug_assert!(data.len().is_multiple_of(BLOCK) && at.block + data.len() / BLOCK <= CHUNK_BLOCKS);
        let chunk = self.chunk(at.ino, at.chunk)?;
        let blocks = at.block..at.block + data.len() / BLOCK;
        let mut tags = self.lock_to_write(&chunk, &blocks);
        let targets = Self::targets(at, blocks, &tags)?;
        let ready = self.seal(&chunk, at.block, targets, data);
        self.write_sealed(&chunk, &mut tags, at.block, ready)
    }

    fn prepare(&self, at: BlockAt, data: &[u8]) -> Option<Prepared> {
        let chunk = self.chunk(at.ino, at.chunk).ok()?;
        let targets = Self::targets(at, at.block..at.block + data.len() / BLOCK, &chunk.tags.lock()).ok()?;
        Some(self.seal(&chunk, at.block, targets, data))
    }

    fn write_prepared(&self, at: BlockAt, data: &[u8], ready: Prepared) -> Result<(), BackingError> {
        debug_assert_eq!(data.len(), ready.bytes.len());
        let chunk = self.chunk(at.ino, at.chunk)?;
        let blocks = at.block..at.block + data.len() / BLOCK;
        let mut tags = self.lock_to_write(&chunk, &blocks);
        // Another write or a sync came between: what was sealed belongs elsewhere, or has a version that is taken.
        if Self::targets(at, blocks, &tags)? != ready.targets {
            drop(tags);
            return self.write(at, data);
        }
        self.write_sealed(&chunk, &mut tags, at.block, ready)
    }

    fn copy(&self, _from: BlockAt, _to: BlockAt, _blocks: usize) -> Result<bool, BackingError> {
        // A sealed block only opens where it was sealed.
        Ok(false)
    }

    fn punch(&self, ino: u64, number: u64, blocks: Range<usize>) -> Result<(), BackingError> {
        let chunk = self.chunk(ino, number)?;
        let mut tags = chunk.tags.lock();
        if blocks == (0..CHUNK_BLOCKS) {
            self.files.punch(table_place(ino, number), STRIDE_BYTES)?;
            *tags = TagTable::decode(&[0; TABLE_BYTES]);
            self.fresh.lock().note(&chunk, &tags);
            self.files.note_cut(ino);
            return Ok(());
        }
        let mut runs = Vec::new();
        for slot in [Slot::A, Slot::B] {
            for block in blocks.clone().filter(|block| tags.entry(slot, *block).version != 0) {
                push_run(&mut runs, slot, block);
            }
        }
        self.drop_runs(&chunk, &mut tags, &runs)?;
        self.files.note_cut(ino);
        Ok(())
    }

    fn may_hold_older(&self, ino: u64, number: u64, mut blocks: Range<usize>) -> Result<bool, BackingError> {
        let chunk = self.chunk(ino, number)?;
        let tags = chunk.tags.lock();
        Ok(self.files.is_cut(ino) || blocks.any(|block| tags.current(block).is_some()))
    }

    fn is_cut(&self, ino: u64) -> bool {
        self.files.is_cut(ino)
    }

    fn sync(&self, ino: u64) -> Result<(), BackingError> {
        let _turn = self.turn(ino).lock();
        self.sync_tables(self.fresh_chunks((ino, 0)..=(ino, u64::MAX)), || self.files.sync(ino))
    }

    fn sync_all(&self) -> Result<(), BackingError> {
        let _turns: Vec<_> = self.turns.iter().map(|turn| turn.lock()).collect();
        self.sync_tables(self.fresh_chunks(..), || self.files.sync_all())
    }

    fn unsynced(&self, ino: u64, max: usize) -> Option<Vec<(BlockAt, u32)>> {
        self.unsynced_blocks(ino, max)
    }

    fn copied(&self, blocks: &[(BlockAt, u32)]) {
        self.note_copies(blocks);
    }

    fn restore(&self, at: BlockAt, version: u32, data: &[u8]) -> Result<(), BackingError> {
        self.restore_block(at, version, data)
    }

    fn fall_back(&self) {
        self.falls_back.store(true, Ordering::Relaxed);
    }

    fn sync_disk(&self) -> Result<(), BackingError> {
        let _turns: Vec<_> = self.turns.iter().map(|turn| turn.lock()).collect();
        self.sync_tables(self.fresh_chunks(..), || self.files.sync_disk())
    }

    fn remove(&self, ino: u64) -> Result<(), BackingError> {
        let mut tables = self.tables.lock();
        for (key, _) in tables.pop_inode(ino) {
            self.fresh.lock().forget(&key);
        }
        drop(tables);
        Ok(self.files.remove(ino)?)
    }

    fn empty(&self, ino: u64) -> Result<(), BackingError> {
        self.remove(ino)?;
        Ok(self.files.empty(ino)?)
    }

    fn repair(&self, ino: u64, number: u64, written: &BlockMap) -> Result<BlockMap, BackingError> {
        let chunk = self.chunk(ino, number)?;
        let mut tags = chunk.tags.lock();
        let (mut lost, mut torn) = (BlockMap::default(), Vec::new());
        for block in (0..CHUNK_BLOCKS).filter(|block| written.contains(*block)) {
            let Some(current) = tags.current(block) else {
                lost.insert(block);
                continue;
            };
            if self.slot_opens(&chunk, current, block, tags.entry(current, block))? {
                continue;
            }
            push_run(&mut torn, current, block);
            let older = current.other();
            if !self.slot_opens(&chunk, older, block, tags.entry(older, block))? {
                lost.insert(block);
                push_run(&mut torn, older, block);
            }
        }
        self.drop_runs(&chunk, &mut tags, &torn)?;
        Ok(lost)
    }

    fn next_held(&self, ino: u64, from: u64) -> Result<Option<(u64, BlockMap)>, BackingError> {
        let Some(found) = self.files.next_data(table_place(ino, from))? else {
            return Ok(None);
        };
        let chunk = found.part * BACKING_PART_CHUNKS + found.offset / STRIDE_BYTES;
        let mut held = BlockMap::default();
        for slot in [Slot::A, Slot::B] {
            let place = slot_place(BlockAt { ino, chunk, block: 0 }, slot);
            held.insert_all(&self.files.data_blocks(place)?);
        }
        Ok(Some((chunk, held)))
    }

    fn tidy(&self, ino: u64, number: u64) -> Result<(), BackingError> {
        let chunk = self.chunk(ino, number)?;
        let (doubled, any_fresh) = {
            let tags = chunk.tags.lock();
            (tags.doubled(), tags.any_fresh())
        };
        if doubled < STALE_BLOCKS_MIN {
            return Ok(());
        }
        if any_fresh {
            self.sync(ino)?;
        }
        let mut tags = chunk.tags.lock();
        let mut runs = Vec::new();
        for slot in [Slot::A, Slot::B] {
            for block in (0..CHUNK_BLOCKS).filter(|block| tags.stale(*block) == Some(slot)) {
                push_run(&mut runs, slot, block);
            }
        }
        self.drop_runs(&chunk, &mut tags, &runs)
    }

    fn used_bytes(&self) -> u64 {
        self.files.used_bytes()
    }

    fn recount(&self, visit: &mut dyn FnMut(BackingFile)) -> Result<(), BackingError> {
        Ok(self.files.recount(visit)?)
    }

    fn expect_used(&self, bytes: u64) {
        self.files.expect_used(bytes);
    }

    fn inodes_in(&self, number: usize) -> Result<BTreeSet<u64>, BackingError> {
        Ok(self.files.inodes_in(number)?)
    }
}

/// Adds a block to the last run if it follows it, or starts a new one.
fn push_run(runs: &mut Vec<Run>, slot: Slot, block: usize) {
    match runs.last_mut() {
        Some(run) if run.slot == slot && run.blocks.end == block => run.blocks.end += 1,
        _ => runs.push(Run {
            slot,
            blocks: block..block + 1,
        }),
    }
}

fn table_place(ino: u64, chunk: u64) -> PartAt {
    PartAt {
        ino,
        part: chunk / BACKING_PART_CHUNKS,
        offset: (chunk % BACKING_PART_CHUNKS) * STRIDE_BYTES,
    }
}

fn entry_place(at: BlockAt, slot: Slot) -> PartAt {
    let table = table_place(at.ino, at.chunk);
    let entry = slot.index() * CHUNK_BLOCKS + at.block;
    PartAt {
        offset: table.offset + (entry * ENTRY_BYTES) as u64,
        ..table
    }
}

fn slot_place(at: BlockAt, slot: Slot) -> PartAt {
    let table = table_place(at.ino, at.chunk);
    let within = TABLE_BYTES + slot.index() * CHUNK_BYTES + at.block * BLOCK;
    PartAt {
        offset: table.offset + within as u64,
        ..table
    }
}
