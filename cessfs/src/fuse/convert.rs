//! Values of fuser as values of vfs, and back. Pure.

use crate::config::KernelCache;
use cessfs_vfs::{Attr, Caller, FileKind, TimeSet, Timestamp, XattrMode};
use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};
use std::time::{Duration, SystemTime};

/// Block size that `stat` tells as best for I/O.
const BLOCK_BYTES: u32 = 4096;

/// Attributes of nothing: a negative entry.
pub const ABSENT: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: BLOCK_BYTES,
    flags: 0,
};

/// Who asks.
pub fn caller(req: &Request) -> Caller {
    creator(req, 0)
}

/// Who asks, with the umask for what is made.
pub fn creator(req: &Request, umask: u32) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        pid: req.pid(),
        umask: perm(umask),
    }
}

/// Permission bits of a mode.
pub fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// What is left of permission bits when somebody without CAP_FSETID changes content: no set-uid bit, and no set-gid bit on
/// what the group may execute, nor on what belongs to a group that the caller is not in (asked only if it matters).
pub fn without_set_id(perm: u16, is_member: impl FnOnce() -> bool) -> u16 {
    const SET_UID: u16 = 0o4000;
    const SET_GID: u16 = 0o2000;
    const GROUP_EXECUTES: u16 = 0o0010;
    let perm = perm & !SET_UID;
    if perm & SET_GID != 0 && (perm & GROUP_EXECUTES != 0 || !is_member()) {
        perm & !SET_GID
    } else {
        perm
    }
}

/// Type of a mode; none for bits that are no type.
pub fn kind_of_mode(mode: u32) -> Option<FileKind> {
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => return None,
    })
}

/// A type for fuser.
pub fn file_kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes for fuser.
pub fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_kind(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// A time for fuser; out of its range becomes the epoch.
fn system_time(t: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(t.nanos));
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let base = if t.secs >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    base.and_then(|b| b.checked_add(nanos))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time from fuser. Before the epoch fuser 0.18 subtracts the nanoseconds that the kernel means to be added (mended only
/// after 0.18): the distance to the epoch still tells both numbers as the kernel sent them.
pub fn timestamp(t: SystemTime) -> Timestamp {
    match t.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timestamp {
            secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => Timestamp {
            secs: 0i64.saturating_sub_unsigned(before.duration().as_secs()),
            nanos: before.duration().subsec_nanos(),
        },
    }
}

/// A time to set.
pub fn time_set(t: TimeOrNow) -> TimeSet {
    match t {
        TimeOrNow::Now => TimeSet::Now,
        TimeOrNow::SpecificTime(t) => TimeSet::At(timestamp(t)),
    }
}

/// Flags of `open(2)`. With the kernel's writeback cache the kernel reads pages it is going to change, also of files opened
/// only for writing, and places appended bytes itself.
pub fn open_flags(flags: i32, cache: KernelCache) -> cessfs_vfs::OpenFlags {
    let mode = flags & libc::O_ACCMODE;
    let write = mode == libc::O_WRONLY || mode == libc::O_RDWR;
    let kernel_writes = cache == KernelCache::Writeback;
    cessfs_vfs::OpenFlags {
        read: mode != libc::O_WRONLY || kernel_writes,
        write,
        append: flags & libc::O_APPEND != 0 && !kernel_writes,
        truncate: flags & libc::O_TRUNC != 0,
        direct: flags & libc::O_DIRECT != 0,
        sync: flags & (libc::O_SYNC | libc::O_DSYNC) != 0,
    }
}

/// Flags of `setxattr(2)`.
pub fn xattr_mode(flags: i32) -> XattrMode {
    match (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0) {
        (false, false) => XattrMode::Any,
        (true, false) => XattrMode::Create,
        (false, true) => XattrMode::Replace,
        (true, true) => XattrMode::Never,
    }
}

/// Flags of `renameat2(2)`, asked for by `caller`.
pub fn rename_flags(flags: fuser::RenameFlags, caller: Caller) -> cessfs_vfs::RenameFlags {
    cessfs_vfs::RenameFlags {
        no_replace: flags.contains(fuser::RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(fuser::RenameFlags::RENAME_EXCHANGE),
        whiteout: flags.contains(fuser::RenameFlags::RENAME_WHITEOUT).then_some(caller),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_after_the_epoch_round_trip() {
        for (secs, nanos) in [(0, 0), (1, 999_999_999), (4_102_444_800, 5)] {
            let t = Timestamp { secs, nanos };
            assert_eq!(timestamp(system_time(t)), t);
        }
    }

    #[test]
    fn times_before_the_epoch() {
        // To the kernel: SystemTime is exact, fuser floors it rightly.
        let t = system_time(Timestamp {
            secs: -2,
            nanos: 800_000_000,
        });
        assert_eq!(
            SystemTime::UNIX_EPOCH.duration_since(t).unwrap(),
            Duration::from_millis(1200)
        );
        // From the kernel: fuser hands over epoch - 2 s - 0.8 s when the kernel says (-2, 0.8).
        let from_fuser = SystemTime::UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(
            timestamp(from_fuser),
            Timestamp {
                secs: -2,
                nanos: 800_000_000
            }
        );
    }

    #[test]
    fn open_flags_depend_on_the_kernel_cache() {
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_TRUNC;
        let cached = open_flags(flags, KernelCache::Writeback);
        assert!(cached.read && cached.write && cached.truncate && !cached.append);
        let direct = open_flags(flags, KernelCache::None);
        assert!(!direct.read && direct.write && direct.append);
        assert!(!open_flags(libc::O_RDONLY, KernelCache::Writeback).write);
        for cache in [KernelCache::Writeback, KernelCache::None] {
            // O_DSYNC is a bit of O_SYNC.
            assert!(open_flags(libc::O_RDWR | libc::O_SYNC, cache).sync);
            assert!(open_flags(libc::O_WRONLY | libc::O_DSYNC, cache).sync);
            assert!(!open_flags(flags | libc::O_DIRECT, cache).sync);
        }
    }

    #[test]
    fn set_id_bits_fall() {
        for (before, member, stranger) in [
            (0o6777, 0o777, 0o777),
            (0o6767, 0o2767, 0o767),
            (0o4755, 0o755, 0o755),
            (0o644, 0o644, 0o644),
            (0o1777, 0o1777, 0o1777),
        ] {
            assert_eq!(without_set_id(before, || true), member, "{before:o}");
            assert_eq!(without_set_id(before, || false), stranger, "{before:o}");
        }
    }

    #[test]
    fn kinds_of_modes() {
        for (mode, kind) in [
            (libc::S_IFREG | 0o4755, FileKind::Regular),
            (libc::S_IFDIR, FileKind::Directory),
            (libc::S_IFSOCK, FileKind::Socket),
            (libc::S_IFBLK, FileKind::BlockDevice),
        ] {
            assert_eq!(kind_of_mode(mode), Some(kind));
        }
        assert_eq!(kind_of_mode(0o644), None);
        assert_eq!(perm(libc::S_IFREG | 0o4755), 0o4755);
    }
}
