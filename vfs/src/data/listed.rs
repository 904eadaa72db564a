//! Reading ahead from file to file: whoever reads some files of a directory one after the other reads the next ones, too. Some go on
//! in the order in which it was listed (`grep -r`, `tar`), others by inode number (`cp -r`), or by name, which is the same where the
//! files were made in that order.
//!
//! What is read ahead is the beginning of a file: its record, or the descriptor, tags and first bytes of its backing file, or its
//! one chunk from the network. Without that each small file costs trips to the disk, or a round trip to a miner, one after
//! the other, while nobody else has anything to do.
//!
//! Promises: of each listing at most [`LISTED_AHEAD_MAX`] files are read ahead that nobody reads in the end, and none before
//! [`LISTED_STREAK`] were read, unless files of other directories were just read as foreseen. It is advice throughout: what
//! fails, or comes too late, is done by the reader, who is told of errors.
//! Refuses: files that the kernel reads by itself, and chunks that only the network has of files that have more than one.

use super::{CHUNK, Shared};
use crate::inode::Inode;
use crate::limits::{
    LISTED_AHEAD_MAX, LISTED_AHEAD_MIN, LISTED_FILES_ALL_MAX, LISTED_FILES_MAX, LISTED_GAP_MAX, LISTED_QUEUE_MAX,
    LISTED_RETRY, LISTED_STREAK, LISTED_TRUST_AGE, LISTED_TRUST_MAX, LISTED_WAIT, LISTINGS_MAX,
};
use cessfs_crypto::ChunkId;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Directories as they were listed lately, how far their files were read, and what is to be read ahead.
#[derive(Default)]
pub(super) struct Listed {
    seen: Mutex<Seen>,
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    inos: VecDeque<u64>,
    /// What the network was asked for, and had no turn yet.
    chunks: VecDeque<ChunkId>,
    is_over: bool,
}

#[derive(Default)]
struct Seen {
    /// The latest at the back.
    listings: VecDeque<Listing>,
    /// Directory and place in its listing, by file.
    places: HashMap<u64, (u64, usize)>,
    /// Directories that may be foreseen before anything of them is read: one for each file that was read as foreseen, up to
    /// [`LISTED_TRUST_MAX`].
    trust: usize,
    /// When the last of those was read; monotonic.
    trusted_at: Duration,
    /// Files were last read by inode number.
    by_number: bool,
}

/// Regular files of a directory, [`LISTED_FILES_MAX`] of them at most.
struct Listing {
    dir: u64,
    /// In the order in which they will be read.
    files: Vec<File>,
    /// That is not the order in which they were listed, but by inode number.
    by_number: bool,
    /// Files that were read since.
    read: usize,
    /// Place of the last of them.
    last: Option<usize>,
    /// Place of the first file that was foreseen.
    start: usize,
    /// Files that were foreseen, from there on and around.
    foreseen: usize,
    /// The same, before the order was another.
    foreseen_before: usize,
}

#[derive(Clone, Copy)]
struct File {
    ino: u64,
    was_read: bool,
}

impl Listing {
    fn new(dir: u64) -> Listing {
        Listing {
            dir,
            files: Vec::new(),
            by_number: false,
            read: 0,
            last: None,
            start: 0,
            foreseen: 0,
            foreseen_before: 0,
        }
    }

    fn add(&mut self, files: &[u64]) {
        let more = files.len().min(LISTED_FILES_MAX - self.files.len());
        self.files.extend(files[..more].iter().map(|ino| File {
            ino: *ino,
            was_read: false,
        }));
        if self.by_number {
            self.sort();
        }
    }

    /// From now on by inode number. What was foreseen may be foreseen again.
    fn sort(&mut self) {
        self.by_number = true;
        self.files.sort_unstable_by_key(|file| file.ino);
        self.foreseen_before += self.foreseen;
        (self.start, self.foreseen, self.last) = (0, 0, None);
    }

    fn is_next(&self, place: usize) -> bool {
        self.last
            .is_none_or(|last| (last + 1..=last + LISTED_GAP_MAX).contains(&place))
    }

    fn is_foreseen(&self, place: usize) -> bool {
        let len = self.files.len();
        (place + len - self.start) % len < self.foreseen
    }

    /// Foresees so many more, as far as there are any.
    fn foresee(&mut self, more: usize) -> Vec<u64> {
        let len = self.files.len();
        let more = more.min(len - self.foreseen);
        let first = self.start + self.foreseen;
        self.foreseen += more;
        (first..first + more).map(|place| self.files[place % len].ino).collect()
    }
}

