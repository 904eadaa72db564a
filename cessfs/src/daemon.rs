//! The process behind a mount.
//!
//! Promises: one daemon per volume (I10); ready means that the mount answers; an end by unmount, SIGTERM, SIGINT or SIGHUP writes
//! everything to this disk first, and SIGKILL loses nothing that was fsynced (I5). Secrets come through a pipe or a file,
//! never through arguments, and the process cannot be dumped or traced by others.

mod holders;
pub mod launch;
pub mod log;
mod notify;
mod pages;
mod places;
mod reload;
mod service;
mod snapshots;
mod starting;
mod tasks;
mod trees;
mod upkeep;
mod uplink;

use crate::config::VolumeConfig;
use crate::control::server;
use crate::exit::{Exit, Failure};
use crate::fuse::{self, Adapter, Faults};
use crate::home::{self, VolumeDir};
use crate::limits;
use crate::mountpoint::{Beneath, Place};
use crate::options::MountOptions;
use crate::secret::Secret;
use crate::signals;
use crate::wiring::{self, OpenOptions, Volume};
use log::LogHandle;
use service::Daemon;
use starting::Working;
use std::path::PathBuf;
use std::sync::Arc;
use tasks::blocking;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What a daemon is started with.
pub struct Start {
    /// The volume.
    pub volume: VolumeDir,
    /// The word that the kernel shows for it.
    pub source: String,
    /// Its configuration, with the mount's options applied.
    pub config: VolumeConfig,
    /// The mount's options.
    pub options: MountOptions,
    /// Where to mount; checked already.
    pub mountpoint: PathBuf,
    /// What is there until it is mounted on; taken when it is.
    pub beneath: Option<Beneath>,
    /// What opens the keys.
    pub secret: Secret,
}

/// Mounts and serves until the mount is gone. `working` is called every now and then while the volume is being opened, `ready` once the
/// mount answers, and none after it.
///
/// # Errors
/// Why it could not be mounted, or could not be closed cleanly.
pub fn run(
    mut start: Start,
    log: LogHandle,
    working: fn(),
    ready: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let beneath = start.beneath.take().unwrap_or(Beneath::Trigger);
    let working = Working::tell(working);
    let ready = move || {
        drop(working);
        ready()
    };
    harden();
    log_panics();
    let lock = start.volume.lock()?;
    let slots = wiring::key_slots(&start.volume)?;
    let keys = start.secret.open(&slots)?;
    let runtime = wiring::runtime()?;
    let background = wiring::background()?;
    let options = OpenOptions {
        read_only: start.options.read_only,
        atime: start.options.atime,
        dir_atime: !start.options.no_dir_atime,
    };
    let volume = Volume::open(
        &start.volume,
        &start.config,
        &options,
        &slots,
        &keys,
        background.handle(),
    )?;
    drop(keys);
    let result = runtime.block_on(serve(&start, beneath, Arc::new(volume), log, ready));
    // Tasks that still wait for the network hold nothing that must be written; a moment for them to let go of the databases.
    runtime.shutdown_timeout(limits::TASKS_END_TIMEOUT);
    background.shutdown_timeout(limits::TASKS_END_TIMEOUT);
    notify::stopping();
    // Whoever waits for the volume waits for the end of this process: the kernel lets go of the lock then.
    std::mem::forget(lock);
    result
}

async fn serve(
    start: &Start,
    beneath: Beneath,
    volume: Arc<Volume>,
    log: LogHandle,
    ready: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Before the mount exists, so that no signal finds it without a keeper.
    let mut signals = Signals::listen()?;
    let settings = fuse::Settings {
        source: start.source.clone(),
        allow_other: start.options.allow_other || nix::unistd::geteuid().is_root(),
        read_only: start.options.read_only,
        no_exec: start.options.no_exec,
        suid: start.options.suid,
        dev: start.options.dev,
        atime: start.options.atime,
        no_dir_atime: start.options.no_dir_atime,
        no_symfollow: start.options.no_symfollow,
    };
    let faults = Arc::new(Faults::new(volume.clock.clone()));
    let runtime = tokio::runtime::Handle::current();
    let foreground = volume.engine.foreground();
    let adapter = Adapter::new(
        volume.vfs.clone(),
        runtime,
        faults,
        start.config.kernel_cache,
        foreground,
    );
    let daemon = Arc::new(Daemon::new(start, volume.clone(), log.clone()));
    let listener = server::bind(&start.volume)?;
    let mut mounted = match fuse::mount(adapter, &start.mountpoint, beneath, &settings) {
        Ok(mounted) => mounted,
        Err(failure) => {
            server::unbind(&start.volume);
            volume.close().await?;
            return Err(failure);
        }
    };
    daemon.place().note(start.volume.name());
    let control = tokio::spawn(server::serve(listener, daemon.clone()));
    let territory = tokio::spawn(daemon.clone().follow_territory());
    let fence = tokio::spawn(daemon.clone().watch_fence());
    let (wanted, want) = watch::channel(start.config.uplink());
    let uplink = tokio::spawn(uplink::follow(volume.engine.clone(), want, daemon.why_paused()));
    let watch = reload::watch(&start.volume, start.config.clone(), log, wanted.clone());
    tracing::info!(volume = %start.volume.name(), dir = %start.mountpoint.display(), "mounted");
    let told = ready();
    if told.is_ok() {
        notify::ready();
        until_unmounted(daemon.place(), &mut mounted, &mut signals).await;
    } else {
        leave(daemon.place()).await;
    }
    drop(watch);
    let closed = close(&daemon, &mut mounted, &mut signals).await;
    territory.abort();
    control.abort();
    fence.abort();
    uplink.abort();
    server::unbind(&start.volume);
    told.and(closed)
}

