//! The work itself: what people and their programs do with files.
//!
//! Each is a function over its site's directory; it leaves there what later ones use. Counts are fixed, so that a run does the
//! same on every filesystem.

use super::site::Site;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

/// What happens before the clock runs.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The filesystem's own dirty pages are written.
    Quiet,
    /// The kernel's caches are dropped.
    Cold,
    /// The large file is read: whoever's turn came between may have dropped the kernel's caches.
    Warm,
}

/// One kind of work.
pub struct Workload {
    /// As it is called on the command line.
    pub name: &'static str,
    /// Done first, not timed.
    pub before: &'static [Step],
    /// Timed; false where it cannot be done.
    pub work: fn(&Site, usize) -> io::Result<bool>,
    /// What is missing where it cannot be done.
    pub needs: &'static str,
}

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
/// Random reads and writes of one block each.
const RANDOM_OPS: usize = 20_000;
/// Writes with an `fsync` each, and transactions.
const SYNC_OPS: usize = 300;
/// Directories that small files are spread over.
const DIRS: usize = 10;
/// Files of the tree: sizes and kinds mixed, as in a source tree.
const TREE_FILES: usize = 2000;
const ROOT: &str = "root (it drops the kernel's caches)";

macro_rules! workloads {
    ($($name:ident: $before:expr, $needs:expr;)*) => {
        /// In the order in which they must be done.
        pub const ALL: &[Workload] = &[$(Workload { name: stringify!($name), before: $before, work: $name, needs: $needs },)*];
        /// Their names.
        pub const NAMES: &[&str] = &[$(stringify!($name),)*];
    };
}

workloads! {
    seq_write: &[Step::Quiet], "";
    seq_read_cold: &[Step::Cold], ROOT;
    seq_read_warm: &[Step::Warm], "";
    rand_read_4k: &[Step::Cold], ROOT;
    rand_write_4k: &[Step::Quiet], "";
    write_fsync_4k: &[Step::Quiet], "";
    create_4k: &[Step::Quiet], "";
    list: &[], "";
    copy: &[Step::Quiet], "";
    remove: &[Step::Quiet], "";
    tree_write: &[Step::Quiet], "";
    tree_read_cold: &[Step::Cold], ROOT;
    tree_remove: &[Step::Quiet], "";
    sqlite_wal: &[Step::Quiet], "the program sqlite3";
    sqlite_delete: &[Step::Quiet], "the program sqlite3";
}

fn seq_write(site: &Site, _: usize) -> io::Result<bool> {
    let path = site.dir.join("large");
    let _none_the_first_time = fs::remove_file(&path);
    let mut file = File::create(&path)?;
    for i in 0..site.mib {
        file.write_all(site.bytes(i, MIB))?;
    }
    file.sync_all()?;
    Ok(true)
}

fn read_through(path: &Path, buffer: &mut [u8]) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut total = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok(total),
            read => total += read as u64,
        }
    }
}

pub(super) fn large(site: &Site) -> io::Result<bool> {
    let read = read_through(&site.dir.join("large"), &mut vec![0; MIB])?;
    if read != (site.mib * MIB) as u64 {
        return Err(io::Error::other(format!("the large file has {read} bytes")));
    }
    Ok(true)
}

fn seq_read_cold(site: &Site, _: usize) -> io::Result<bool> {
    large(site)
}

fn seq_read_warm(site: &Site, _: usize) -> io::Result<bool> {
    large(site)
}

/// Offsets all over the large file: a multiplicative sequence that repeats no sooner than the file has blocks.
fn offsets(site: &Site, rep: usize) -> impl Iterator<Item = u64> {
    let blocks = (site.mib * MIB / BLOCK) as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ rep as u64;
    (0..RANDOM_OPS).map(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % blocks * BLOCK as u64
    })
}

fn rand_read_4k(site: &Site, rep: usize) -> io::Result<bool> {
    let file = File::open(site.dir.join("large"))?;
    let mut block = [0; BLOCK];
    offsets(site, rep).try_for_each(|at| file.read_exact_at(&mut block, at))?;
    Ok(true)
}

fn rand_write_4k(site: &Site, rep: usize) -> io::Result<bool> {
    let file = OpenOptions::new().write(true).open(site.dir.join("large"))?;
    for (i, at) in offsets(site, rep).enumerate() {
        file.write_all_at(site.bytes(i + rep, BLOCK), at)?;
    }
    file.sync_all()?;
    Ok(true)
}

