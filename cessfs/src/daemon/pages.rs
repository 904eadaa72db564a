//! Pages that the kernel has not handed over yet.

use crate::exit::{Exit, Failure};
use crate::limits::KERNEL_DRAIN_TIMEOUT;
use crate::mountpoint::Place;
use nix::errno::Errno;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the kernel is asked whether its writes have arrived.
const DRAIN_POLL: Duration = Duration::from_millis(2);

/// Makes the kernel hand over its dirty pages. A FUSE daemon is never asked to by syncfs(2) on its mount (FUSE_SYNCFS is
/// for others), but the kernel writes the pages back all the same; whether it waits for them depends on its version, so
/// the connection's count of waiting requests is watched too.
///
/// # Errors
/// [`Exit::Busy`] when no path leads to the mount any more: what the kernel still has of it cannot be asked for. [`Exit::Disk`] when pages
/// were refused.
pub(super) fn flush_kernel(place: &Place) -> Result<(), Failure> {
    flush_through(&place.open()?)
}

/// The same through the mount's root, which may be in no tree any more.
///
/// # Errors
/// [`Exit::Disk`] when pages were refused.
pub(super) fn flush_through(root: &File) -> Result<(), Failure> {
    match nix::unistd::syncfs(root) {
        // No page was refused: of a process killed in fallocate(2) the kernel could not tell the times, and notes it in the same place.
        // It forgets what it told, so the second asks what came since; a refusal that the note covers is in the log.
        Err(Errno::EINTR) => match nix::unistd::syncfs(root) {
            Err(Errno::EINTR) => Ok(()),
            again => again,
        },
        told => told,
    }
    .map_err(|e| refused_writes(&e.into()))?;
    // Named by the minor half of the device number.
    let connection = nix::sys::stat::fstat(root).map(|root| nix::sys::stat::minor(root.st_dev));
    let connection = connection.map_err(|e| Failure::disk("cannot look at the mount", &e.into()))?;
    let counter = PathBuf::from(format!("/sys/fs/fuse/connections/{connection}/waiting"));
    let deadline = Instant::now() + KERNEL_DRAIN_TIMEOUT;
    while Instant::now() < deadline {
        match std::fs::read_to_string(&counter) {
            Ok(count) if count.trim() != "0" => std::thread::sleep(DRAIN_POLL),
            // None waits, or this system does not say.
            _ => break,
        }
    }
    Ok(())
}

/// What syncfs(2) failed with: not this flush, but that pages which an earlier one handed over were refused. The kernel
/// tells it once to whoever asks first, so a second sync goes through.
fn refused_writes(error: &std::io::Error) -> Failure {
    let what = format!("writes into the mount were refused since the last sync: {error}");
    Failure::new(Exit::Disk, what).hint(
        "programs that call fsync were told; what they wrote is not in the mount. `cessfs status NAME` says what is full \
         or failed; sync again for all the rest",
    )
}