impl Seen {
    /// Takes notice of what a directory told; tells what to read ahead of it.
    fn listed(&mut self, dir: u64, is_first: bool, files: &[u64], now: Duration) -> Vec<u64> {
        let known = self.listings.iter().position(|listing| listing.dir == dir);
        let mut listing = match known.and_then(|at| self.listings.remove(at)) {
            Some(listing) if !is_first => listing,
            // Nobody knows what came before.
            None if !is_first => return Vec::new(),
            other => {
                self.forget(other);
                let by_number = self.by_number && self.is_trusted(now);
                Listing {
                    by_number,
                    ..Listing::new(dir)
                }
            }
        };
        listing.add(files);
        self.place(&listing);
        let mut foreseen = Vec::new();
        if is_first && self.is_trusted(now) {
            foreseen = listing.foresee(LISTED_AHEAD_MIN);
            // Whoever lists on and on, and reads nothing, is not believed for long.
            self.trust -= 1;
        }
        self.listings.push_back(listing);
        while self.listings.len() > LISTINGS_MAX || self.places.len() > LISTED_FILES_ALL_MAX {
            let oldest = self.listings.pop_front();
            self.forget(oldest);
        }
        foreseen
    }

    fn place(&mut self, listing: &Listing) {
        for (place, file) in listing.files.iter().enumerate() {
            self.places.insert(file.ino, (listing.dir, place));
        }
    }

    /// Somebody is reading one directory after the other.
    fn is_trusted(&self, now: Duration) -> bool {
        self.trust > 0 && now.saturating_sub(self.trusted_at) <= LISTED_TRUST_AGE
    }

    fn forget(&mut self, listing: Option<Listing>) {
        let Some(listing) = listing else { return };
        for file in &listing.files {
            // It may have another name in another directory.
            if self.places.get(&file.ino).is_some_and(|(dir, _)| *dir == listing.dir) {
                self.places.remove(&file.ino);
            }
        }
    }

    /// A file is read from its beginning; tells what to read ahead.
    fn read(&mut self, file: u64, now: Duration) -> Vec<u64> {
        let Some(&(dir, place)) = self.places.get(&file) else {
            return Vec::new();
        };
        let Some(at) = self.listings.iter().rposition(|listing| listing.dir == dir) else {
            return Vec::new();
        };
        let mut listing = self.listings.remove(at).expect("it was just found");
        let foreseen = self.read_of(&mut listing, place, now);
        self.listings.insert(at, listing);
        foreseen
    }

    fn read_of(&mut self, listing: &mut Listing, mut place: usize, now: Duration) -> Vec<u64> {
        let file = &mut listing.files[place];
        if std::mem::replace(&mut file.was_read, true) {
            return Vec::new();
        }
        let ino = file.ino;
        listing.read += 1;
        if listing.is_foreseen(place) {
            self.trust = LISTED_TRUST_MAX.min(self.trust + 1);
            self.trusted_at = now;
        }
        let is_expected = self.by_number && listing.read == 1 && self.is_trusted(now);
        if !listing.by_number && (is_expected || !listing.is_next(place)) {
            listing.sort();
            self.place(listing);
            place = self.places[&ino].1;
        }
        if listing.read > 1 {
            self.by_number = listing.by_number;
        }
        listing.last = Some(place);
        let is_trusted = self.is_trusted(now);
        if listing.read < LISTED_STREAK && !is_trusted {
            return Vec::new();
        }
        if listing.foreseen == 0 {
            listing.start = place + 1;
        }
        let ahead = match is_trusted {
            true => LISTED_AHEAD_MAX,
            false => (3 * listing.read).clamp(LISTED_AHEAD_MIN, LISTED_AHEAD_MAX),
        };
        let more = (listing.read + ahead).saturating_sub(listing.foreseen_before + listing.foreseen);
        // A few at a time: each time somebody is woken for it.
        if more < LISTED_AHEAD_MIN && listing.foreseen + more < listing.files.len() {
            return Vec::new();
        }
        listing.foresee(more)
    }
}

impl Listed {
    /// The background reads nothing ahead any more.
    pub(super) fn end(&self) {
        let mut queue = self.queue.lock();
        queue.is_over = true;
        (queue.inos, queue.chunks) = Default::default();
        self.came.notify_all();
    }

