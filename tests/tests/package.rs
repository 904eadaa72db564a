//! The Debian package: it unpacks into a clean root, and a volume mounts there through a line of fstab.

use anyhow::{Context, Result};
use cessfs_tests::{Network, can_mount};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enters a mount namespace, lays the package over the system's own /usr in an empty root, and uses it from inside.
const IN_A_CLEAN_ROOT: &str = r#"
set -euo pipefail
package=$1 root=$2 ws=$3
mkdir -p "$root"/{usr,dev,proc,sys,tmp,etc,mnt/home,state}
mount -t overlay overlay -o "lowerdir=$package/usr:/usr" "$root/usr"
for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
for dir in dev proc sys; do mount --rbind "/$dir" "$root/$dir"; done
cp -a /etc/passwd /etc/group /etc/ld.so.cache /etc/nsswitch.conf "$root/etc/"
printf 'pw' > "$root/state/pw"; chmod 600 "$root/state/pw"
printf 'home /mnt/home cessfs noauto,nofail,_netdev,x-systemd.automount,home=/state,passphrase-file=/state/pw 0 0\n' > "$root/etc/fstab"
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
inside cessfs --home /state init home --rpc "$ws" --new-phrase-file /state/phrase --passphrase-file /state/pw --gib 1 --days 30
inside mount /mnt/home
inside findmnt -n -o FSTYPE,SOURCE /mnt/home
inside sh -c 'echo from the package > /mnt/home/file; cat /mnt/home/file'
inside umount /mnt/home
inside mount -t cessfs home /mnt/home -o home=/state,passphrase-file=/state/pw
inside cat /mnt/home/file
inside cessfs --home /state umount /mnt/home
inside mount -t fuse.cessfs home /mnt/home -o home=/state,passphrase-file=/state/pw
inside cat /mnt/home/file
inside cessfs --home /state umount /mnt/home
"#;

fn build(out: &Path) -> Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("tests/ has a parent")?;
    let binaries = cessfs_tests::process::binary("cessfs")?;
    let built = Command::new("bash")
        .arg(repository.join("packaging/deb.sh"))
        .arg(out)
        .env("CESSFS_BIN_DIR", binaries.parent().context("a binary has a directory")?)
        .output()?;
    anyhow::ensure!(
        built.status.success(),
        "packaging/deb.sh: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("cessfs_") && name.ends_with(".deb")
    };
    let packages = std::fs::read_dir(out)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    packages.into_iter().find(named).context("no cessfs_*.deb was built")
}

#[test]
fn the_package_mounts_through_fstab_in_a_clean_root() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let deb = build(&dir.path().join("out"))?;
    let package = dir.path().join("package");
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&package).status()?;
    anyhow::ensure!(unpacked.success(), "dpkg-deb -x {}", deb.display());
    for file in [
        "usr/bin/cessfs",
        "usr/sbin/mount.cessfs",
        "usr/sbin/mount.fuse.cessfs",
        "usr/share/man/man1/cessfs.1.gz",
    ] {
        assert!(package.join(file).is_file(), "{file} is in the package");
    }
    assert!(
        !package.join("usr/bin/cessfs-devnet").exists(),
        "the devnet is a package of its own"
    );

    let network = Network::up(&dir.path().join("net"), 12)?;
    let used = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            IN_A_CLEAN_ROOT,
            "bash",
        ])
        .arg(&package)
        .arg(dir.path().join("root"))
        .arg(&network.ws)
        .output()?;
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&used.stdout),
        String::from_utf8_lossy(&used.stderr)
    );
    anyhow::ensure!(used.status.success(), "{said}");
    assert_eq!(said.matches("from the package").count(), 3, "{said}");
    assert!(said.contains("fuse.cessfs"), "{said}");
    Ok(())
}
