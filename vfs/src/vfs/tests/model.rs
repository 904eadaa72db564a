//! Sequences of operations against a reference: a filesystem written as plainly as can be. After every sequence the whole
//! tree is compared, contents included: now, after mounting again, with nothing in the cache, and made of nothing but what the
//! network holds. Every crash in between must leave a tree without a broken invariant.

use super::restored::{read, restore, write};
use super::*;
use crate::fakes::bench::pattern;
use crate::fakes::model_cases;
use cessfs_sync::CutCause;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A directory by its place among those alive, and a name in it.
type At = (prop::sample::Index, usize);

#[derive(Clone, Debug)]
enum Op {
    Make(At, FileKind, u16),
    Unlink(At),
    Rmdir(At),
    Rename(At, At, RenameFlags),
    Link(At, At),
    Chmod(At, u16),
    Chown(At, Option<u32>, Option<u32>),
    Truncate(At, u64),
    /// Offset, length and seed.
    Write(At, u64, usize, u8),
    /// Everything to the network, and out of the cache.
    Evict,
    Remount,
    SetXattr(At, usize, u8, XattrMode),
    RemoveXattr(At, usize),
}

fn at() -> impl Strategy<Value = At> {
    (any::<prop::sample::Index>(), 0..NAMES.len())
}

fn rename_flags() -> impl Strategy<Value = RenameFlags> {
    let one = |no_replace, exchange, whiteout: bool| RenameFlags {
        no_replace,
        exchange,
        whiteout: whiteout.then_some(USER),
    };
    prop_oneof![
        6 => Just(one(false, false, false)),
        1 => Just(one(true, false, false)),
        2 => Just(one(false, true, false)),
        1 => Just(one(false, false, true)),
        1 => Just(one(true, true, false)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        3 => Just(FileKind::Directory),
        2 => Just(FileKind::Regular),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::Fifo),
    ];
    let mode = prop_oneof![Just(XattrMode::Any), Just(XattrMode::Create), Just(XattrMode::Replace)];
    let id = || proptest::option::of(0u32..4);
    prop_oneof![
        6 => (at(), kind, 0u16..=0o7777).prop_map(|(at, kind, perm)| Op::Make(at, kind, perm)),
        2 => at().prop_map(Op::Unlink),
        2 => at().prop_map(Op::Rmdir),
        5 => (at(), at(), rename_flags()).prop_map(|(from, to, flags)| Op::Rename(from, to, flags)),
        2 => (at(), at()).prop_map(|(from, to)| Op::Link(from, to)),
        1 => (at(), 0u16..=0o7777).prop_map(|(at, perm)| Op::Chmod(at, perm)),
        1 => (at(), id(), id()).prop_map(|(at, uid, gid)| Op::Chown(at, uid, gid)),
        1 => (at(), 0u64..100_000).prop_map(|(at, size)| Op::Truncate(at, size)),
        4 => (at(), 0u64..30_000, 1usize..20_000, any::<u8>()).prop_map(|(at, from, len, seed)| Op::Write(at, from, len, seed)),
        1 => Just(Op::Evict),
        1 => Just(Op::Remount),
        1 => (at(), 0..3usize, any::<u8>(), mode).prop_map(|(at, which, value, mode)| Op::SetXattr(at, which, value, mode)),
        1 => (at(), 0..3usize).prop_map(|(at, which)| Op::RemoveXattr(at, which)),
    ]
}

/// The reference's inode.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: FileKind,
    perm: u16,
    uid: u32,
    gid: u32,
    content: Content,
    xattrs: BTreeMap<String, Vec<u8>>,
    children: BTreeMap<&'static str, usize>,
}

/// Bytes of a file or a symlink's target; a failure shows how many there are and what they add up to.
#[derive(Clone, PartialEq, Eq)]
struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self
            .0
            .iter()
            .fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        write!(f, "{} bytes, {sum:x}", self.0.len())
    }
}

/// The reference: nodes are never removed from the list, only from directories.
struct Model {
    nodes: Vec<Node>,
}

/// What can be seen of one path: the node, its links, and the first path of the same inode.
type Seen = (Node, u32, String);

impl Node {
    fn new(kind: FileKind, perm: u16, uid: u32, gid: u32) -> Node {
        let target: &[u8] = if kind == FileKind::Symlink { b"target" } else { b"" };
        Node {
            kind,
            perm,
            uid,
            gid,
            content: Content(target.to_vec()),
            xattrs: BTreeMap::new(),
            children: BTreeMap::new(),
        }
    }

    fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    fn drop_privileges(&mut self) {
        self.perm &= !0o4000;
        if self.perm & 0o10 != 0 {
            self.perm &= !0o2000;
        }
    }
}

