//! What the tree must be: the oracle.
//!
//! Three things are remembered. The tree as it is now, which reads are compared with. For every number of journal records the
//! names there were, which is what a crash that leaves so many must leave. And every tree there was since the last network
//! sync began: what a recovery gives must be one of them.

use std::collections::{BTreeMap, BTreeSet};

/// Stands for a file under whatever names it has.
pub type FileId = u64;

/// What a path means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// A directory.
    Dir,
    /// A regular file; hard links share the number.
    File(FileId),
}

/// Names of a tree. The root is not among them.
pub type Names = BTreeMap<String, Node>;

/// A whole tree at one time; contents as hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shot {
    names: Names,
    contents: BTreeMap<FileId, u64>,
}

/// A tree as somebody found it: `None` is a directory, a file is its inode and content.
pub type Found = BTreeMap<String, Option<(u64, Vec<u8>)>>;

/// See the module head.
#[derive(Clone, Default)]
pub struct Model {
    /// The tree now.
    pub names: Names,
    /// Content of every file, those without a name included.
    pub files: BTreeMap<FileId, Vec<u8>>,
    /// Files changed since they were made durable.
    unsynced: BTreeSet<FileId>,
    next_file: FileId,
    journal: Vec<(usize, Names)>,
    shots: Vec<Shot>,
    /// What each hash of a shot stands for.
    versions: BTreeMap<FileId, BTreeMap<u64, Vec<u8>>>,
    dropped: usize,
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = cessfs_sync::erasure::sha256(bytes).0;
    u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"))
}

impl Model {
    /// An empty tree, of a volume whose journal has so many records.
    pub fn new(records: usize) -> Model {
        let mut model = Model::default();
        model.done(records);
        model
    }

    /// A file nobody has named yet.
    pub fn new_file(&mut self) -> FileId {
        self.next_file += 1;
        self.files.insert(self.next_file, Vec::new());
        self.unsynced.insert(self.next_file);
        self.next_file
    }

    /// The content of a file, to be changed.
    pub fn change(&mut self, file: FileId) -> &mut Vec<u8> {
        self.unsynced.insert(file);
        self.files.get_mut(&file).expect("every file has content")
    }

    /// An fsync of a file returned.
    pub fn fsynced(&mut self, file: FileId) {
        self.unsynced.remove(&file);
    }

    /// A change is complete: the journal has so many records now.
    pub fn done(&mut self, records: usize) {
        if self.journal.last().is_none_or(|(_, names)| *names != self.names) {
            self.journal.push((records, self.names.clone()));
        }
        let named = self.names.values().filter_map(|node| match node {
            Node::File(file) => Some((*file, hash(&self.files[file]))),
            Node::Dir => None,
        });
        let shot = Shot {
            names: self.names.clone(),
            contents: named.collect(),
        };
        if self.shots.last() == Some(&shot) {
            return;
        }
        for (file, hash) in &shot.contents {
            let versions = self.versions.entry(*file).or_default();
            versions.entry(*hash).or_insert_with(|| self.files[file].clone());
        }
        self.shots.push(shot);
    }

    /// Where a sync that begins now would put the floor.
    pub fn mark(&self) -> usize {
        self.dropped + self.shots.len() - 1
    }

    /// A sync that began at `mark` returned: nothing older may come back.
    pub fn floor(&mut self, mark: usize) {
        if mark > self.dropped {
            self.shots.drain(..mark - self.dropped);
            self.dropped = mark;
        }
        let of_shot = |shot: &Shot| {
            shot.contents
                .iter()
                .map(|(file, hash)| (*file, *hash))
                .collect::<Vec<_>>()
        };
        let live: BTreeSet<(FileId, u64)> = self.shots.iter().flat_map(of_shot).collect();
        self.versions.retain(|file, versions| {
            versions.retain(|hash, _| live.contains(&(*file, *hash)));
            !versions.is_empty()
        });
        let (journal, names, versions) = (&self.journal, &self.names, &self.versions);
        let named = |file: &FileId| {
            let means = |node: &Node| *node == Node::File(*file);
            names.values().any(means) || journal.iter().any(|(_, names)| names.values().any(means))
        };
        self.files.retain(|file, _| versions.contains_key(file) || named(file));
    }

    /// What everything durable means for what a crash may leave: nothing before the names at so many records.
    pub fn forget_journal_before(&mut self, records: usize) {
        let keep = self.journal.iter().rposition(|(at, _)| *at <= records).unwrap_or(0);
        self.journal.drain(..keep);
    }

    /// A crash left so many records. The names of then are the names now.
    pub fn crashed(&mut self, records: usize) {
        let last = self.journal.iter().rposition(|(at, _)| *at <= records);
        self.journal.truncate(last.expect("the journal began empty") + 1);
        self.names = self.journal.last().expect("one is left").1.clone();
    }

    /// What is there after a crash. Takes it as the truth where it may be true.
    ///
    /// # Errors
    /// Where it may not: a name is missing or too many, or a file that was made durable is another one.
    pub fn survived(&mut self, found: &Found, records: usize) -> Result<(), String> {
        same_names(&self.names, found)?;
        for (path, node) in &self.names {
            let (Node::File(file), Some((_, content))) = (node, &found[path]) else {
                continue;
            };
            let expected = self.files.get_mut(file).expect("every file has content");
            if !self.unsynced.contains(file) && expected != content {
                return Err(format!(
                    "{path} was fsynced, and is another: {}",
                    differ(expected, content)
                ));
            }
            expected.clone_from(content);
        }
        self.done(records);
        Ok(())
    }

