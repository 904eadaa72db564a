//! Many hands on one mount: nobody waits for what another waits for, and nobody sees a directory half.

use anyhow::{Context, Result, ensure};
use cessfs_tests::modes::{bash, on_each_mount};
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn what_waits_for_the_network_keeps_nobody_else_waiting() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    let volume = Volume::init(&dir.path().join("volume"), &network.ws, &InitOptions::default())?;
    let mount = volume.mount(&dir.path().join("mnt"))?;
    let (d, far) = (mount.path().join("d"), mount.path().join("d/far"));
    fs::create_dir(&d)?;
    tree::write_noise(&far, 1, 3)?;
    volume.sync(Duration::from_secs(120))?;
    volume.evict()?;
    drop_kernel_caches()?;
    const SLOW: Duration = Duration::from_secs(6);
    let mut slow = vec!["miner", "slow", "--ms", "6000"];
    let all: Vec<String> = (0..12).map(|index| index.to_string()).collect();
    slow.extend(all.iter().map(String::as_str));
    network.run(&slow)?;
    let start = Instant::now();
    let (waited, worked) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| fs::read(&far).map(|bytes| bytes.len())))
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        let work = near_work(&d);
        let worked = start.elapsed();
        for reader in readers {
            ensure!(reader.join().expect("readers do not panic")? == 3 << 20);
        }
        work.map(|()| (start.elapsed(), worked))
    })?;
    ensure!(waited >= SLOW, "the network was to be slow, and answered in {waited:?}");
    ensure!(worked < SLOW, "what needs no network took {worked:?} of {waited:?}");
    mount.umount()
}

/// Everything that can be done in a directory while one of its files is being fetched, and with that file's name and attributes.
fn near_work(d: &Path) -> Result<()> {
    for i in 0..20 {
        let (new, moved) = (d.join(format!("new-{i}")), d.join(format!("moved-{i}")));
        fs::write(&new, vec![7; 10_000])?;
        fs::rename(&new, &moved)?;
        ensure!(fs::read(&moved)? == vec![7; 10_000]);
    }
    let file = fs::File::open(d.join("moved-3"))?;
    file.sync_all()?;
    ensure!(fs::metadata(d.join("far"))?.len() == 3 << 20);
    ensure!(fs::read_dir(d)?.count() == 21);
    fs::hard_link(d.join("far"), d.join("link"))?;
    fs::rename(d.join("link"), d.join("other"))?;
    fs::remove_file(d.join("other"))?;
    Ok(())
}

/// Reads a directory through small buffers, as `getdents64` gives them, again and again while it changes.
#[test]
fn a_listing_shows_what_was_there_all_the_time_exactly_once() -> Result<()> {
    on_each_mount(&[], |mount| {
        let d = mount.path().join("d");
        fs::create_dir(&d)?;
        let steady: BTreeSet<String> = (0..3000).map(|i| format!("steady-{i}")).collect();
        for name in &steady {
            fs::File::create(d.join(name))?;
        }
        let (d, ended) = (&d, &AtomicBool::new(false));
        std::thread::scope(|scope| {
            let change = |thread: u32| -> Result<()> {
                for round in (0..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                    let name = |kind: &str| d.join(format!("{kind}-{thread}-{}", round % 50));
                    fs::File::create(name("new"))?;
                    fs::rename(name("new"), name("moved"))?;
                    if round % 3 == 0 {
                        fs::remove_file(name("moved"))?;
                    }
                }
                Ok(())
            };
            let changers: Vec<_> = (0..2).map(|thread| scope.spawn(move || change(thread))).collect();
            let listed = (0..12).try_for_each(|_| {
                let mut seen = BTreeSet::new();
                for entry in fs::read_dir(d)? {
                    let name = entry?.file_name().into_string().expect("all names here are UTF-8");
                    if name.starts_with("steady") {
                        ensure!(seen.insert(name.clone()), "{name} shows twice");
                    }
                }
                ensure!(seen == steady, "{} of {} show", seen.len(), steady.len());
                Ok(())
            });
            ended.store(true, Ordering::Relaxed);
            for changer in changers {
                changer
                    .join()
                    .expect("changers do not panic")
                    .context("a change beside the listing")?;
            }
            listed
        })
    })
}

#[test]
fn a_mapping_is_written_while_holes_are_punched_beside_it() -> Result<()> {
    let script = format!("python3 - <<'END'\n{}END\n", include_str!("together/mapping.py"));
    on_each_mount(&[], |mount| bash(mount.path(), &script).map(drop))
}
