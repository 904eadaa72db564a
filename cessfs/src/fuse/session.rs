//! Mounting and the session: how the kernel is asked, what is negotiated, and how it ends.

use super::{Adapter, pages};
use crate::config::KernelCache;
use crate::exit::{Exit, Failure};
use crate::limits;
use crate::mountpoint::{Beneath, FS_TYPE, Held};
use cessfs_vfs::AtimeRule;
use fuser::{Config, InitFlags, KernelConfig, MountOption, Session, SessionACL};
use nix::mount::MsFlags;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// What the kernel is told of a mount.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The volume as it was named, for `findmnt` and `mount -a`. Its characters need no escaping.
    pub source: String,
    /// Users besides the mounting one may use it.
    pub allow_other: bool,
    /// `ro`.
    pub read_only: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// Honour set-uid bits.
    pub suid: bool,
    /// Honour device files.
    pub dev: bool,
    /// `noatime`, `relatime` or `strictatime`.
    pub atime: AtimeRule,
    /// `nodiratime`.
    pub no_dir_atime: bool,
    /// `nosymfollow`.
    pub no_symfollow: bool,
}

/// A live mount. Dropping it does not unmount: the directory is the handle for that.
pub struct Mounted {
    /// `None` once it was told.
    ended: Option<tokio::sync::oneshot::Receiver<std::io::Result<()>>>,
}

impl Mounted {
    /// Resolves when the mount is gone and every request is answered; from then on at once.
    ///
    /// # Errors
    /// When the connection to the kernel broke; told once.
    pub async fn ended(&mut self) -> std::io::Result<()> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        let result = ended
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("the FUSE session was lost")));
        self.ended = None;
        result
    }
}

/// Mounts, and serves from now on. Lets go of the directory that was held: what it is on may be unmounted, too.
///
/// # Errors
/// [`Exit::Permission`] or [`Exit::Mountpoint`] when the system refuses.
pub fn mount(mut adapter: Adapter, dir: &Path, beneath: Beneath, settings: &Settings) -> Result<Mounted, Failure> {
    let refused = |e: std::io::Error| Failure::new(Exit::Permission, format!("the kernel refused the mount: {e}"));
    let config = config(settings);
    adapter.hears_root = settings.allow_other || nix::unistd::getuid().is_root();
    let kernel = adapter.kernel.clone();
    // A dead mount goes no sooner: what is written by this path meanwhile would be lost beneath the new one.
    let held = beneath.clear(dir)?;
    let session = match mount_directly(dir, held.as_ref(), settings)? {
        Some(device) => Session::from_fd(adapter, device, config.acl, config).map_err(refused)?,
        None => Session::new(adapter, dir, &config).map_err(|e| by_helper(&e, settings))?,
    };
    drop(held);
    let _first_and_only = kernel.set(session.notifier());
    pages::widen(dir);
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("fuse".to_owned())
        .spawn(move || {
            let result = session.run();
            let _daemon_may_be_gone = sender.send(result);
        })
        .map_err(refused)?;
    Ok(Mounted { ended: Some(ended) })
}

fn by_helper(error: &std::io::Error, settings: &Settings) -> Failure {
    let failure = Failure::new(
        Exit::Permission,
        format!("cannot mount: {}", error.to_string().trim_end()),
    );
    match error.kind() {
        std::io::ErrorKind::PermissionDenied if settings.allow_other => {
            failure.hint("`allow_other` needs the line `user_allow_other` in /etc/fuse.conf")
        }
        std::io::ErrorKind::NotFound => {
            failure.hint("is the fuse kernel module loaded, and the package fuse3 installed?")
        }
        _ => failure.hint("`cessfs doctor` looks for the cause"),
    }
}

