//! pjdfstest, the suite of POSIX semantics, as root on a mount of each at-rest mode and each way the kernel may treat
//! its content, and on the second database.
//!
//! No test may fail, and none be left out but those of other systems. `pjdfstest/pjdfstest.toml` is its configuration and
//! lists what the kernel lets no FUSE filesystem pass. `scripts/setup --test` installs the program.

use anyhow::{Context, Result};
use cessfs_tests::modes::{Kind, on_volumes};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a test may be skipped: what it needs does not exist on Linux; or, of the limit of links, because the C library has
/// a table of filesystems for it that FUSE is not in (our unit tests have that case); or it is run apart.
const SKIPS: [&str; 6] = [
    "chflags",
    "nfsv4_acls",
    "stat_st_birthtime",
    "file flags",
    "LINK_MAX",
    "allow_remount",
];

/// Tests that must have run at least, so that a suite that finds nothing to do does not pass.
const PASSED_MIN: u32 = 380;

/// mount(8), as the suite calls it to remount: without `-i` it would look for the helper of FUSE, which cannot remount. A
/// file that was removed while open keeps the kernel from a read-only remount until its release was answered, which for
/// FUSE may be after `close`: tried again for a while.
const MOUNT: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
for try in $(seq 50); do
    said=$(mount -i "$@" 2>&1) && exit 0
    sleep 0.1
done
echo "$said" >&2
exit 32
"#;

/// The suite, from the path or from where cargo puts programs.
fn suite() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let dirs = std::env::split_paths(&path).chain(cargo.or(home).map(|dir| dir.join("bin")));
    dirs.map(|dir| dir.join("pjdfstest")).find(|program| program.is_file())
}

/// Which tests to run.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// All that need no remount.
    All,
    /// Those that remount read-only.
    ReadOnly,
}

/// Runs the suite in a directory; what it said. Fails if a test does.
fn run(suite: &Path, part: Part, at: &Path, scratch: &Path) -> Result<String> {
    let bin = scratch.join("bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::write(bin.join("mount"), MOUNT)?;
    std::fs::set_permissions(bin.join("mount"), std::fs::Permissions::from_mode(0o755))?;
    let remount = |may: bool| format!("allow_remount = {may}");
    let config = include_str!("pjdfstest/pjdfstest.toml").replace(&remount(false), &remount(part == Part::ReadOnly));
    std::fs::write(scratch.join("config.toml"), config)?;
    let mut command = Command::new(suite);
    command.arg("-c").arg(scratch.join("config.toml")).arg("-p").arg(at);
    command.arg("--secondary-fs").arg(scratch);
    if part == Part::ReadOnly {
        command.arg("erofs");
    }
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH")?));
    let output = command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(output.status.success(), "pjdfstest: {said}");
    Ok(said)
}

/// Tests of an output that were skipped for a reason that is not of [`SKIPS`].
fn wrongly_skipped(said: &str) -> Vec<&str> {
    let mut wrong = Vec::new();
    let mut lines = said.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.trim_end().ends_with(" skipped") {
            continue;
        }
        let mut excused = false;
        while let Some(reason) = lines.next_if(|line| line.starts_with('\t')) {
            excused |= SKIPS.iter().any(|skip| reason.contains(skip));
        }
        if !excused {
            wrong.push(line);
        }
    }
    wrong
}

/// The number before `word` in the suite's last line.
fn count(said: &str, word: &str) -> Option<u32> {
    let summary = said.lines().find(|line| line.starts_with("Summary"))?;
    let words: Vec<&str> = summary.split([' ', ',']).collect();
    let at = words.iter().position(|there| *there == word)?;
    words[..at].last()?.parse().ok()
}

#[test]
fn posix_semantics() -> Result<()> {
    let Some(suite) = suite() else {
        println!("SKIPPED: needs pjdfstest (scripts/setup --test installs it)");
        return Ok(());
    };
    on_volumes(&Kind::ALL, |kind, volume, at| {
        for options in kind.kernel_modes() {
            let (scratch, mode) = (tempfile::tempdir()?, options.join(","));
            let mount = volume.mount_with(at, &[&["dev", "suid"], options].concat())?;
            for (part, passed_min) in [(Part::ReadOnly, 13), (Part::All, PASSED_MIN)] {
                let said = run(&suite, part, mount.path(), scratch.path()).context(mode.clone())?;
                assert_eq!(wrongly_skipped(&said), Vec::<&str>::new(), "{mode}");
                let passed = count(&said, "passed").context("no summary")?;
                assert!(passed >= passed_min, "{mode}: only {passed} tests passed");
            }
            assert_eq!(std::fs::read_dir(mount.path())?.count(), 0, "it cleans up");
            mount.umount()?;
        }
        Ok(())
    })
}

#[test]
fn the_output_is_read_rightly() {
    let said = "chmod::a   ok\nchflags::b   skipped\n\trequires features: chflags\nopen::c   skipped\n\tno idea\n\n\
                Summary: 0 failed, 2 skipped, 1 passed, 0 expected failures, 3 total\n";
    assert_eq!(wrongly_skipped(said), ["open::c   skipped"]);
    assert_eq!((count(said, "passed"), count(said, "failed")), (Some(1), Some(0)));
}