    fn push(&self, inos: Vec<u64>) {
        let mut queue = self.queue.lock();
        if queue.is_over || inos.is_empty() {
            return;
        }
        queue.inos.extend(inos);
        // The oldest were asked for by a reader who is past them.
        let many = queue.inos.len().saturating_sub(LISTED_QUEUE_MAX);
        queue.inos.drain(..many);
        self.came.notify_one();
    }

    /// The files, and chunks from the network, that are to be read ahead now; waits a while for some.
    #[expect(
        clippy::disallowed_methods,
        reason = "a real thread waits for work; a simulated volume has none"
    )]
    fn take(&self) -> (Vec<u64>, Vec<ChunkId>) {
        let mut queue = self.queue.lock();
        if queue.inos.is_empty() && !queue.is_over {
            let wait = match queue.chunks.is_empty() {
                true => LISTED_WAIT,
                false => LISTED_RETRY,
            };
            self.came.wait_for(&mut queue, wait);
        }
        (queue.inos.drain(..).collect(), queue.chunks.drain(..).collect())
    }

    /// These had no turn.
    fn put_back(&self, chunks: &[ChunkId]) {
        let mut queue = self.queue.lock();
        if !queue.is_over {
            queue
                .chunks
                .extend(&chunks[chunks.len().saturating_sub(LISTED_QUEUE_MAX)..]);
        }
    }
}

impl Shared {
    /// See [`Data::listed`](super::Data::listed).
    pub(super) fn listed(&self, dir: u64, is_first: bool, files: &[u64]) {
        let now = self.core.clock.monotonic();
        let foreseen = self.listed.seen.lock().listed(dir, is_first, files, now);
        self.listed.push(foreseen);
    }

    /// Foresees what will be read after this file, whose beginning is being read.
    pub(super) fn foresee(&self, inode: &Inode) {
        let foreseen = self.listed.seen.lock().read(inode.ino, self.core.clock.monotonic());
        self.listed.push(foreseen);
    }

    /// Reads ahead what was foreseen, or waits for something for a while.
    pub(crate) fn read_ahead(&self) {
        let (inos, mut absent) = self.listed.take();
        let inodes = inos
            .iter()
            .filter_map(|ino| self.core.inodes.get(&self.core, *ino).ok());
        // The disk begins with all of them before anything is waited for.
        let mut resident = Vec::new();
        for inode in inodes {
            match self.begin_ahead(&inode) {
                Next::Read => resident.push(inode),
                Next::Fetch(id) => absent.push(id),
                Next::Nothing => {}
            }
        }
        let taken = self.core.chunks.prefetch(&absent);
        self.listed.put_back(&absent[taken..]);
        for inode in resident {
            // Whoever holds it is about to change it; while it is held nobody takes the backing file away.
            if let Some(state) = inode.state.try_read()
                && state.check_alive().is_ok()
            {
                self.backing.read_ahead(inode.ino);
            }
        }
    }

    /// Has the disk begin to read what a reader of the file will ask for first.
    fn begin_ahead(&self, inode: &Inode) -> Next {
        let Some(state) = inode.state.try_read() else {
            return Next::Nothing;
        };
        let record = &state.record;
        if state.check_alive().is_err() || state.data.pass.is_some() || record.size == 0 {
            return Next::Nothing;
        }
        if record.inline {
            // What the store read is at hand for the next one.
            let _ = self.inline_bytes(inode.ino, record.size);
            return Next::Nothing;
        }
        match state.data.extent(&self.core, inode.ino, 0) {
            Ok(extent) if extent.resident => {
                self.backing.will_read_first(inode.ino);
                Next::Read
            }
            Ok(extent) if record.size <= CHUNK => extent.stored.map_or(Next::Nothing, |(id, _)| Next::Fetch(id)),
            _ => Next::Nothing,
        }
    }
}

/// What else can be done ahead for a file.
enum Next {
    /// To read its backing file.
    Read,
    /// To fetch its one chunk.
    Fetch(ChunkId),
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    const NOW: Duration = Duration::from_secs(100);

    fn seen(dir: u64, files: Range<u64>) -> Seen {
        let mut seen = Seen::default();
        seen.listed(dir, true, &files.collect::<Vec<_>>(), NOW);
        seen
    }

    fn read(seen: &mut Seen, files: Range<u64>) -> Vec<u64> {
        files.flat_map(|file| seen.read(file, NOW)).collect()
    }

