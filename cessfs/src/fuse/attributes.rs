//! SETATTR: what programs set, and what the kernel sends of itself.

use super::Adapter;
use super::convert::{self, caller, file_attr, time_set, timestamp};
use super::passthrough::ttl_of;
use crate::config::KernelCache;
use cessfs_vfs::SetAttr;
use fuser::{FileHandle, INodeNo, ReplyAttr, Request, TimeOrNow};
use std::time::SystemTime;

/// What a SETATTR has to say of what vfs keeps.
pub(super) struct Sent {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
    pub(super) ctime: Option<SystemTime>,
    pub(super) fh: Option<FileHandle>,
}

impl Sent {
    /// `cache`: what the kernel keeps of content, and with it of times.
    fn set(self, cache: KernelCache) -> SetAttr {
        let mut set = SetAttr {
            perm: self.mode.map(convert::perm),
            uid: self.uid,
            gid: self.gid,
            size: self.size,
            atime: self.atime.map(time_set),
            mtime: self.mtime.map(time_set),
            ctime: self.ctime.map(timestamp),
            ..SetAttr::default()
        };
        let times = SetAttr {
            mtime: set.mtime,
            ctime: set.ctime,
            ..SetAttr::default()
        };
        // Only what the kernel sends of itself has times and a handle: a program that sets them names a file.
        set.written_back = set == times && self.fh.is_some() && set.mtime.is_some() && set.ctime.is_some();
        // Of any other size it tells the times.
        set.same_size =
            cache == KernelCache::Writeback && set.size.is_some() && set.mtime.is_none() && set.ctime.is_none();
        set
    }
}

impl Adapter {
    pub(super) fn set_attributes(&self, req: &Request, ino: INodeNo, sent: Sent, reply: ReplyAttr) {
        let mut set = sent.set(self.kernel_cache);
        let changed = self.perm_after(req, ino, &set).and_then(|perm| {
            set.perm = perm;
            self.vfs.setattr(ino.0, set, caller(req))
        });
        match if set.written_back { changed } else { self.kept(changed) } {
            Ok(attr) => reply.attr(&ttl_of(&attr), &file_attr(&attr)),
            Err(e) => reply.error(self.faults.errno("setattr", ino.0, &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Sent = Sent {
        mode: None,
        uid: None,
        gid: None,
        size: None,
        atime: None,
        mtime: None,
        ctime: None,
        fh: None,
    };

    fn now() -> Option<TimeOrNow> {
        Some(TimeOrNow::SpecificTime(SystemTime::now()))
    }

    #[test]
    fn only_the_kernel_sends_times_by_handle() {
        let sent = |mtime, ctime, fh| Sent {
            mtime,
            ctime,
            fh,
            ..NOTHING
        };
        let (ctime, fh) = (Some(SystemTime::now()), Some(FileHandle(1)));
        let cache = KernelCache::Writeback;
        assert!(sent(now(), ctime, fh).set(cache).written_back);
        assert!(!sent(now(), ctime, None).set(cache).written_back && !sent(now(), None, fh).set(cache).written_back);
        let atime = now();
        assert!(
            !Sent {
                atime,
                ..sent(now(), ctime, fh)
            }
            .set(cache)
            .written_back
        );
    }

    #[test]
    fn a_size_without_times_is_the_one_there_is() {
        let sent = |mtime| Sent {
            size: Some(5),
            mtime,
            ..NOTHING
        };
        assert!(sent(None).set(KernelCache::Writeback).same_size);
        assert!(!sent(now()).set(KernelCache::Writeback).same_size);
        assert!(!sent(None).set(KernelCache::None).same_size && !NOTHING.set(KernelCache::Writeback).same_size);
    }
}