fn write_fsync_4k(site: &Site, rep: usize) -> io::Result<bool> {
    let file = OpenOptions::new().write(true).open(site.dir.join("large"))?;
    for (i, at) in offsets(site, rep).enumerate().take(SYNC_OPS) {
        file.write_all_at(site.bytes(i, BLOCK), at)?;
        file.sync_data()?;
    }
    Ok(true)
}

fn create_4k(site: &Site, rep: usize) -> io::Result<bool> {
    for dir in 0..DIRS {
        let dir = site.dir.join(format!("many{rep}/{dir}"));
        fs::create_dir_all(&dir)?;
        for i in 0..site.files / DIRS {
            fs::write(dir.join(format!("file-{i:05}")), site.bytes(i, BLOCK))?;
        }
    }
    Ok(true)
}

/// Calls `visit` with every path below `dir`, directories before what is in them, after a look at its attributes.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        visit(&path, &metadata)?;
        if metadata.is_dir() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

fn list(site: &Site, rep: usize) -> io::Result<bool> {
    let mut seen = 0;
    walk(&site.dir.join(format!("many{rep}")), &mut |_, metadata| {
        seen += usize::from(metadata.is_file());
        Ok(())
    })?;
    if seen != site.files / DIRS * DIRS {
        return Err(io::Error::other(format!("{seen} files are listed")));
    }
    Ok(true)
}

fn copy(site: &Site, rep: usize) -> io::Result<bool> {
    for dir in 0..DIRS.div_ceil(3) {
        let (from, to) = (
            site.dir.join(format!("many{rep}/{dir}")),
            site.dir.join(format!("copy{rep}/{dir}")),
        );
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(true)
}

fn remove(site: &Site, rep: usize) -> io::Result<bool> {
    fs::remove_dir_all(site.dir.join(format!("copy{rep}")))?;
    Ok(true)
}

/// What unpacking an archive does: files of 0 to 32 KiB, modes and times set, a symlink now and then.
fn tree_write(site: &Site, rep: usize) -> io::Result<bool> {
    let top = site.dir.join(format!("tree{rep}"));
    for i in 0..TREE_FILES {
        let dir = top.join(format!("{}/{}", i / 200, i / 20 % 10));
        if i % 20 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let path = dir.join(format!("file-{i}.txt"));
        let mut file = File::create(&path)?;
        file.write_all(site.bytes(i, i.wrapping_mul(7919) % (32 << 10)))?;
        file.set_permissions(Permissions::from_mode(if i % 3 == 0 { 0o755 } else { 0o644 }))?;
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000 + i as u64))?;
        if i % 25 == 0 {
            symlink(format!("file-{i}.txt"), dir.join(format!("link-{i}")))?;
        }
    }
    Ok(true)
}

fn tree_read_cold(site: &Site, rep: usize) -> io::Result<bool> {
    let mut buffer = vec![0; 64 << 10];
    walk(&site.dir.join(format!("tree{rep}")), &mut |path, metadata| {
        if metadata.is_file() {
            read_through(path, &mut buffer)?;
        }
        Ok(())
    })?;
    Ok(true)
}

fn tree_remove(site: &Site, rep: usize) -> io::Result<bool> {
    fs::remove_dir_all(site.dir.join(format!("tree{rep}")))?;
    Ok(true)
}

fn sqlite(site: &Site, rep: usize, mode: &str) -> io::Result<bool> {
    let path = site.dir.join(format!("{mode}{rep}.db"));
    let child = Command::new("sqlite3")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut script = format!("pragma journal_mode={mode}; pragma synchronous=full; create table t(v);");
    for i in 0..SYNC_OPS {
        script.push_str(&format!("insert into t values({i});"));
    }
    child.stdin.take().expect("it was piped").write_all(script.as_bytes())?;
    let ended = child.wait()?;
    match ended.success() {
        true => Ok(true),
        false => Err(io::Error::other(format!("sqlite3 ended with {ended}"))),
    }
}

fn sqlite_wal(site: &Site, rep: usize) -> io::Result<bool> {
    sqlite(site, rep, "wal")
}

fn sqlite_delete(site: &Site, rep: usize) -> io::Result<bool> {
    sqlite(site, rep, "delete")
}