    #[test]
    fn whoever_reads_in_order_is_followed_to_the_end_and_around() {
        let mut seen = seen(1, 100..160);
        assert_eq!(read(&mut seen, 100..102), Vec::<u64>::new());
        let first = read(&mut seen, 102..103);
        assert_eq!(first, (103..103 + 12).collect::<Vec<_>>());
        let rest = read(&mut seen, 103..160);
        assert_eq!(rest, (115..160).chain(100..103).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_reads_in_another_order_is_not_followed_further_than_he_went() {
        let mut seen = seen(1, 0..1000);
        let (mut foreseen, mut hits) = (std::collections::BTreeSet::new(), 0);
        for (read, turn) in (0..1000).enumerate() {
            let file = turn * 617 % 1000;
            hits += usize::from(foreseen.contains(&file));
            for file in seen.read(file, NOW) {
                assert!(foreseen.insert(file), "{file} was foreseen twice");
            }
            assert!(foreseen.len() <= read + 1 + LISTED_AHEAD_MAX);
        }
        assert!(hits >= 500, "{hits}");
    }

    #[test]
    fn whoever_reads_by_inode_number_is_followed_in_that_order() {
        let shuffled = |files: Range<u64>| -> Vec<u64> {
            let len = files.end - files.start;
            files.clone().map(|file| files.start + (file * 617) % len).collect()
        };
        let mut seen = Seen::default();
        seen.listed(1, true, &shuffled(1000..1100), NOW);
        read(&mut seen, 1000..1002);
        let first = seen.read(1002, NOW);
        assert_eq!(first, (1003..1003 + first.len() as u64).collect::<Vec<_>>());
        read(&mut seen, 1003..1100);
        // The next directory is expected to be read so, too.
        let first = seen.listed(2, true, &shuffled(2000..2100), NOW);
        assert_eq!(first, (2000..2006).collect::<Vec<_>>());
    }

    #[test]
    fn the_next_directory_is_foreseen_at_once_while_the_last_one_went_as_foreseen() {
        let mut seen = seen(1, 0..20);
        read(&mut seen, 0..20);
        let files: Vec<u64> = (50..70).collect();
        assert_eq!(seen.listed(2, true, &files, NOW), (50..56).collect::<Vec<_>>());
        assert_eq!(read(&mut seen, 50..53), (56..70).collect::<Vec<_>>());
        let later = NOW + 2 * LISTED_TRUST_AGE;
        assert!(seen.listed(3, true, &[80, 81, 82], later).is_empty());
        assert!(seen.read(80, later).is_empty());
        let listed = (100..200).map(|dir| seen.listed(dir, true, &[1000 + dir], NOW).len());
        assert_eq!(listed.sum::<usize>(), LISTED_TRUST_MAX, "nothing was read since");
    }

    #[test]
    fn a_listing_goes_on_where_it_ended_and_old_ones_are_forgotten() {
        let mut seen = seen(1, 0..3);
        seen.listed(1, false, &[3, 4], NOW);
        assert_eq!(read(&mut seen, 0..3), vec![3, 4, 0, 1, 2]);
        seen.listed(9, false, &[70], NOW);
        assert!(!seen.places.contains_key(&70), "nobody knows what came before");
        seen.listed(1, true, &(0..2 * LISTED_FILES_MAX as u64).collect::<Vec<_>>(), NOW);
        assert_eq!(seen.places.len(), LISTED_FILES_MAX);
        // A file with two names is where it was listed last.
        seen.listed(2, true, &[0], NOW);
        for dir in 10..10 + LISTINGS_MAX as u64 - 1 {
            seen.listed(dir, true, &[], NOW);
        }
        assert_eq!((seen.listings.len(), seen.places.len()), (LISTINGS_MAX, 1));
        seen.listed(5000, true, &[], NOW);
        assert_eq!((seen.listings.len(), seen.places.len()), (LISTINGS_MAX, 0));
    }

    #[test]
    fn what_is_queued_is_bounded_and_nothing_comes_after_the_end() {
        let listed = Listed::default();
        let id = |byte| ChunkId([byte; 32]);
        listed.push((0..200).collect());
        listed.put_back(&[id(1); 200]);
        let (files, chunks) = listed.take();
        assert_eq!(files, (200 - LISTED_QUEUE_MAX as u64..200).collect::<Vec<_>>());
        assert_eq!(chunks.len(), LISTED_QUEUE_MAX);
        listed.end();
        listed.push(vec![1]);
        listed.put_back(&[id(1)]);
        assert_eq!(listed.take(), (vec![], vec![]));
    }
}