impl Model {
    fn new() -> Model {
        Model {
            nodes: vec![Node::new(FileKind::Directory, 0o755, 0, 0)],
        }
    }

    /// Paths of all directories with their nodes, in path order.
    fn dirs(&self) -> Vec<(String, usize)> {
        let mut dirs = vec![(String::new(), 0)];
        let mut at = 0;
        while at < dirs.len() {
            let (path, node) = dirs[at].clone();
            let subdirs = self.nodes[node]
                .children
                .iter()
                .filter(|(_, child)| self.nodes[**child].is_dir());
            dirs.extend(subdirs.map(|(name, child)| (format!("{path}/{name}"), *child)));
            at += 1;
        }
        dirs
    }

    fn child(&self, dir: usize, name: &str) -> Result<usize, i32> {
        self.nodes[dir].children.get(name).copied().ok_or(libc::ENOENT)
    }

    /// `node` is `dir` or an ancestor of it.
    fn is_at_or_above(&self, node: usize, dir: usize) -> bool {
        node == dir
            || self.nodes[node]
                .children
                .values()
                .any(|child| self.is_at_or_above(*child, dir))
    }

    fn make(&mut self, dir: usize, name: &'static str, kind: FileKind, perm: u16) -> Result<(), i32> {
        if self.child(dir, name).is_ok() {
            return Err(libc::EEXIST);
        }
        let perm = if kind == FileKind::Symlink { 0o777 } else { perm };
        let mut node = Node::new(kind, perm, USER.uid, USER.gid);
        if self.nodes[dir].perm & 0o2000 != 0 {
            node.gid = self.nodes[dir].gid;
            if node.is_dir() {
                node.perm |= 0o2000;
            }
        }
        self.nodes.push(node);
        let made = self.nodes.len() - 1;
        self.nodes[dir].children.insert(name, made);
        Ok(())
    }

    fn unlink(&mut self, dir: usize, name: &str) -> Result<(), i32> {
        let child = self.child(dir, name)?;
        if self.nodes[child].is_dir() {
            return Err(libc::EISDIR);
        }
        self.nodes[dir].children.remove(name);
        Ok(())
    }

    fn rmdir(&mut self, dir: usize, name: &str) -> Result<(), i32> {
        let child = self.child(dir, name)?;
        if !self.nodes[child].is_dir() {
            return Err(libc::ENOTDIR);
        }
        if !self.nodes[child].children.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        self.nodes[dir].children.remove(name);
        Ok(())
    }

