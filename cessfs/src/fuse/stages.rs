//! One stage per kind of request, so that `cessfs profile` shows what the kernel asks for and how long it waits.
//!
//! What is answered later (a read that has to fetch) counts here until it is handed over; the fetch has a stage of its own.

use cessfs_sync::stages::Stage;

macro_rules! requests {
    ($($name:literal $stage:ident),* $(,)?) => {
        $(static $stage: Stage = Stage::new("fuse", $name);)*

        /// Every kind of request.
        pub static ALL: &[&Stage] = &[$(&$stage,)* &OTHER];

        /// The stage of a request.
        pub(super) fn of(op: &str) -> &'static Stage {
            match op {
                $($name => &$stage,)*
                _ => &OTHER,
            }
        }
    };
}

static OTHER: Stage = Stage::new("fuse", "other");

requests! {
    "copy_file_range" COPY_FILE_RANGE, "create" CREATE, "fallocate" FALLOCATE, "forget" FORGET, "fsync" FSYNC,
    "fsyncdir" FSYNCDIR, "getattr" GETATTR, "getxattr" GETXATTR, "link" LINK, "listxattr" LISTXATTR, "lookup" LOOKUP,
    "lseek" LSEEK, "mkdir" MKDIR, "mknod" MKNOD, "open" OPEN, "read" READ, "readdir" READDIR, "readdirplus" READDIRPLUS,
    "readlink" READLINK, "release" RELEASE, "removexattr" REMOVEXATTR, "rename" RENAME, "rmdir" RMDIR,
    "setattr" SETATTR, "setxattr" SETXATTR, "statfs" STATFS, "symlink" SYMLINK, "unlink" UNLINK, "write" WRITE,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_stage() {
        assert_eq!(of("lookup").name, "lookup");
        assert_eq!(of("write").name, "write");
        assert_eq!(of("teleport").name, "other");
        assert!(ALL.iter().all(|stage| of(stage.name).name == stage.name));
    }
}
