//! What a disk holds, what was asked of it, and what a power cut may leave of that.
//!
//! The model is strict. A file's bytes are safe once an fsync of the file returned; a name is safe once an fsync of its
//! directory did. Of everything else any part may survive: any subset of the writes to a file, each of them whole or torn into
//! sectors of 512 bytes, with or without the length that came with it; of the changes to a directory's names a prefix or any
//! subset. What survives is applied in the order in which it was asked for. A file of which nothing survives that was not synced
//! looks as if it had not been written for years: no sync that it had promised its time.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

pub const PAGE: usize = 4096;
pub const SECTOR: usize = 512;
pub const ROOT: u64 = 1;

/// Numbers that only depend on the seed (SplitMix64).
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The bytes of a file; pages are shared between copies.
#[derive(Clone, Default)]
pub struct Content {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
    pub len: u64,
}

impl Content {
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.len = self.len.max(offset + data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let part = (PAGE - within).min(data.len() - done);
            let page = self
                .pages
                .entry(at / PAGE as u64)
                .or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + part].copy_from_slice(&data[done..done + part]);
            done += part;
        }
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, self.len - len);
        }
        self.len = len;
    }

    pub fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let touched: Vec<u64> = self
            .pages
            .range(offset / PAGE as u64..end.div_ceil(PAGE as u64))
            .map(|(number, _)| *number)
            .collect();
        for number in touched {
            let start = number * PAGE as u64;
            if offset <= start && start + PAGE as u64 <= end {
                self.pages.remove(&number);
                continue;
            }
            let from = offset.saturating_sub(start).min(PAGE as u64) as usize;
            let to = (end - start).min(PAGE as u64) as usize;
            let page = self.pages.get_mut(&number).expect("it was just seen");
            Arc::make_mut(page)[from..to].fill(0);
        }
    }

    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = (self.len.saturating_sub(offset)).min(len as u64) as usize;
        let mut out = vec![0; len];
        let end = offset + len as u64;
        for (number, page) in self.pages.range(offset / PAGE as u64..end.div_ceil(PAGE as u64)) {
            let start = number * PAGE as u64;
            let (from, to) = (start.max(offset), (start + PAGE as u64).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        out
    }

    /// A sector; zeros where there is nothing.
    pub fn sector(&self, number: u64) -> &[u8] {
        const NOTHING: [u8; SECTOR] = [0; SECTOR];
        let per_page = (PAGE / SECTOR) as u64;
        match self.pages.get(&(number / per_page)) {
            Some(page) => &page[(number % per_page) as usize * SECTOR..][..SECTOR],
            None => &NOTHING,
        }
    }

    /// Where data (or a hole) begins from `offset` on; `None` beyond the end, or if no data follows.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let end_of_file = (offset < self.len).then_some(self.len)?;
        let first = offset / PAGE as u64;
        if data {
            let (&page, _) = self.pages.range(first..).next()?;
            return Some(offset.max(page * PAGE as u64)).filter(|found| *found < end_of_file);
        }
        let hole = (first..).find(|page| !self.pages.contains_key(page))?;
        Some(offset.max(hole * PAGE as u64).min(end_of_file))
    }

    pub fn blocks(&self) -> u64 {
        self.pages.len() as u64 * (PAGE / SECTOR) as u64
    }

    fn write_to(&self, file: &File) -> std::io::Result<()> {
        file.set_len(self.len)?;
        for (number, page) in &self.pages {
            let start = number * PAGE as u64;
            let bytes = self.len.saturating_sub(start).min(PAGE as u64) as usize;
            file.write_all_at(&page[..bytes], start)?;
        }
        Ok(())
    }
}

/// A change of a file's bytes.
#[derive(Clone)]
pub enum Change {
    Write(u64, Arc<[u8]>),
    Len(u64),
    Punch(u64, u64),
}

impl Change {
    pub fn apply(&self, content: &mut Content) {
        match self {
            Change::Write(offset, data) => content.write(*offset, data),
            Change::Len(len) => content.set_len(*len),
            Change::Punch(offset, len) => content.punch(*offset, *len),
        }
    }

    /// Some of its sectors.
    fn apply_torn(&self, content: &mut Content, dice: &mut Dice) {
        let Change::Write(offset, data) = self else {
            return self.apply(content);
        };
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let part = (SECTOR - (at % SECTOR as u64) as usize).min(data.len() - done);
            if dice.chance(50) {
                content.write(at, &data[done..done + part]);
            }
            done += part;
        }
    }
}

/// One thing that was asked of the disk.
#[derive(Clone)]
pub enum Op {
    /// An inode, without a name yet.
    Make { ino: u64, dir: bool, mode: u16 },
    /// Names of one directory, changed together.
    Names {
        dir: u64,
        changes: Vec<(Vec<u8>, Option<u64>)>,
    },
    /// A file's bytes.
    Data { ino: u64, change: Change },
    /// A barrier that returned.
    Sync { ino: u64 },
}

/// A file or a directory on the disk.
#[derive(Clone)]
pub struct Inode {
    pub dir: bool,
    /// The time of its last write has not come to the disk.
    pub aged: bool,
    pub mode: u16,
    pub content: Content,
    pub names: BTreeMap<Vec<u8>, u64>,
}

