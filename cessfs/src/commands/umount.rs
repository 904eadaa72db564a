//! `cessfs umount DIR`.

use super::Context;
use crate::control::client::{self, Client, unexpected};
use crate::control::serving::{Serving, serving};
use crate::control::{Op, Reply, Sends};
use crate::exit::{Exit, Failure};
use crate::home::{VolumeDir, VolumeName};
use crate::limits::{DAEMON_END_TIMEOUT, HOLDERS_AFTER};
use crate::mountpoint;
use crate::output;
use crate::progress::{self, SyncProgress, Waiting};
use crate::units;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the lock is looked at while the daemon closes.
const POLL: Duration = Duration::from_millis(10);

/// Unmount a directory
///
/// Returns when the daemon has closed its files. What is not on the network yet rests on this disk and goes on at the next
/// mount; --wait sends it first, --background afterwards: then the daemon stays without a mount until all is sent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs umount ~/Photos
  cessfs umount ~/Photos --wait         # before this machine is switched off for long
  cessfs umount ~/Photos --wait --timeout 60   # the same, but it is switched off in any case
  cessfs umount ~/Photos --background   # `cessfs status photos` tells how far it is")]
pub struct UmountArgs {
    /// Where it is mounted
    dir: PathBuf,
    /// Until everything is confirmed on the network
    #[arg(long)]
    wait: bool,
    /// Wait no longer than so many seconds, then unmount without the rest (exit code 14)
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
    /// At once, and the daemon goes on sending
    #[arg(long, conflicts_with = "wait")]
    background: bool,
}

impl UmountArgs {
    fn sends(&self) -> Sends {
        match (self.wait, self.background) {
            (true, _) => Sends::Before,
            (_, true) => Sends::After,
            _ => Sends::Never,
        }
    }
}

/// Asks the daemon to end; clears away what a dead one left.
///
/// # Errors
/// [`Exit::NotMounted`]; [`Exit::Busy`], also when the daemon says nothing; [`Exit::Timeout`] when it is unmounted, but not everything is on the network.
pub fn run(args: &UmountArgs, context: &Context) -> Result<(), Failure> {
    let dir = mountpoint::resolve(&args.dir)?;
    let mount = mountpoint::mounted_at(&mountpoint::mounts()?, &dir);
    let Some((mount, name)) = mount.and_then(|m| m.volume().map(|name| (m, name))) else {
        let what = format!("no cessfs volume is mounted on {}", dir.display());
        return Err(Failure::new(Exit::NotMounted, what).hint("`findmnt -t fuse.cessfs` lists the mounts"));
    };
    let Serving { mut client, status } = match serving(&mount, &context.home) {
        Ok(serving) => serving,
        // It lives: whoever looked at the directory would wait for it, too.
        Err(failure) if failure.exit == Exit::Busy => return Err(failure.during("nothing was sent or unmounted")),
        Err(_) if mountpoint::is_dead(&dir) => return left_behind(&dir, &name, args.sends()),
        Err(failure) if failure.exit == Exit::NotMounted => return without_daemon(&dir, failure, args.sends()),
        Err(failure) => return Err(failure),
    };
    let goes_on = status.read_only_reason.is_none();
    let own = status.mountpoint.unwrap_or_default();
    if own != dir.display().to_string() {
        return another_place(&dir, &own, args.sends());
    }
    let volume = context.home.volume(&name);
    let mut bar = SyncProgress::start();
    let deadline = client::deadline(args.timeout);
    let op = Op::Shutdown { sends: args.sends() };
    let mut reply = client.call_until(op, deadline, &mut |event| bar.event(&event));
    bar.finish();
    // A daemon whose client hangs up stops sending for it.
    drop(client);
    let late = args
        .timeout
        .filter(|_| reply.as_ref().is_err_and(|f| f.exit == Exit::Timeout));
    if late.is_some() {
        // Who set a time is not kept for ever by a daemon that does not come to it.
        let deadline = client::deadline(Some(DAEMON_END_TIMEOUT.as_secs()));
        let end = Op::Shutdown { sends: Sends::Never };
        reply = Client::connect(&volume).and_then(|mut client| client.call_until(end, deadline, &mut |_| ()));
    }
    let unsent_bytes = match reply {
        Ok(Reply::Closing { unsent_bytes }) => unsent_bytes,
        Ok(other) => return Err(unexpected(&other)),
        // It ended before its answer was out; all that was asked for is that the mount goes.
        Err(failure) if failure.exit == Exit::NotMounted && args.sends() == Sends::Never && is_gone(&dir)? => 0,
        Err(failure) => return Err(failure),
    };
    if args.background {
        if unsent_bytes > 0 {
            let left = units::bytes(unsent_bytes);
            tell!("{left} are being sent in the background; `cessfs status {name}` tells how far it is");
        }
        return Ok(());
    }
    wait_for_end(&volume, &mount.device())?;
    if let Some(seconds) = late {
        return Err(too_late(seconds, unsent_bytes, name.as_str()));
    }
    if let Some(left) = progress::left_to_send(unsent_bytes, name.as_str(), goes_on) {
        tell!("{left}");
    }
    Ok(())
}