    /// Compares the tree with what is there.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, found: &Found) -> Result<(), String> {
        same_names(&self.names, found)?;
        for (path, node) in &self.names {
            let (Node::File(file), Some((_, content))) = (node, &found[path]) else {
                continue;
            };
            if self.files[file] != *content {
                return Err(format!("{path} is another: {}", differ(&self.files[file], content)));
            }
        }
        Ok(())
    }

    /// Whether a recovery may give this. If so it is the tree from now on, in a journal with so many records.
    ///
    /// # Errors
    /// It is no tree there was since the last sync.
    pub fn recovered(&mut self, found: &Found, records: usize) -> Result<(), String> {
        let names = self.fitting(found)?;
        for (path, node) in &names {
            if let (Node::File(file), Some((_, content))) = (node, &found[path]) {
                self.files.insert(*file, content.clone());
                self.unsynced.insert(*file);
            }
        }
        self.names = names;
        self.journal.clear();
        self.done(records);
        Ok(())
    }

    /// The names of the newest tree that this is.
    fn fitting(&self, found: &Found) -> Result<Names, String> {
        let newest_first = self.shots.iter().rev();
        let mut fitting = newest_first.filter(|shot| self.misfits(shot, found).is_empty());
        if let Some(shot) = fitting.next() {
            return Ok(shot.names.clone());
        }
        let all = self.shots.iter().enumerate();
        let all = all.map(|(index, shot)| (index, self.misfits(shot, found)));
        let nearest = all.min_by_key(|(_, misfits)| misfits.len());
        let many = self.shots.len();
        Err(format!(
            "recovery gave none of the {many} trees since the last sync; nearest: {nearest:?}"
        ))
    }

    /// Whether a recovery that began when the model was `before` and ended now may have given this.
    ///
    /// # Errors
    /// It is no tree there was between the last sync before it began and now.
    pub fn may_be(&self, before: &Model, found: &Found) -> Result<(), String> {
        let mut both = before.clone();
        let after = before.dropped + before.shots.len();
        let fresh = self.shots.iter().skip(after.saturating_sub(self.dropped));
        both.shots.extend(fresh.cloned());
        for (file, versions) in &self.versions {
            let known = both.versions.entry(*file).or_default();
            known.extend(versions.iter().map(|(hash, content)| (*hash, content.clone())));
        }
        both.fitting(found).map(drop)
    }

    /// How many trees a recovery may give now.
    pub fn candidates(&self) -> usize {
        self.shots.len()
    }

    /// In what a tree is not the one of this time. A file that was not changed since the last sync is what it was. One that was
    /// may be older: the delta of a full pack leaves what is being written as it was. Or it may be made of several of its
    /// contents: that of a forced cut has what was sent of it (`docs/FORMAT-delta.md`).
    fn misfits(&self, shot: &Shot, found: &Found) -> Vec<String> {
        let mut misfits: Vec<String> = shot
            .names
            .keys()
            .filter(|path| !found.contains_key(*path))
            .map(|path| format!("{path} is missing"))
            .collect();
        misfits.extend(
            found
                .keys()
                .filter(|path| !shot.names.contains_key(*path))
                .map(|path| format!("{path} should not be there")),
        );
        if misfits.is_empty() {
            misfits.extend(same_names(&shot.names, found).err());
        }
        let mut seen: BTreeMap<FileId, &Vec<u8>> = BTreeMap::new();
        for (path, node) in &shot.names {
            let (Node::File(file), Some(Some((_, content)))) = (node, found.get(path)) else {
                continue;
            };
            if *seen.entry(*file).or_insert(content) != content {
                misfits.push(format!("{path} is not what another name of the same file is"));
            }
            let versions = &self.versions[file];
            if !versions.contains_key(&hash(content)) && !is_made_of(content, versions) {
                misfits.push(format!(
                    "{path} is what it never was since then ({} bytes)",
                    content.len()
                ));
            }
        }
        misfits
    }
}

/// Whether each byte is what it was at some time, or not written yet.
fn is_made_of(content: &[u8], versions: &BTreeMap<u64, Vec<u8>>) -> bool {
    let fits = |at: usize, byte: u8| byte == 0 || versions.values().any(|version| version.get(at) == Some(&byte));
    let longest = versions.values().map(Vec::len).max().unwrap_or(0);
    versions.len() > 1 && content.len() <= longest && content.iter().enumerate().all(|(at, byte)| fits(at, *byte))
}

fn same_names(expected: &Names, found: &Found) -> Result<(), String> {
    for (path, node) in expected {
        match (node, found.get(path)) {
            (Node::Dir, Some(None)) | (Node::File(_), Some(Some(_))) => {}
            (_, None) => return Err(format!("{path} is missing")),
            _ => return Err(format!("{path} is of another kind")),
        }
    }
    if let Some(path) = found.keys().find(|path| !expected.contains_key(*path)) {
        return Err(format!("{path} should not be there"));
    }
    let mut inodes: BTreeMap<u64, FileId> = BTreeMap::new();
    for (path, node) in expected {
        if let (Node::File(file), Some((inode, _))) = (node, &found[path])
            && inodes.insert(*inode, *file).is_some_and(|before| before != *file)
        {
            return Err(format!("{path} is linked to another file"));
        }
    }
    Ok(())
}

/// Where two contents differ, for people.
pub fn differ(expected: &[u8], found: &[u8]) -> String {
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    let at = at.unwrap_or(expected.len().min(found.len()));
    let zeros = found[at.min(found.len())..]
        .iter()
        .take_while(|byte| **byte == 0)
        .count();
    format!(
        "{} bytes where {} are expected, first different at {at} ({zeros} zeros follow there)",
        found.len(),
        expected.len()
    )
}
