//! The end-to-end harness: real binaries, a real devnet, a real mount.
//!
//! Every test drives `cessfs` and `cessfs-devnet` as a person or a script would, through their documented commands only.
//! What a test starts is stopped when its value is dropped, also when the test fails.

pub mod metadata;
pub mod modes;
pub mod network;
pub mod process;
pub mod tree;
pub mod volume;

pub use network::Network;
pub use volume::{InitOptions, Mount, Opener, Volume};

/// Says why a test cannot run here and counts as skipped (`make test` sums these lines up); `true` if it can.
pub fn can_mount() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    let fuse = std::path::Path::new("/dev/fuse").exists();
    if !(root && fuse) {
        println!("SKIPPED: needs root and /dev/fuse (root: {root}, /dev/fuse: {fuse})");
    }
    root && fuse
}