/// It is unmounted, and some of it is only on this disk.
fn too_late(seconds: u64, unsent_bytes: u64, name: &str) -> Failure {
    let left = progress::left_to_send(unsent_bytes, name, true);
    let failure = Failure::new(
        Exit::Timeout,
        format!("unmounted, but not everything could be sent in {seconds} s"),
    );
    failure.hint(left.unwrap_or_else(|| format!("what is left goes on when `{name}` is mounted again")))
}

fn is_gone(dir: &Path) -> Result<bool, Failure> {
    Ok(mountpoint::mounted_at(&mountpoint::mounts()?, dir).is_none_or(|m| m.volume().is_none()))
}

/// The mount's daemon has died: what it left is in the way of the next mount, but nothing was sent.
fn left_behind(dir: &Path, name: &VolumeName, sends: Sends) -> Result<(), Failure> {
    mountpoint::detach(dir)?;
    tell!("removed a mount that a daemon left behind on {}", dir.display());
    if sends == Sends::Never {
        return Ok(());
    }
    let what = format!("the daemon of {} has died, and nothing was sent", dir.display());
    Err(Failure::new(Exit::NotMounted, what).hint(format!(
        "`cessfs mount {name} {}` goes on with what is on this disk",
        output::word(dir)
    )))
}

/// The mount lives, but its daemon is not in this home: unmounting it is right all the same, the daemon ends by itself. It
/// cannot be asked to send anything.
fn without_daemon(dir: &Path, failure: Failure, sends: Sends) -> Result<(), Failure> {
    if sends != Sends::Never {
        return Err(failure.during("nothing was sent or unmounted"));
    }
    mountpoint::unmount(dir)?;
    tell!("unmounted; {failure}, and ends by itself");
    Ok(())
}

/// A bind mount of a volume that is mounted on `own`: the daemon and that mount stay.
fn another_place(dir: &Path, own: &str, sends: Sends) -> Result<(), Failure> {
    if sends != Sends::Never {
        let what = format!("{} is another place of the mount on {own}", dir.display());
        return Err(Failure::new(Exit::NotMounted, what)
            .during("nothing was sent or unmounted")
            .hint(format!("unmount {own} instead")));
    }
    mountpoint::unmount(dir)?;
    tell!("unmounted; the volume is still mounted on {own}");
    Ok(())
}

/// Waits until the daemon has let go of the volume, so that it can be mounted again at once.
fn wait_for_end(volume: &VolumeDir, device: &str) -> Result<(), Failure> {
    let mut spinner = Some(Waiting::on("closing"));
    let started = Instant::now();
    let mut told = false;
    while volume.is_locked() {
        let waited = started.elapsed();
        if waited >= DAEMON_END_TIMEOUT {
            let held = mountpoint::still_held(device);
            return Err(match held {
                Some(held) => Failure::new(Exit::Timeout, format!("unmounted, but {held}"))
                    .hint("unmount it there, or end those processes"),
                None => Failure::new(Exit::Timeout, "the daemon is still closing its files")
                    .hint(format!("{} tells what it does", volume.log().display())),
            });
        }
        if waited >= HOLDERS_AFTER && !told {
            told = true;
            if let Some(held) = mountpoint::still_held(device) {
                drop(spinner.take());
                tell!("unmounted, but {held}");
            }
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