/// Serves until the mount is gone, or a signal took it away.
async fn until_unmounted(place: Arc<Place>, mounted: &mut fuse::Mounted, signals: &mut Signals) {
    tokio::select! {
        ended = mounted.ended() => match ended {
            Ok(()) => tracing::info!("unmounted"),
            Err(e) => {
                tracing::error!("the connection to the kernel broke: {e}");
                leave(place).await;
            }
        },
        name = signals.next() => {
            tracing::info!("{name}: unmounting");
            leave(place).await;
        }
    }
}

/// Takes the mount away even while it is in use. What has come to lie over it stays: who put it there has to take it away.
async fn leave(place: Arc<Place>) {
    let idle = place.clone();
    // Of one that nobody uses the kernel hands over everything by itself.
    if blocking(move || idle.unmount()).await.is_ok() {
        return;
    }
    let busy = place.clone();
    let flushed = tokio::time::timeout(limits::LEAVE_FLUSH_TIMEOUT, blocking(move || leave_busy(&busy))).await;
    let left = match flushed {
        Ok(left) => left,
        Err(_) => {
            tracing::warn!("the kernel still has pages of the mount; they may be lost");
            blocking(move || place.detach()).await
        }
    };
    if let Err(failure) = left {
        tracing::warn!("{failure}");
    }
}

/// Detaching does not make the kernel hand over what programs have written, and it lets go of that when the daemon ends: it is asked
/// before, and for what came in between after it, through the root that is in no tree then.
fn leave_busy(place: &Place) -> Result<(), Failure> {
    let root = place.open();
    let flushed =
        |root: &Result<std::fs::File, Failure>| root.as_ref().map_err(Failure::clone).and_then(pages::flush_through);
    if let Err(failure) = flushed(&root) {
        tracing::warn!("{failure}");
    }
    place.detach()?;
    flushed(&root)
}

/// Waits for requests in flight and for a shutdown that sends everything first, then writes everything out.
async fn close(daemon: &Daemon, mounted: &mut fuse::Mounted, signals: &mut Signals) -> Result<(), Failure> {
    daemon.set_closing();
    if tokio::time::timeout(limits::SESSION_END_TIMEOUT, mounted.ended())
        .await
        .is_err()
    {
        tracing::warn!("something still uses the mount; its open files end now");
    }
    tokio::select! {
        () = daemon.waited() => {}
        name = signals.next() => tracing::info!("{name}: not waiting for the network any more"),
    }
    let volume = daemon.volume();
    let status = daemon.last_status();
    let closed = volume.close().await;
    daemon.note_seen();
    if let Some(left) = crate::progress::left_to_send(
        status.unsent_bytes + status.dirty_bytes,
        &status.name,
        status.read_only_reason.is_none(),
    ) {
        tracing::info!("{left}");
    }
    let text = serde_json::to_vec(&status).expect("a status has a JSON form");
    if let Err(failure) = home::replace(&daemon.dir().last_status(), &text) {
        tracing::warn!("{failure}");
    }
    tracing::info!("closed");
    closed
}

/// What ends the mount. SIGHUP too: a terminal that closes sends it to a mount in its foreground, and by default it kills.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` where it is to be ignored, as under nohup(1).
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let cannot = |e: std::io::Error| Failure::new(Exit::Failed, format!("cannot listen for signals: {e}"));
        let hears = !signals::is_ignored(nix::sys::signal::Signal::SIGHUP);
        let hang_up = hears.then(|| signal(SignalKind::hangup()));
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).map_err(cannot)?,
            interrupt: signal(SignalKind::interrupt()).map_err(cannot)?,
            hang_up: hang_up.transpose().map_err(cannot)?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = heard(&mut self.hang_up) => "SIGHUP",
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// What glibc's allocator is told. Pieces of a MiB (chunks, rows, frames) come and go all the time: mapped each for itself, the
/// kernel would clear their pages each time, a quarter of the processor time of an upload (docs/PERFORMANCE.md). Left to
/// itself, glibc makes eight heaps per processor and keeps in each what its threads once had.
const ALLOCATOR: [(i32, i32); 3] = [
    (libc::M_MMAP_THRESHOLD, 8 << 20),
    (libc::M_TRIM_THRESHOLD, 8 << 20),
    (libc::M_ARENA_MAX, 2),
];

/// A daemon's stderr is nowhere: where it panicked belongs into the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));
}

/// Makes the process fit to hold many files, and independent of what the shell that mounts allows itself: of a write past a limit, or of
/// seconds of a processor, the kernel would kill it. To others it is closed already.
fn harden() {
    for (what, value) in ALLOCATOR {
        // SAFETY: mallopt takes two integers and touches only the allocator's own settings, under its own lock.
        unsafe { libc::mallopt(what, value) };
    }
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    for (resource, of) in [
        (Resource::RLIMIT_NOFILE, "open files"),
        (Resource::RLIMIT_FSIZE, "a file's size"),
        (Resource::RLIMIT_CPU, "processor time"),
    ] {
        if let Ok((soft, hard)) = getrlimit(resource)
            && soft < hard
            && let Err(e) = setrlimit(resource, hard, hard)
        {
            tracing::warn!("cannot raise the limit of {of}: {e}");
        }
    }
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: to ignore a signal runs no code of this program. A write past the limit that is left fails then, as one to a full disk does.
    if let Err(e) = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) } {
        tracing::warn!("cannot ignore SIGXFSZ: {e}");
    }
}
