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

/// Contents of every file by their hashes.
type Versions = BTreeMap<FileId, BTreeMap<u64, Vec<u8>>>;

/// What somebody may find who looks at the network beside the living volume: any tree since the last sync before he began,
/// also where other syncs end while he looks.
#[derive(Default)]
struct Visible {
    shots: Vec<Shot>,
    versions: Versions,
    /// How many trees there were when the last one of `shots` was taken.
    until: usize,
}

impl Visible {
    fn takes(&mut self, model: &Model) {
        let fresh = model.shots.iter().skip(self.until.saturating_sub(model.dropped));
        self.shots.extend(fresh.cloned());
        self.until = model.dropped + model.shots.len();
        for (file, versions) in &model.versions {
            let known = self.versions.entry(*file).or_default();
            known.extend(versions.iter().map(|(hash, content)| (*hash, content.clone())));
        }
    }
}

/// See the module head.
#[derive(Default)]
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
    versions: Versions,
    dropped: usize,
    /// For who looks from afar now.
    visible: Option<Visible>,
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
        if let Some(mut visible) = self.visible.take() {
            visible.takes(self);
            self.visible = Some(visible);
        }
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
        let names = fitting(&self.shots, &self.versions, found)?;
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

    /// Somebody begins to look at the network beside the living volume.
    pub fn look_begins(&mut self) {
        let mut visible = Visible::default();
        visible.takes(self);
        self.visible = Some(visible);
    }

    /// Whether this may be found by whoever began to look last.
    ///
    /// # Errors
    /// It is no tree there was between the last sync before he began and now.
    pub fn look_ends(&mut self, found: &Found) -> Result<(), String> {
        let mut visible = self.visible.take().expect("a look ends once, and has begun");
        visible.takes(self);
        fitting(&visible.shots, &visible.versions, found).map(drop)
    }

    /// How many trees a recovery may give now.
    pub fn candidates(&self) -> usize {
        self.shots.len()
    }
}

/// The names of the newest of these trees that this is.
fn fitting(shots: &[Shot], versions: &Versions, found: &Found) -> Result<Names, String> {
    let mut newest_first = shots.iter().rev();
    if let Some(shot) = newest_first.find(|shot| misfits(shot, versions, found).is_empty()) {
        return Ok(shot.names.clone());
    }
    let all = shots.iter().enumerate();
    let all = all.map(|(index, shot)| (index, misfits(shot, versions, found)));
    let nearest = all.min_by_key(|(_, misfits)| misfits.len());
    let many = shots.len();
    Err(format!(
        "recovery gave none of the {many} trees since the last sync; nearest: {nearest:?}"
    ))
}

/// In what a tree is not the one of this time. A file that was not changed since the last sync is what it was. One that was
/// may be older: the delta of a full pack leaves what is being written as it was. Or it may be made of several of its
/// contents: that of a forced cut has what was sent of it (`docs/FORMAT-delta.md`).
fn misfits(shot: &Shot, versions: &Versions, found: &Found) -> Vec<String> {
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
        let versions = &versions[file];
        if !versions.contains_key(&hash(content)) && !is_made_of(content, versions) {
            misfits.push(format!(
                "{path} is what it never was since then ({} bytes)",
                content.len()
            ));
        }
    }
    misfits
}

/// Whether each byte is what it was at some time, or not written yet, and there are as many as there were at the least.
fn is_made_of(content: &[u8], versions: &BTreeMap<u64, Vec<u8>>) -> bool {
    let fits = |at: usize, byte: u8| byte == 0 || versions.values().any(|version| version.get(at) == Some(&byte));
    let lengths = || versions.values().map(Vec::len);
    let (shortest, longest) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
    let fitting = (shortest..=longest).contains(&content.len());
    versions.len() > 1 && fitting && content.iter().enumerate().all(|(at, byte)| fits(at, *byte))
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

#[cfg(test)]
mod tests {
    use super::{Found, Model, Node};

    fn writes(model: &mut Model, file: u64, content: &[u8]) {
        model.change(file).splice(.., content.iter().copied());
        model.done(0);
    }

    fn one_file(content: &[u8]) -> Found {
        Found::from([("/f".to_string(), Some((2, content.to_vec())))])
    }

    #[test]
    fn who_looks_from_afar_may_find_any_tree_since_the_last_sync_before_he_began() {
        let mut model = Model::new(0);
        let file = model.new_file();
        model.names.insert("/f".into(), Node::File(file));
        for content in [b"one", b"two"] {
            writes(&mut model, file, content);
        }
        model.floor(model.mark());
        let look = |content: &[u8], model: &mut Model| {
            model.look_begins();
            writes(model, file, b"three");
            writes(model, file, b"four");
            model.floor(model.mark());
            writes(model, file, b"five");
            model.floor(model.mark());
            model.look_ends(&one_file(content))
        };
        for seen in [&b"two"[..], b"three", b"four", b"five"] {
            writes(&mut model, file, b"two");
            model.floor(model.mark());
            look(seen, &mut model).expect("that was so while he looked");
        }
        writes(&mut model, file, b"two");
        model.floor(model.mark());
        look(b"one", &mut model).expect_err("a sync went before");
        model
            .recovered(&one_file(b"four"), 0)
            .expect_err("whoever asks now must find what was synced");
    }
}
