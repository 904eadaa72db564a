//! What a volume should hold: the tree after every operation, and every version of every file.

use crate::disk::{Content, SECTOR};
use cessfs_vfs::FileKind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What can be seen of one name, apart from content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ino: u64,
    pub kind: FileKind,
    pub perm: u16,
    pub links: u32,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A whole tree, by path.
pub type Listing = BTreeMap<String, Seen>;

/// One operation.
pub struct Step {
    /// In words.
    pub what: String,
    /// Length of the disk's log when it began and when it was acknowledged.
    pub begun: usize,
    pub done: usize,
    /// The tree after it.
    pub tree: Arc<Listing>,
    /// It promised that everything before it is safe.
    pub barrier: bool,
}

/// The history of a run.
#[derive(Default)]
pub struct History {
    pub steps: Vec<Step>,
    /// By inode: the step that made a version, and the version.
    pub versions: BTreeMap<u64, Vec<(usize, Content)>>,
    /// By inode: the steps that promised that its content is safe.
    pub syncs: BTreeMap<u64, Vec<usize>>,
}

/// What an image may hold, given what was promised before its moment.
pub struct Allowed<'h> {
    history: &'h History,
    /// The last step that was acknowledged as safe, and the last that had begun.
    pub first: usize,
    pub last: usize,
    position: usize,
}

impl History {
    /// What a disk of this moment may hold. Step 0 is the empty volume.
    pub fn allowed(&self, position: usize) -> Allowed<'_> {
        let first = (0..self.steps.len())
            .rev()
            .find(|&step| step == 0 || self.steps[step].barrier && self.steps[step].done <= position);
        let last = (0..self.steps.len())
            .rev()
            .find(|&step| self.steps[step].begun < position || self.steps[step].done <= position);
        Allowed {
            history: self,
            first: first.unwrap_or(0),
            last: last.unwrap_or(0),
            position,
        }
    }

    pub fn latest(&self, ino: u64) -> Content {
        let versions = self.versions.get(&ino).and_then(|versions| versions.last());
        versions.map(|(_, content)| content.clone()).unwrap_or_default()
    }
}

impl Allowed<'_> {
    /// Judges a tree: `Err` says why no state that is allowed looks like it.
    pub fn judge(&self, found: &Listing, content: &BTreeMap<u64, Content>) -> Result<(), String> {
        let steps = self.first..=self.last;
        let fits = steps.clone().any(|step| *self.history.steps[step].tree == *found);
        if !fits {
            let nearest = &self.history.steps[self.first];
            let differences = differences(&nearest.tree, found);
            return Err(format!(
                "the tree is none of those after steps {}..={}; against the last safe one ({}): {}",
                self.first,
                self.last,
                nearest.what,
                differences.join("; ")
            ));
        }
        content
            .iter()
            .try_for_each(|(ino, found)| self.judge_content(*ino, found))
    }

    fn judge_content(&self, ino: u64, found: &Content) -> Result<(), String> {
        let syncs = self.history.syncs.get(&ino).map_or(&[][..], Vec::as_slice);
        let safe = |step: &&usize| self.history.steps[**step].done <= self.position;
        let safe = syncs.iter().rev().find(safe).copied();
        let versions = self.history.versions.get(&ino).map_or(&[][..], Vec::as_slice);
        let (mut may_be, mut base): (Vec<&Content>, Option<&Content>) = (Vec::new(), None);
        for (step, version) in versions {
            if safe.is_some_and(|safe| *step <= safe) {
                base = Some(version);
            } else if *step <= self.last {
                may_be.push(version);
            }
        }
        let nothing = Content::default();
        may_be.insert(0, base.unwrap_or(&nothing));
        if !may_be.iter().any(|version| version.len == found.len) {
            let lens: Vec<u64> = may_be.iter().map(|version| version.len).collect();
            return Err(format!(
                "inode {ino} has {} bytes; it may have {lens:?}, safe since step {safe:?}",
                found.len
            ));
        }
        for sector in 0..found.len.div_ceil(SECTOR as u64) {
            // Of its last sector only what lies within the file.
            let bytes = (found.len - sector * SECTOR as u64).min(SECTOR as u64) as usize;
            let there = &found.sector(sector)[..bytes];
            let whole = may_be.iter().any(|version| &version.sector(sector)[..bytes] == there);
            // What was cut off, written over and not synced may come back byte by byte: some of one version, some of another.
            let of_some =
                |(index, byte): (usize, &u8)| may_be.iter().any(|version| version.sector(sector)[index] == *byte);
            if !whole && !there.iter().enumerate().all(of_some) {
                let zeros = if there.iter().all(|byte| *byte == 0) {
                    " (zeros)"
                } else {
                    ""
                };
                return Err(format!(
                    "inode {ino}: sector {sector} is none of {} versions that it may be{zeros}, safe since step {safe:?}",
                    may_be.len()
                ));
            }
        }
        Ok(())
    }
}

/// The first differences, in words.
pub fn differences(expected: &Listing, found: &Listing) -> Vec<String> {
    let lost = expected.iter().filter_map(|(path, what)| match found.get(path) {
        None => Some(format!("{path} is missing")),
        Some(there) if there != what => Some(format!("{path} is {there:?}, not {what:?}")),
        Some(_) => None,
    });
    let new = found.keys().filter(|path| !expected.contains_key(*path));
    lost.chain(new.map(|path| format!("{path} appeared"))).take(6).collect()
}
