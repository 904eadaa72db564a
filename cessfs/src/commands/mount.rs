//! `cessfs mount NAME DIR`.

use super::Context;
use crate::cli::Global;
use crate::config::{self, VolumeConfig};
use crate::control::client::{self, Client, MOUNTED, SENDING};
use crate::control::{Op, Sends};
use crate::daemon::{self, Start, launch, log};
use crate::exit::{Exit, Failure};
use crate::home::{Home, VolumeDir};
use crate::limits::DAEMON_END_TIMEOUT;
use crate::mountpoint::{self, MountPoint, Source};
use crate::options::MountOptions;
use crate::output;
use crate::progress::Waiting;
use crate::secret::{Secret, Sources};
use crate::wiring;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a closing daemon is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Mount a volume on a directory
///
/// Returns when the mount answers; a daemon serves it in the background. The passphrase comes from `-o passphrase-file=`,
/// `-o key-file=`, the file that $CESSFS_PASSPHRASE_FILE names, systemd's credentials (cessfs-NAME or cessfs-passphrase),
/// or is asked for on the terminal.
#[derive(Debug, Args)]
#[command(after_help = "Options for -o:
  passphrase-file=FILE, key-file=FILE   what opens the volume
  cache-size=SIZE                       most bytes of the local cache, such as 20GiB
  writeback-delay=TIME                  quiet time before a change is sent, such as 5s
  kernel-cache=writeback|none           whether the kernel gathers small writes
  passthrough=auto|off                  whether the kernel reads and writes files of a plain volume itself
  allow_other                           let other users in (root's mounts always do)
  home=DIR                              as --home
  ro, noexec, suid, dev                 as for every filesystem; nosuid and nodev are the default
  noatime, strictatime, nodiratime      as for every filesystem; relatime is the default
  _netdev, nofail, noauto, user, x-…    accepted from fstab without effect here

Examples:
  cessfs mount photos ~/Photos
  cessfs mount photos ~/Photos -o passphrase-file=/run/keys/photos,cache-size=20GiB
  mount -t cessfs photos /mnt/photos -o passphrase-file=/etc/cessfs/photos.pass")]
pub struct MountArgs {
    /// The volume: NAME, cess://NAME or HOME/volumes/NAME
    #[arg(value_name = "NAME", value_parser = OsStringValueParser::new().try_map(|given| Source::parse(&given)))]
    source: Source,
    /// An empty directory
    dir: PathBuf,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Stay in the foreground and log to stderr (for systemd; SIGTERM unmounts)
    #[arg(long, short)]
    foreground: bool,
    /// The daemon's own start: secret on stdin, words of readiness on stdout
    #[arg(long, hide = true)]
    daemon: bool,
}

/// Mounts.
///
/// # Errors
/// Everything that keeps a volume from being mounted.
pub fn run(args: &MountArgs, context: &Context, global: &Global) -> Result<(), Failure> {
    if args.daemon {
        // The starting process tells the user what went wrong; one message is enough.
        return run_daemon(args, context, global).or_else(|failure| {
            launch::say_failed(&failure);
            std::process::exit(i32::from(failure.exit.code()))
        });
    }
    let options = MountOptions::parse(&args.options)?;
    let (volume, config) = volume(args, context, &options)?;
    let point = mountpoint::prepare(&args.dir)?;
    wait_until_free(&volume)?;
    let sources = Sources::of_mount(options.key_file.clone(), options.passphrase_file.clone());
    let secret = sources.for_mount(args.source.name(), &wiring::key_slots(&volume)?)?;
    if args.foreground {
        let log = log::to_stderr(global.level().unwrap_or(config.log_level));
        let source = args.source.shown();
        let start = start(volume, source, config, options, point, secret);
        return daemon::run(start, log, || (), || Ok(()));
    }
    let arguments = daemon_arguments(args, context, global, &point.path);
    let waiting = Waiting::on(format!("mounting {}", args.source.name()));
    launch::start(&arguments, &secret, &volume.log())?;
    drop(waiting);
    answers(&point.path)
}

fn run_daemon(args: &MountArgs, context: &Context, global: &Global) -> Result<(), Failure> {
    let secret = Secret::receive(&mut std::io::stdin().lock())?;
    let options = MountOptions::parse(&args.options)?;
    let (volume, config) = volume(args, context, &options)?;
    let log = log::to_file(&volume.log(), global.level().unwrap_or(config.log_level))?;
    let begun = mountpoint::prepare_resolved(args.dir.clone()).and_then(|point| {
        let start = start(volume, args.source.shown(), config, options, point, secret);
        daemon::run(start, log, launch::say_working, launch::say_ready)
    });
    // Once it was ready nobody listens any more; the log has it.
    begun.inspect_err(|failure| tracing::error!("{failure}"))
}

fn start(
    volume: VolumeDir,
    source: String,
    config: VolumeConfig,
    options: MountOptions,
    point: MountPoint,
    secret: Secret,
) -> Start {
    Start {
        volume,
        source,
        config,
        options,
        mountpoint: point.path,
        beneath: Some(point.beneath),
        secret,
    }
}

/// The volume and its configuration with the options applied.
fn volume(args: &MountArgs, context: &Context, options: &MountOptions) -> Result<(VolumeDir, VolumeConfig), Failure> {
    if args.source.is_path_elsewhere() {
        let what = format!(
            "{} is no directory of a volume",
            Path::new(args.source.given()).display()
        );
        return Err(Failure::new(Exit::NoVolume, what).hint("give NAME, cess://NAME or HOME/volumes/NAME"));
    }
    let home = match options.home.as_deref().or(args.source.home()) {
        Some(dir) => Home::find(Some(dir))?,
        None => context.home.clone(),
    };
    let volume = home.existing(args.source.name())?;
    let mut config = VolumeConfig::load(&volume.config())?;
    config::warn_of_rpc(&config.rpc);
    config.cache_size = options.cache_size.unwrap_or(config.cache_size);
    config.writeback_delay = options.writeback_delay.unwrap_or(config.writeback_delay);
    config.kernel_cache = options.kernel_cache.unwrap_or(config.kernel_cache);
    config.passthrough = options.passthrough.unwrap_or(config.passthrough);
    Ok((volume, config))
}

/// A volume that is mounted is refused; one whose daemon is just closing is waited for.
fn wait_until_free(volume: &VolumeDir) -> Result<(), Failure> {
    let deadline = Instant::now() + DAEMON_END_TIMEOUT;
    let mut waiting = None;
    while volume.is_locked() {
        let status = client::status(volume).ok();
        if status.as_ref().is_some_and(|status| status.state == SENDING) {
            // It goes on from this mount.
            let _or_it_has_just_ended = end(volume);
        }
        if let Some(status) = status.filter(|s| s.state == MOUNTED) {
            let place = status.mountpoint.unwrap_or_default();
            let pid = status.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            return Err(Failure::new(
                Exit::Busy,
                format!("volume `{}` is mounted on {place}{pid}", volume.name()),
            )
            .hint(format!(
                "`cessfs umount {}` first, or use that mount",
                output::word(&place)
            )));
        }
        if Instant::now() >= deadline {
            return volume.lock().map(drop);
        }
        waiting.get_or_insert_with(|| Waiting::on("waiting for the last mount to close"));
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Asks a daemon that only sends what is left to end.
fn end(volume: &VolumeDir) -> Result<(), Failure> {
    Client::connect(volume)?.call(Op::Shutdown { sends: Sends::Never }, &mut |_| ())?;
    Ok(())
}

fn daemon_arguments(args: &MountArgs, context: &Context, global: &Global, mountpoint: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--home".into(), context.home.path().into()];
    if let Some(level) = global.level() {
        arguments.extend(["--log-level".into(), level.as_str().into()]);
    }
    arguments.extend([
        "mount".into(),
        args.source.given().into(),
        mountpoint.into(),
        "--daemon".into(),
    ]);
    for list in &args.options {
        arguments.extend(["-o".into(), list.into()]);
    }
    arguments
}

/// The last word: the directory is the mount's root now.
fn answers(mountpoint: &Path) -> Result<(), Failure> {
    std::fs::metadata(mountpoint).map(drop).map_err(|e| {
        Failure::new(
            Exit::Mountpoint,
            format!("{} was mounted but does not answer: {e}", mountpoint.display()),
        )
    })
}
