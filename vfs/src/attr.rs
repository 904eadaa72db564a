//! What `stat` tells, and what `setattr` asks: plain values, no FUSE types.

/// Seconds and nanoseconds since the Unix epoch (seconds may be negative).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds.
    pub secs: i64,
    /// 0..1_000_000_000.
    pub nanos: u32,
}

impl Timestamp {
    /// This time, or the first after `before` if it is not later: what must move with each change although the clock need not.
    pub(crate) fn or_after(self, before: Timestamp) -> Timestamp {
        if self > before {
            return self;
        }
        let nanos = before.nanos + 1;
        Timestamp {
            secs: before.secs.saturating_add(i64::from(nanos / 1_000_000_000)),
            nanos: nanos % 1_000_000_000,
        }
    }
}

/// Type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileKind {
    /// Regular file.
    Regular = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// FIFO.
    Fifo = 4,
    /// Unix socket.
    Socket = 5,
    /// Character device.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

impl FileKind {
    /// The kind with this number.
    pub fn from_u8(number: u8) -> Option<FileKind> {
        Some(match number {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::Symlink,
            4 => FileKind::Fifo,
            5 => FileKind::Socket,
            6 => FileKind::CharDevice,
            7 => FileKind::BlockDevice,
            _ => return None,
        })
    }
}

/// What `stat` tells about an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number; the root is 1.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// 512-byte units really allocated (holes not counted; eviction does not change it).
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Birth.
    pub btime: Timestamp,
    /// Type.
    pub kind: FileKind,
    /// Permission bits, 0o7777.
    pub perm: u16,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of device files.
    pub rdev: u32,
    /// It may change at any time without the one who asked being told: nobody may remember it.
    pub fleeting: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// Permission bits that what it makes must not have; a default access control list goes before it.
    pub umask: u16,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSet {
    /// The server's clock.
    Now,
    /// This time.
    At(Timestamp),
}

/// What `setattr` changes; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// New size: truncate or extend.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<TimeSet>,
    /// Modification time.
    pub mtime: Option<TimeSet>,
    /// Change time (the kernel's writeback cache sends it).
    pub ctime: Option<Timestamp>,
    /// These are times of content that was written, which the kernel kept until now; no program asked for them. They need not
    /// be journaled before the content is: with the next fsync, the last close, or together with many others.
    pub written_back: bool,
    /// The size is the one that the kernel, which keeps the times, has of the file already: they do not move.
    pub same_size: bool,
}

/// One entry that `readdir` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Its inode.
    pub ino: u64,
    /// Pass it back to continue after this entry.
    pub cookie: u64,
    /// Its type.
    pub kind: FileKind,
    /// Its name.
    pub name: &'a [u8],
    /// Its attributes, when asked for (`readdirplus`).
    pub attr: Option<Attr>,
}

/// What `statfs` tells; units of 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Total blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Of these, how many can be written now, network or not.
    pub available: u64,
    /// Inodes in use.
    pub files: u64,
    /// Inodes that could still be made.
    pub files_free: u64,
}

/// One chunk of a file, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// Number of the chunk in the file.
    pub index: u64,
    /// What the network holds (or will) for it.
    pub stored: Option<cessfs_crypto::ChunkId>,
    /// Bytes.
    pub len: u32,
    /// The cache holds it.
    pub resident: bool,
    /// The cache is newer than the network.
    pub dirty: bool,
    /// The bytes rest in the metadata store (small files).
    pub inline: bool,
}
