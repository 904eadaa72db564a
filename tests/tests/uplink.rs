//! When sending may not go on: `uplink_schedule` and `metered` in volume.toml, read while mounted.

use anyhow::{Context, Result, ensure};
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(120);
/// Long enough for what may be sent to be on its way.
const A_WHILE: Duration = Duration::from_secs(8);

/// A time zone in which it is another day half of the time, so that nobody takes this machine's for it.
const FAR_EAST: &str = "Pacific/Kiritimati";
const FAR_EAST_HOURS: u64 = 14;

/// Three hours with this one in the middle, as a schedule has them, so many hours east of Greenwich.
fn hours_around_now(east: u64) -> Result<String> {
    let hour = UNIX_EPOCH.elapsed()?.as_secs() / 3600 + east;
    Ok(format!("{:02}:00-{:02}:00", (hour + 23) % 24, (hour + 2) % 24))
}

fn init(dir: &Path) -> Result<(Network, Volume)> {
    let network = Network::up(&dir.join("net"), 16)?;
    let volume = Volume::init(&dir.join("volume"), &network.ws, &InitOptions::default())?;
    Ok((network, volume))
}

/// Nothing of what was written reaches the network, and the person is told why.
fn is_paused(volume: &Volume, why: &str) -> Result<()> {
    volume.status_says(&[why], PATIENCE)?;
    volume.run(&["sync"])?;
    let waits = volume.sync(A_WHILE).err().context("a paused sync ended")?;
    ensure!(format!("{waits:#}").contains(why), "the sync said: {waits:#}");
    for state in ["placing", "stored", "confirmed"] {
        ensure!(
            volume.packs(state)? == 0,
            "it was declared or sent: {}",
            volume.status()?
        );
    }
    Ok(())
}

#[test]
fn a_schedule_pauses_what_is_sent_and_an_edit_lets_it_go_on() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (_network, volume) = init(dir.path())?;
    let volume = volume.with_environment("TZ", FAR_EAST);
    let free = "uplink_schedule = []";
    let paused = format!("uplink_schedule = [\"{} pause\"]", hours_around_now(FAR_EAST_HOURS)?);
    volume.configure(&[(free, &paused)])?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    tree::write_many(&at.join("many"), 60)?;
    let expected = tree::manifest(&at)?;
    is_paused(&volume, "uplink_schedule")?;

    volume.configure(&[(&paused, free)])?;
    volume.comes_back(&at, &expected, PATIENCE)?;
    ensure!(volume.status()?["blocked"].is_null(), "{}", volume.status()?);
    mount.umount()
}

/// A system bus of the test's own.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start(dir: &Path) -> Result<Bus> {
        let address = format!("unix:path={}", dir.join("bus").display());
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address", "--address", &address])
            .stdout(Stdio::piped())
            .spawn()
            .context("dbus-daemon")?;
        let out = daemon.stdout.take().context("it has an output")?;
        let mut said = String::new();
        BufReader::new(out).read_line(&mut said)?;
        Ok(Bus {
            daemon,
            address: said.trim().to_owned(),
        })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have gone by itself; either way it is gone then.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// NetworkManager, as far as it is asked here.
struct NetworkManager(Arc<AtomicU32>);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl NetworkManager {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

const GUESS_YES: u32 = 3;
const NO: u32 = 2;

#[test]
fn a_metered_connection_pauses_what_is_sent_until_there_is_another() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let bus = Bus::start(dir.path())?;
    let metered = Arc::new(AtomicU32::new(GUESS_YES));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let manager = runtime.block_on(async {
        zbus::connection::Builder::address(bus.address.as_str())?
            .name("org.freedesktop.NetworkManager")?
            .serve_at("/org/freedesktop/NetworkManager", NetworkManager(metered.clone()))?
            .build()
            .await
    })?;

    let (_network, volume) = init(dir.path())?;
    let volume = volume.with_environment("DBUS_SYSTEM_BUS_ADDRESS", &bus.address);
    volume.configure(&[("metered = \"send\"", "metered = \"pause\"")])?;
    let at = dir.path().join("mnt");
    let mount = volume.mount(&at)?;
    tree::write_many(&at.join("many"), 60)?;
    let expected = tree::manifest(&at)?;
    is_paused(&volume, "metered")?;

    metered.store(NO, Ordering::Relaxed);
    volume.comes_back(&at, &expected, PATIENCE)?;

    // When nobody answers any more, what was said last holds.
    runtime.block_on(manager.close())?;
    drop(bus);
    tree::write_many(&at.join("more"), 10)?;
    volume.sync(PATIENCE)?;
    mount.umount()
}