/// Names of one directory that change together, and what they name then.
type Renaming = Vec<(Vec<u8>, Option<u64>)>;

/// What is safe at some moment, and what was asked for beyond that.
pub struct Platter {
    safe: HashMap<u64, Inode>,
    data: BTreeMap<u64, Vec<Change>>,
    names: BTreeMap<u64, Vec<Renaming>>,
}

/// How much of the unflushed survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mercy {
    Nothing,
    Everything,
    Some,
}

fn rename(names: &mut BTreeMap<Vec<u8>, u64>, changes: &[(Vec<u8>, Option<u64>)]) {
    for (name, ino) in changes {
        match ino {
            Some(ino) => names.insert(name.clone(), *ino),
            None => names.remove(name),
        };
    }
}

impl Platter {
    pub fn new() -> Platter {
        let root = Inode {
            dir: true,
            aged: true,
            mode: 0o700,
            content: Content::default(),
            names: BTreeMap::new(),
        };
        Platter {
            safe: HashMap::from([(ROOT, root)]),
            data: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    pub fn advance(&mut self, op: &Op) {
        match op {
            Op::Make { ino, dir, mode } => {
                let made = Inode {
                    dir: *dir,
                    aged: true,
                    mode: *mode,
                    content: Content::default(),
                    names: BTreeMap::new(),
                };
                self.safe.insert(*ino, made);
            }
            Op::Names { dir, changes } => self.names.entry(*dir).or_default().push(changes.clone()),
            Op::Data { ino, change } => self.data.entry(*ino).or_default().push(change.clone()),
            Op::Sync { ino } => {
                let inode = self.safe.get_mut(ino).expect("only what was made is synced");
                for change in self.data.remove(ino).unwrap_or_default() {
                    change.apply(&mut inode.content);
                }
                for changes in self.names.remove(ino).unwrap_or_default() {
                    rename(&mut inode.names, &changes);
                }
            }
        }
    }

    /// What a power cut at this moment leaves.
    pub fn image(&self, mercy: Mercy, dice: &mut Dice) -> Image {
        let mut inodes = self.safe.clone();
        let keep = match mercy {
            Mercy::Nothing => 0,
            Mercy::Everything => 100,
            Mercy::Some => [10, 50, 90][dice.below(3) as usize],
        };
        let torn = if mercy == Mercy::Some { 30 } else { 0 };
        for (ino, changes) in &self.data {
            let inode = inodes.get_mut(ino).expect("only what was made is written");
            for change in changes {
                if dice.chance(torn) {
                    change.apply_torn(&mut inode.content, dice);
                } else if dice.chance(keep) {
                    change.apply(&mut inode.content);
                } else {
                    continue;
                }
                inode.aged = false;
            }
        }
        for (dir, pending) in &self.names {
            let inode = inodes.get_mut(dir).expect("only directories that were made have names");
            let kept = match mercy {
                Mercy::Nothing => 0,
                Mercy::Everything => pending.len(),
                Mercy::Some => dice.below(pending.len() as u64 + 1) as usize,
            };
            let ordered = dice.chance(50);
            for (number, changes) in pending.iter().enumerate() {
                let survives = match mercy {
                    Mercy::Some if !ordered => dice.chance(keep),
                    _ => number < kept,
                };
                if survives {
                    rename(&mut inode.names, changes);
                }
            }
        }
        Image { inodes }
    }
}

/// A disk as a power cut left it.
pub struct Image {
    inodes: HashMap<u64, Inode>,
}

impl Image {
    /// Lays it out below a directory that is there and empty.
    pub fn write_to(&self, dir: &Path) -> std::io::Result<()> {
        self.lay_out(ROOT, dir)
    }

    /// Of everything that would be laid out.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.digest_of(ROOT, &mut hasher);
        hasher.finish()
    }

    fn digest_of(&self, ino: u64, hasher: &mut DefaultHasher) {
        for (name, child) in &self.inodes[&ino].names {
            let inode = &self.inodes[child];
            (name, inode.dir, inode.mode, inode.content.len).hash(hasher);
            for (number, page) in &inode.content.pages {
                (number, page).hash(hasher);
            }
            self.digest_of(*child, hasher);
            hasher.write_u8(0xFF);
        }
    }

    fn lay_out(&self, ino: u64, at: &Path) -> std::io::Result<()> {
        for (name, child) in &self.inodes[&ino].names {
            let path = at.join(std::ffi::OsStr::from_bytes(name));
            let inode = &self.inodes[child];
            if inode.dir {
                fs::create_dir(&path)?;
                self.lay_out(*child, &path)?;
            } else {
                let file = File::create_new(&path)?;
                inode.content.write_to(&file)?;
                if inode.aged {
                    file.set_modified(UNIX_EPOCH)?;
                }
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(inode.mode)))?;
        }
        Ok(())
    }
}

/// Of names and contents below a directory.
pub fn digest_dir(dir: &Path) -> std::io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        let mut entries = fs::read_dir(&dir)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            entry.path().hash(&mut hasher);
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                fs::read(entry.path())?.hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}
