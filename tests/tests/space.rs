//! Holes, allocation and copies through a real mount, in both at-rest modes, resident and evicted.

use anyhow::{Context, Result};
use cessfs_tests::network::eventually;
use cessfs_tests::process::drop_kernel_caches;
use cessfs_tests::{InitOptions, Network, Volume, can_mount, tree};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `check` on a fresh mount of each at-rest mode.
fn on_each_mode(check: impl Fn(&Volume, &Path) -> Result<()>) -> Result<()> {
    on_each_mode_with(&[], check)
}

/// The same with these `-o` options.
fn on_each_mode_with(mount_options: &[&str], check: impl Fn(&Volume, &Path) -> Result<()>) -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let network = Network::up(&dir.path().join("net"), 12)?;
    for at_rest in ["sealed", "plain"] {
        let options = InitOptions {
            at_rest,
            gib: 2,
            ..InitOptions::default()
        };
        let volume = Volume::init(&dir.path().join(at_rest), &network.ws, &options)?;
        let mount = volume.mount_with(&dir.path().join("mnt"), mount_options)?;
        check(&volume, mount.path()).with_context(|| at_rest.to_string())?;
        mount.umount()?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| path.display().to_string())
}

/// Everything is on the network and nothing in the cache, ours and the kernel's.
fn evict(volume: &Volume) -> Result<()> {
    volume.sync(PATIENCE)?;
    volume.evict()?;
    drop_kernel_caches()
}

/// Ranges of data, as `lseek` tells them.
fn data_ranges(file: &File) -> Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        match lseek(file, at, Whence::SeekData) {
            Ok(start) => {
                at = lseek(file, start, Whence::SeekHole)?;
                ranges.push((start as u64, at as u64));
            }
            Err(Errno::ENXIO) => return Ok(ranges),
            Err(e) => return Err(e.into()),
        }
    }
}

/// What `stat` tells when the kernel has nothing left to write: it asks for the blocks once a handle is closed.
fn flushed(path: &Path) -> Result<fs::Metadata> {
    drop(OpenOptions::new().write(true).open(path)?);
    Ok(fs::metadata(path)?)
}

fn space(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> Result<(), Errno> {
    fallocate(file, flags, offset as i64, len as i64)
}

#[test]
fn fallocate_in_every_mode_the_kernel_passes() -> Result<()> {
    let (plain, keep) = (FallocateFlags::empty(), FallocateFlags::FALLOC_FL_KEEP_SIZE);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep;
    let zero = FallocateFlags::FALLOC_FL_ZERO_RANGE;
    on_each_mode(|volume, at| {
        let path = at.join("file");
        let file = open(&path)?;
        let mut expected = tree::noise(1, 3 * MIB as usize + 1000);
        file.write_all_at(&expected, 0)?;
        for cached in [true, false] {
            if !cached {
                evict(volume)?;
            }
            let before = flushed(&path)?;
            // Longer than a tick of the kernel's coarse clock.
            std::thread::sleep(Duration::from_millis(50));
            let (start, end) = if cached {
                (5000, 20_000)
            } else {
                (MIB - 5000, 2 * MIB + 5000)
            };
            space(&file, punch, start, end - start)?;
            expected[start as usize..end as usize].fill(0);
            let after = flushed(&path)?;
            assert!(after.blocks() < before.blocks() && after.size() == before.size());
            assert!(after.mtime_nsec() != before.mtime_nsec() && after.ctime_nsec() != before.ctime_nsec());
            assert!(fs::read(&path)? == expected, "punched, cached: {cached}");
        }
        space(&file, zero, 3 * MIB, 5000)?;
        expected.resize(3 * MIB as usize, 0);
        expected.resize(3 * MIB as usize + 5000, 0);
        assert!(fs::read(&path)? == expected, "zeroed");
        let size = expected.len() as u64;
        let before = file.metadata()?.blocks();
        space(&file, keep, 4 * MIB, 2 * MIB)?;
        assert_eq!(
            (file.metadata()?.size(), file.metadata()?.blocks()),
            (size, before + 4096)
        );
        space(&file, plain, 4 * MIB, 2 * MIB)?;
        assert_eq!(
            (file.metadata()?.size(), file.metadata()?.blocks()),
            (6 * MIB, before + 4096)
        );
        expected.resize(6 * MIB as usize, 0);
        assert!(fs::read(&path)? == expected, "allocated");
        for refused in [
            FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
            FallocateFlags::FALLOC_FL_INSERT_RANGE,
            FallocateFlags::FALLOC_FL_UNSHARE_RANGE,
        ] {
            assert_eq!(space(&file, refused, 0, MIB), Err(Errno::EOPNOTSUPP), "{refused:?}");
        }
        assert_eq!(space(&file, plain, 0, 1 << 60), Err(Errno::ENOSPC));
        assert_eq!(space(&file, plain, i64::MAX as u64 - 10, 100), Err(Errno::EFBIG));
        assert_eq!(space(&File::open(&path)?, plain, 0, 10), Err(Errno::EBADF));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755))?;
        let by_another = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--clear-groups",
                "fallocate",
                "-p",
                "-o",
                "0",
                "-l",
                "4096",
            ])
            .arg(&path)
            .output();
        // Only where another user may write to it at all.
        if by_another.is_ok_and(|output| output.status.success()) {
            assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o6000, 0);
        }
        let small = open(&at.join("small"))?;
        small.write_all_at(b"some bytes", 0)?;
        space(&small, punch, 2, 3)?;
        space(&small, zero, 8, 4)?;
        assert_eq!(fs::read(at.join("small"))?, b"so\0\0\0byt\0\0\0\0");
        Ok(())
    })
}