fn config(settings: &Settings) -> Config {
    let mut options = vec![
        MountOption::FSName(settings.source.clone()),
        MountOption::Subtype("cessfs".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::CUSTOM(format!("max_read={}", limits::FUSE_READ_BYTES_MAX)),
    ];
    for (wanted, option) in [
        (settings.read_only, MountOption::RO),
        (settings.no_exec, MountOption::NoExec),
        (settings.suid, MountOption::Suid),
        (settings.dev, MountOption::Dev),
        (settings.atime == AtimeRule::Never, MountOption::NoAtime),
    ] {
        if wanted {
            options.push(option);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = if settings.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let threads = cores * limits::FUSE_THREADS_PER_CORE;
    config.n_threads = Some(threads.clamp(limits::FUSE_THREADS_MIN, limits::FUSE_THREADS_MAX));
    config.clone_fd = true;
    config
}

/// Calls mount(2), which root may. fuser's own call leaves the subtype out, and `findmnt -t fuse.cessfs` and updatedb's
/// pruning by type need it. On the directory that is held, whatever its path leads to by now; the setuid helper looks
/// for itself at what its user may mount on. `None` when the kernel wants that one to do it.
fn mount_directly(dir: &Path, held: Option<&Held>, settings: &Settings) -> Result<Option<OwnedFd>, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return through_helper(settings);
    }
    let cannot = |e: std::io::Error| Failure::new(Exit::Permission, format!("cannot open /dev/fuse: {e}"));
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|e| cannot(e).hint("`modprobe fuse` loads the kernel module"))?;
    // Of an automount trigger nothing is known but that it is a directory.
    let rootmode = held.map_or(libc::S_IFDIR, Held::mode);
    let target = held.map_or_else(|| dir.to_owned(), Held::path);
    let data = format!(
        "fd={},rootmode={rootmode:o},user_id={},group_id={},max_read={},default_permissions{}",
        device.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid(),
        limits::FUSE_READ_BYTES_MAX,
        if settings.allow_other { ",allow_other" } else { "" },
    );
    match nix::mount::mount(
        Some(settings.source.as_str()),
        &target,
        Some(FS_TYPE),
        flags(settings),
        Some(data.as_str()),
    ) {
        Ok(()) => Ok(Some(device.into())),
        Err(nix::errno::Errno::EPERM) => through_helper(settings),
        Err(e) => Err(Failure::new(
            Exit::Mountpoint,
            format!("cannot mount on {}: {e}", dir.display()),
        )),
    }
}

/// The setuid helper does not know every flag.
fn through_helper(settings: &Settings) -> Result<Option<OwnedFd>, Failure> {
    match settings.no_symfollow {
        true => Err(Failure::new(Exit::Permission, "only root can mount with `nosymfollow`")
            .hint("leave the option out, or mount as root")),
        false => Ok(None),
    }
}

/// Of Linux 5.10.
const NO_SYMFOLLOW: MsFlags = MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW);

fn flags(settings: &Settings) -> MsFlags {
    let mut flags = MsFlags::empty();
    for (wanted, flag) in [
        (settings.read_only, MsFlags::MS_RDONLY),
        (settings.no_exec, MsFlags::MS_NOEXEC),
        (!settings.suid, MsFlags::MS_NOSUID),
        (!settings.dev, MsFlags::MS_NODEV),
        (settings.atime == AtimeRule::Never, MsFlags::MS_NOATIME),
        (settings.atime == AtimeRule::Always, MsFlags::MS_STRICTATIME),
        (settings.no_dir_atime, MsFlags::MS_NODIRATIME),
        (settings.no_symfollow, NO_SYMFOLLOW),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    flags
}

/// Settles with the kernel what each side can do. What it lacks, an older kernel does without.
///
/// `HANDLE_KILLPRIV_V2`, not the first version: with the first, the kernel would believe in set-id bits that a cached write
/// has cleared until its attributes expire, and without either it asks for `security.capability` before every write. fuser
/// 0.18 does not hand on two of V2's flags, on truncating opens and on setattrs. For a setattr vfs goes by the caller's uid;
/// so that a truncating open is one, `ATOMIC_O_TRUNC` is not asked for.
///
/// With `POSIX_ACL` the kernel enforces the lists that we keep; `DONT_MASK` leaves the umask to us, because a default list
/// goes before it. Neither `POSIX_LOCKS` nor `FLOCK_LOCKS`: this mount is the only one of its volume, so the kernel's own
/// locks are all there are.
pub fn negotiate(config: &mut KernelConfig, cache: KernelCache) {
    let mut wanted = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_EXPORT_SUPPORT
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
    if cache == KernelCache::Writeback {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    for capability in wanted.iter() {
        if config.add_capabilities(capability).is_err() {
            tracing::info!("this kernel does without {capability:?}");
        }
    }
    // Each of these either takes the number or says the nearest one it takes.
    if let Err(nearest) = config.set_max_write(limits::FUSE_WRITE_BYTES_MAX) {
        let _nearest_is_accepted = config.set_max_write(nearest);
    }
    if let Err(nearest) = config.set_max_readahead(limits::FUSE_READAHEAD_BYTES) {
        let _nearest_is_accepted = config.set_max_readahead(nearest);
    }
    if let Err(nearest) = config.set_max_background(limits::FUSE_BACKGROUND_MAX) {
        let _nearest_is_accepted = config.set_max_background(nearest);
    }
}