    fn rename(
        &mut self,
        (from, name): (usize, &'static str),
        (to, new_name): (usize, &'static str),
        flags: RenameFlags,
    ) -> Result<(), i32> {
        if flags.exchange && (flags.no_replace || flags.whiteout.is_some()) {
            return Err(libc::EINVAL);
        }
        let moved = self.child(from, name)?;
        let target = self.child(to, new_name).ok();
        if flags.no_replace && target.is_some() {
            return Err(libc::EEXIST);
        }
        if flags.exchange && target.is_none() {
            return Err(libc::ENOENT);
        }
        if self.is_at_or_above(moved, to) {
            return Err(libc::EINVAL);
        }
        if flags.exchange {
            let other = target.expect("checked above");
            if self.is_at_or_above(other, from) {
                return Err(libc::EINVAL);
            }
            self.nodes[from].children.insert(name, other);
            self.nodes[to].children.insert(new_name, moved);
            return Ok(());
        }
        if target == Some(moved) {
            return Ok(());
        }
        if let Some(target) = target {
            match (self.nodes[moved].is_dir(), self.nodes[target].is_dir()) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) if !self.nodes[target].children.is_empty() => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        self.nodes[from].children.remove(name);
        if let Some(caller) = flags.whiteout {
            let dir = &self.nodes[from];
            let gid = if dir.perm & 0o2000 != 0 { dir.gid } else { caller.gid };
            self.nodes.push(Node::new(FileKind::CharDevice, 0, caller.uid, gid));
            let mark = self.nodes.len() - 1;
            self.nodes[from].children.insert(name, mark);
        }
        self.nodes[to].children.insert(new_name, moved);
        Ok(())
    }

    fn link(&mut self, node: usize, to: usize, new_name: &'static str) -> Result<(), i32> {
        if self.nodes[node].is_dir() {
            return Err(libc::EPERM);
        }
        if self.child(to, new_name).is_ok() {
            return Err(libc::EEXIST);
        }
        self.nodes[to].children.insert(new_name, node);
        Ok(())
    }

    fn truncate(&mut self, node: usize, size: u64) -> Result<(), i32> {
        let node = &mut self.nodes[node];
        match node.kind {
            FileKind::Regular => {
                node.content.0.resize(size as usize, 0);
                node.drop_privileges();
                Ok(())
            }
            FileKind::Directory => Err(libc::EISDIR),
            _ => Err(libc::EINVAL),
        }
    }

    fn write(&mut self, node: usize, offset: u64, bytes: &[u8]) {
        let content = &mut self.nodes[node].content.0;
        let end = offset as usize + bytes.len();
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(bytes);
    }

    fn chown(&mut self, node: usize, uid: Option<u32>, gid: Option<u32>) {
        let node = &mut self.nodes[node];
        if !node.is_dir() && (uid.is_some() || gid.is_some()) {
            node.drop_privileges();
        }
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
    }

    fn set_xattr(&mut self, node: usize, name: &str, value: u8, mode: XattrMode) -> Result<(), i32> {
        let xattrs = &mut self.nodes[node].xattrs;
        match (xattrs.contains_key(name), mode) {
            (true, XattrMode::Create) => Err(libc::EEXIST),
            (false, XattrMode::Replace) => Err(libc::ENODATA),
            _ => {
                xattrs.insert(name.to_owned(), vec![value]);
                Ok(())
            }
        }
    }

    fn dump(&self) -> BTreeMap<String, Seen> {
        let mut paths = vec![(String::new(), 0)];
        let mut at = 0;
        while at < paths.len() {
            let (path, node) = paths[at].clone();
            let children = self.nodes[node].children.iter();
            paths.extend(children.map(|(name, child)| (format!("{path}/{name}"), *child)));
            at += 1;
        }
        let mut names: BTreeMap<usize, Vec<&String>> = BTreeMap::new();
        for (path, node) in &paths {
            names.entry(*node).or_default().push(path);
        }
        let see = |(path, node): &(String, usize)| {
            let all = &names[node];
            let node = self.nodes[*node].clone();
            let subdirs = node
                .children
                .values()
                .filter(|child| self.nodes[**child].is_dir())
                .count();
            let nlink = if node.is_dir() { 2 + subdirs } else { all.len() };
            let first = (*all.iter().min().expect("it has this path")).clone();
            (
                path.clone(),
                (
                    Node {
                        children: BTreeMap::new(),
                        ..node
                    },
                    nlink as u32,
                    first,
                ),
            )
        };
        paths.iter().map(see).collect()
    }
}

/// What the volume shows.
fn dump(w: &World) -> BTreeMap<String, Seen> {
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut paths = vec![String::new()];
    let mut found = Vec::new();
    let mut at = 0;
    while at < paths.len() {
        let path = paths[at].clone();
        let attr = w.stat(&path);
        if attr.kind == FileKind::Directory {
            paths.extend(w.list(&path).into_iter().map(|name| format!("{path}/{name}")));
        }
        let known = first.entry(attr.ino).or_insert_with(|| path.clone());
        *known = known.clone().min(path.clone());
        found.push((path, attr));
        at += 1;
    }
    let see = |(path, attr): (String, Attr)| {
        let content = match attr.kind {
            FileKind::Regular => read(w, attr.ino, attr.size),
            FileKind::Symlink => w.vfs.readlink(attr.ino).unwrap(),
            _ => Vec::new(),
        };
        let mut node = Node {
            content: Content(content),
            ..Node::new(attr.kind, attr.perm, attr.uid, attr.gid)
        };
        for name in w.vfs.listxattr(attr.ino).unwrap().split_inclusive(|byte| *byte == 0) {
            let name = &name[..name.len() - 1];
            let value = w.vfs.getxattr(attr.ino, name).unwrap();
            node.xattrs.insert(String::from_utf8(name.to_vec()).unwrap(), value);
        }
        (path, (node, attr.nlink, first[&attr.ino].clone()))
    };
    found.into_iter().map(see).collect()
}

fn told<T>(result: Result<T, VfsError>) -> Result<(), i32> {
    result.map(|_| ()).map_err(|e| e.errno())
}

/// Does one operation on both sides; both must answer the same.
fn step(w: &World, model: &mut Model, op: &Op) -> Result<(), TestCaseError> {
    let dirs = model.dirs();
    let place = |(dir, name): &At| {
        let (path, node) = &dirs[dir.index(dirs.len())];
        (format!("{path}/{}", NAMES[*name]), *node, NAMES[*name])
    };
    let xattr = |which: usize| ["user.a", "user.b", "trusted.c"][which];
    let (want, got) = match op {
        Op::Make(at, kind, perm) => {
            let (path, dir, name) = place(at);
            let (parent, bytes) = w.split(&path);
            let got = match kind {
                FileKind::Directory => w.vfs.mkdir(parent, bytes, *perm, USER),
                FileKind::Symlink => w.vfs.symlink(parent, bytes, b"target", USER),
                kind => w.vfs.mknod(parent, bytes, *kind, *perm, 0, USER),
            };
            (model.make(dir, name, *kind, *perm), told(got))
        }
        Op::Unlink(at) => {
            let (path, dir, name) = place(at);
            (model.unlink(dir, name), told(w.unlink(&path)))
        }
        Op::Rmdir(at) => {
            let (path, dir, name) = place(at);
            (model.rmdir(dir, name), told(w.rmdir(&path)))
        }
        Op::Rename(from, to, flags) => {
            let ((from, dir, name), (to, new_dir, new_name)) = (place(from), place(to));
            let want = model.rename((dir, name), (new_dir, new_name), *flags);
            (want, told(w.rename_with(&from, &to, *flags)))
        }
        Op::Link(from, to) => {
            let ((from, dir, name), (to, new_dir, new_name)) = (place(from), place(to));
            let Ok(node) = model.child(dir, name) else {
                return Ok(());
            };
            (model.link(node, new_dir, new_name), told(w.link(&from, &to)))
        }
        Op::Write(at, from, len, seed) => {
            let (path, dir, name) = place(at);
            let node = model
                .child(dir, name)
                .ok()
                .filter(|node| model.nodes[*node].kind == FileKind::Regular);
            let Some(node) = node else { return Ok(()) };
            let bytes = pattern(u64::from(*seed), *len);
            write(w, &path, *from, &bytes);
            model.write(node, *from, &bytes);
            (Ok(()), Ok(()))
        }
        Op::Evict | Op::Remount => unreachable!("the caller does these"),
        Op::Chmod(at, ..)
        | Op::Chown(at, ..)
        | Op::Truncate(at, ..)
        | Op::SetXattr(at, ..)
        | Op::RemoveXattr(at, ..) => {
            let (path, dir, name) = place(at);
            let Ok(node) = model.child(dir, name) else {
                return Ok(());
            };
            let ino = w.ino(&path);
            let set = |set| told(w.vfs.setattr(ino, set, USER));
            match op {
                Op::Chmod(_, perm) => {
                    model.nodes[node].perm = *perm;
                    (
                        Ok(()),
                        set(SetAttr {
                            perm: Some(*perm),
                            ..SetAttr::default()
                        }),
                    )
                }
                Op::Chown(_, uid, gid) => {
                    model.chown(node, *uid, *gid);
                    (
                        Ok(()),
                        set(SetAttr {
                            uid: *uid,
                            gid: *gid,
                            ..SetAttr::default()
                        }),
                    )
                }
                Op::Truncate(_, size) => (
                    model.truncate(node, *size),
                    set(SetAttr {
                        size: Some(*size),
                        ..SetAttr::default()
                    }),
                ),
                Op::SetXattr(_, which, value, mode) => {
                    let name = xattr(*which);
                    let got = w.vfs.setxattr(ino, name.as_bytes(), &[*value], *mode);
                    (model.set_xattr(node, name, *value, *mode), told(got))
                }
                Op::RemoveXattr(_, which) => {
                    let name = xattr(*which);
                    let removed = model.nodes[node].xattrs.remove(name);
                    let want = removed.map(|_| ()).ok_or(libc::ENODATA);
                    (want, told(w.vfs.removexattr(ino, name.as_bytes())))
                }
                _ => unreachable!("the outer match named these five"),
            }
        }
    };
    prop_assert_eq!(got, want, "{:?}", op);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(model_cases(300)))]