#[test]
fn statfs_tells_the_truth_about_the_territory() -> Result<()> {
    /// Bytes of territory that the chain charges for one byte of content.
    const CHARGED: u64 = 3;
    on_each_mode(|volume, at| {
        let room = || -> Result<(u64, u64, u64)> {
            let room = nix::sys::statvfs::statvfs(at)?;
            let bytes = |blocks: u64| blocks * room.fragment_size();
            Ok((
                bytes(room.blocks()),
                bytes(room.blocks_free()),
                bytes(room.blocks_available()),
            ))
        };
        // In whole blocks, as the chain has it.
        let chain = || -> Result<(u64, u64)> {
            let territory = volume.status()?["territory"].clone();
            let content = |field: &str| Some(territory[field].as_u64()? / CHARGED / 4096 * 4096);
            let told = content("total_bytes").zip(content("remaining_bytes"));
            told.with_context(|| format!("the territory: {territory}"))
        };
        let agree = || Ok((room()?.0, room()?.1) == chain()?);
        eventually("statfs to tell the territory", PATIENCE, agree)?;
        let before = room()?;
        assert!(before.2 <= before.1 && before.1 <= before.0, "{before:?}");
        tree::write_noise(&at.join("file"), 5, 40)?;
        File::open(at.join("file"))?.sync_all()?;
        // What the kernel wrote itself is found a moment after the file was closed.
        eventually("what is not sent to count", PATIENCE, || {
            Ok(room()?.1 + 40 * MIB <= before.1)
        })?;
        volume.sync(PATIENCE)?;
        eventually("statfs to tell what is left", PATIENCE, agree)?;
        assert!(room()?.1 + 40 * MIB <= before.1 && room()?.0 == before.0);
        Ok(())
    })
}

#[test]
fn holes_do_not_depend_on_the_cache() -> Result<()> {
    on_each_mode(|volume, at| {
        let path = at.join("sparse");
        let file = open(&path)?;
        file.write_all_at(&tree::noise(2, 10_000), 4096)?;
        file.write_all_at(&tree::noise(3, 2 * MIB as usize), 5 * MIB)?;
        file.set_len(20 * MIB)?;
        // Nothing was synced: what the kernel still has counts, too.
        let expected = vec![(4096, 16384), (5 * MIB, 7 * MIB)];
        assert_eq!(data_ranges(&file)?, expected);
        assert_eq!(lseek(&file, 8 * MIB as i64, Whence::SeekHole)?, 8 * MIB as i64);
        assert_eq!(lseek(&file, 7 * MIB as i64, Whence::SeekData), Err(Errno::ENXIO));
        for whence in [Whence::SeekHole, Whence::SeekData] {
            assert_eq!(lseek(&file, 20 * MIB as i64, whence), Err(Errno::ENXIO));
        }
        drop(file);
        let blocks = fs::metadata(&path)?.blocks();
        assert_eq!(blocks, (12288 + 2 * MIB) / 512);
        evict(volume)?;
        let file = open(&path)?;
        assert_eq!(data_ranges(&file)?, expected);
        assert_eq!(file.metadata()?.blocks(), blocks);
        assert_eq!(fs::read(&path)?.len(), 20 * MIB as usize);
        assert_eq!(data_ranges(&file)?, expected);
        let small = open(&at.join("small"))?;
        small.write_all_at(b"x", 100)?;
        assert_eq!(data_ranges(&small)?, vec![(0, 101)]);
        Ok(())
    })
}

#[test]
fn blocks_are_told_while_the_file_is_open() -> Result<()> {
    on_each_mode(|_, at| {
        let file = open(&at.join("growing"))?;
        assert_eq!(file.metadata()?.blocks(), 0);
        file.write_all_at(&tree::noise(4, MIB as usize), 0)?;
        file.sync_all()?;
        let told = || Ok(file.metadata()?.blocks() == MIB / 512);
        cessfs_tests::network::eventually("the blocks that were synced", Duration::from_secs(5), told)
    })
}

/// Ids and residency of a file's chunks.
fn chunks(volume: &Volume, path: &Path) -> Result<Vec<(String, bool)>> {
    let explained = volume.explain(path)?;
    let chunks = explained["chunks"].as_array().context("no chunks")?;
    let told = chunks.iter().map(|chunk| {
        let id = chunk["id"].as_str().context("a chunk without an id")?;
        Ok((id.to_string(), chunk["resident"].as_bool().context("residency")?))
    });
    told.collect()
}

