//! Real programs at work on a mount, in both at-rest modes: editors, databases, copiers, git, a backup, a build.
//!
//! The scripts in `programs/` check themselves; each ends at the first thing that is not as on a local filesystem.

use anyhow::{Context, Result};
use cessfs_tests::modes::{bash, on_each_mount, on_each_volume};
use cessfs_tests::tree;

/// On a mount of each at-rest mode; and on a sealed one where every read and write of a program reaches the daemon.
fn runs(script: &str) -> Result<()> {
    on_each_volume(|volume, at| {
        let mut modes: Vec<&[&str]> = vec![&["dev", "suid"]];
        if volume.at_rest()? == "sealed" {
            modes.push(&["dev", "suid", "kernel-cache=none"]);
        }
        for options in modes {
            let mount = volume.mount_with(at, options)?;
            let dir = at.join(options.join(",").replace('=', "-"));
            std::fs::create_dir(&dir)?;
            bash(&dir, script).with_context(|| options.join(","))?;
            mount.umount()?;
        }
        Ok(())
    })
}

#[test]
fn editors_save() -> Result<()> {
    runs(include_str!("programs/saving.sh"))
}

#[test]
fn databases_with_concurrent_readers() -> Result<()> {
    runs(include_str!("programs/databases.sh"))
}

#[test]
fn trees_are_copied_without_a_difference() -> Result<()> {
    runs(include_str!("programs/copies.sh"))
}

#[test]
fn git_a_backup_and_a_build() -> Result<()> {
    let home = std::env::var("HOME")?;
    let script = format!("REAL_HOME='{home}'\n{}", include_str!("programs/developing.sh"));
    on_each_mount(&[], |mount| {
        bash(mount.path(), &script)?;
        // Nothing of it is lost on the way through the cache.
        let before = tree::manifest(&mount.path().join("repo"))?;
        cessfs_tests::process::drop_kernel_caches()?;
        let after = tree::manifest(&mount.path().join("repo"))?;
        assert_eq!(tree::differences(&before, &after), Vec::<String>::new());
        Ok(())
    })
}