    #[test]
    fn any_sequence_agrees_with_the_reference(
        ops in proptest::collection::vec(op(), 1..60),
        crash in any::<[prop::sample::Index; 3]>(),
    ) {
        let mut w = World::new();
        let mut model = Model::new();
        for op in &ops {
            match op {
                Op::Evict => w.evict(),
                Op::Remount => w = w.remount(),
                op => step(&w, &mut model, op)?,
            }
        }
        let want = model.dump();
        prop_assert_eq!(dump(&w), want.clone());
        w.check();
        for at in crash {
            let batches = at.index(w.store.progress().0) + 1;
            let store = w.store.crashed_at(batches);
            let findings = check_tree(&store, &KEYS).unwrap();
            // Before its first batch there is no root yet.
            prop_assert!(findings.is_empty() || is_unborn(&store), "after {} batches: {:#?}", batches, findings);
            World::on(Arc::new(store), |_| {}).check();
        }
        w.evict();
        let w = w.remount();
        prop_assert_eq!(dump(&w), want.clone(), "fetched");
        w.check();
        let packs = w.chunks.packs().len();
        let restored = restore(&w, &vec![CutCause::Forced; packs], packs);
        prop_assert_eq!(dump(&restored), want, "restored");
        restored.check();
    }
}

/// Nothing was made yet, not even the root.
fn is_unborn(store: &MemStore) -> bool {
    cessfs_sync::MetaStore::scan(store, b"i", b"i", 1).unwrap().is_empty()
}