#[test]
fn copies_send_nothing_to_the_network_and_fetch_nothing() -> Result<()> {
    // A file that the kernel writes itself has its bytes here, and ids for them once it is closed (docs/SEMANTICS.md).
    on_each_mode_with(&["passthrough=off"], |volume, at| {
        let (from, to) = (at.join("from"), at.join("to"));
        let content = tree::noise(5, 8 * MIB as usize + 12_345);
        fs::write(&from, &content)?;
        evict(volume)?;
        let packs = volume.packs("confirmed")?;
        let source = File::open(&from)?;
        let target = open(&to)?;
        let mut done = 0;
        while done < content.len() {
            let copied = copy_file_range(&source, None, &target, None, content.len() - done)?;
            assert!(copied > 0, "copied {done} and no more");
            done += copied;
        }
        let (ids, copy) = (chunks(volume, &from)?, chunks(volume, &to)?);
        assert_eq!(ids, copy);
        assert!(copy.iter().all(|(_, resident)| !resident), "nothing was fetched for it");
        assert_eq!(volume.status()?["dirty_bytes"], 0);
        assert!(fs::read(&to)? == content);
        // The pack that carries the new names carries no chunk: the copies have the ids they had.
        evict(volume)?;
        assert!(volume.packs("confirmed")? <= packs + 2);
        assert_eq!(chunks(volume, &to)?, ids);
        fs::remove_file(&from)?;
        assert!(fs::read(&to)? == content);
        // Onto itself, and where nothing fits together.
        let overlapping = copy_file_range(&target, Some(&mut 0), &target, Some(&mut 4096), 8192);
        assert_eq!(overlapping, Err(Errno::EINVAL));
        let mut offsets = (3 * MIB as i64 + 17, 9 * MIB as i64 + 4711);
        assert_eq!(
            copy_file_range(
                &target,
                Some(&mut offsets.0),
                &target,
                Some(&mut offsets.1),
                3 * MIB as usize
            )?,
            3 * MIB as usize
        );
        let found = fs::read(&to)?;
        assert!(found[..content.len()] == content);
        let copied = &found[9 * MIB as usize + 4711..];
        assert!(copied == &content[3 * MIB as usize + 17..6 * MIB as usize + 17]);
        Ok(())
    })
}

/// Where the kernel writes files itself, what is absent is fetched for a copy. The network gets none of it twice all the same.
#[test]
fn a_copy_where_the_kernel_writes_files_is_not_sent_again() -> Result<()> {
    on_each_mode_with(&["passthrough=auto"], |volume, at| {
        let (from, to) = (at.join("from"), at.join("to"));
        let content = tree::noise(8, 8 * MIB as usize + 12_345);
        fs::write(&from, &content)?;
        evict(volume)?;
        let (ids, packs) = (chunks(volume, &from)?, volume.packs("confirmed")?);
        assert!(ids.iter().all(|(_, resident)| !resident));
        let path = |path: &Path| path.display().to_string();
        run("cp", &["--reflink=auto", &path(&from), &path(&to)])?;
        assert!(fs::read(&to)? == content);
        evict(volume)?;
        assert_eq!(chunks(volume, &to)?, ids, "the same chunks, and none of them here");
        assert!(
            volume.packs("confirmed")? <= packs + 2,
            "a pack of names at most for each sync"
        );
        assert!(fs::read(&to)? == content);
        Ok(())
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {arguments:?}: {said}");
    Ok(())
}

#[test]
fn cp_keeps_and_makes_holes() -> Result<()> {
    on_each_mode_with(&["passthrough=off"], |volume, at| {
        let from = at.join("from");
        let file = open(&from)?;
        file.write_all_at(&tree::noise(6, 3 * MIB as usize), 2 * MIB)?;
        file.write_all_at(&[0; 2 * MIB as usize], 6 * MIB)?;
        file.set_len(30 * MIB + 7)?;
        drop(file);
        let path = |path: &Path| path.display().to_string();
        for (round, evicted) in [(0, false), (1, true)] {
            if evicted {
                evict(volume)?;
            }
            // cp reads what may be sparse, and leaves runs of zeros out, too.
            for option in ["--reflink=auto", "--sparse=auto", "--sparse=always"] {
                let to = at.join(format!("to{round}{option}"));
                run("cp", &[option, &path(&from), &path(&to)])?;
                run("cmp", &[&path(&from), &path(&to)])?;
                assert_eq!(
                    fs::metadata(&to)?.blocks(),
                    3 * MIB / 512,
                    "{option}, evicted: {evicted}"
                );
            }
        }
        let (dense, to) = (at.join("dense"), at.join("dense-copy"));
        fs::write(&dense, tree::noise(7, 5 * MIB as usize))?;
        evict(volume)?;
        run("cp", &["--reflink=auto", &path(&dense), &path(&to)])?;
        let copied = chunks(volume, &to)?;
        assert_eq!(copied, chunks(volume, &dense)?, "cp asks for a copy and gets one");
        assert!(copied.iter().all(|(_, resident)| !resident), "cp read nothing");
        run("cmp", &[&path(&dense), &path(&to)])?;
        Ok(())
    })
}
