//! A tree with everything `stat` and `getfattr` tell, to compare what came back with what was there.

use crate::tree::{Manifest, hash};
use anyhow::{Context, Result};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Error, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Room for a list of names or a value of the trees made here.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// What is below `root`, root included: kind, mode, owner, links, size, blocks, times (not of access), device, extended attributes,
/// content or target, and which other path is the same inode.
pub fn full_manifest(root: &Path) -> Result<Manifest> {
    let mut found = Manifest::new();
    let mut firsts: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = path
            .symlink_metadata()
            .with_context(|| format!("stat {}", path.display()))?;
        let below = path.strip_prefix(root)?.to_path_buf();
        let content = if meta.is_dir() {
            let mut entries = fs::read_dir(&path)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?;
            // In order, so that the first name of an inode is the same in both trees.
            entries.sort();
            pending.extend(entries.into_iter().rev());
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path)?.display().to_string()
        } else if meta.is_file() {
            hash(&path)?
        } else {
            String::new()
        };
        let first = firsts.entry(meta.ino()).or_insert_with(|| below.clone());
        let what = format!(
            "mode {:o} owner {}:{} links {} size {} blocks {} mtime {}.{:09} ctime {}.{:09} device {} xattrs {:?} is {} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.size(),
            meta.blocks(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            meta.rdev(),
            xattrs(&path)?,
            first.display(),
        );
        found.insert(below, what);
    }
    Ok(found)
}

/// Names and values, of the link itself.
fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    // SAFETY: the path ends with a NUL, and the kernel writes at most as many bytes as the buffer has.
    let len = unsafe { libc::llistxattr(c_path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let len = usize::try_from(len).map_err(|_| Error::last_os_error());
    let len = len.with_context(|| format!("list xattrs of {}", path.display()))?;
    let mut found = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name)?;
        let mut value = vec![0u8; XATTR_BYTES_MAX];
        // SAFETY: as above; both strings end with a NUL.
        let len = unsafe { libc::lgetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(usize::try_from(len).map_err(|_| Error::last_os_error())?);
        found.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(found)
}

/// Sets an extended attribute.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    let (c_path, c_name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    // SAFETY: both strings end with a NUL, and the kernel reads as many bytes as the value has.
    let set = unsafe { libc::lsetxattr(c_path.as_ptr(), c_name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    anyhow::ensure!(
        set == 0,
        "setxattr {name} on {}: {}",
        path.display(),
        Error::last_os_error()
    );
    Ok(())
}

/// One of everything a filesystem can hold, below a new directory `root`.
pub fn write_zoo(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("a/deep/er"))?;
    fs::write(root.join("a/file"), "some text\n")?;
    fs::write(root.join("a/empty"), "")?;
    fs::hard_link(root.join("a/file"), root.join("a/deep/same"))?;
    fs::hard_link(root.join("a/file"), root.join("again"))?;
    symlink("a/file", root.join("link"))?;
    symlink("/nowhere/at all", root.join("a/dangling"))?;
    let mut sparse = File::create(root.join("sparse"))?;
    sparse.write_all(b"begins")?;
    sparse.seek(SeekFrom::Start(20 << 20))?;
    sparse.write_all(&crate::tree::noise(77, 300_000))?;
    sparse.set_len(64 << 20)?;
    drop(sparse);
    mknod(&root.join("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0)?;
    mknod(
        &root.join("null"),
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        nix::sys::stat::makedev(1, 3),
    )?;
    fs::write(root.join("owned"), "not mine")?;
    chown(root.join("owned"), Some(1234), Some(5678))?;
    fs::set_permissions(root.join("owned"), fs::Permissions::from_mode(0o4751))?;
    fs::set_permissions(root.join("a/deep"), fs::Permissions::from_mode(0o1777))?;
    set_xattr(&root.join("a/file"), "user.comment", b"kept")?;
    set_xattr(&root.join("a"), "user.empty", b"")?;
    set_xattr(&root.join("owned"), "trusted.long", &crate::tree::noise(78, 3000))?;
    let old = UNIX_EPOCH + Duration::new(981_173_106, 123_456_789);
    File::options()
        .write(true)
        .open(root.join("owned"))?
        .set_modified(old)?;
    fs::write(root.join("näme with ☃ and spaces"), "utf-8")?;
    fs::write(root.join("x".repeat(255)), "long name")?;
    Ok(())
}
