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
for source in home cess://home /state/volumes/home; do
    printf '%s /mnt/home cessfs home=/state,passphrase-file=/state/pw 0 0\n' "$source" > "$root/etc/all"
    for once_more in 1 2; do inside mount -a -T /etc/all; done
    test "$(inside findmnt -n -o SOURCE /mnt/home)" = "$source"
    inside cessfs --home /state explain /mnt/home/file > /dev/null
    inside cessfs --home /state umount /mnt/home
    inside cessfs --home /state status home > /dev/null
done
mkdir "$root/home"
printf 'home /mnt/home cessfs home=/state,passphrase-file=/state/pw 0 0\n' > "$root/etc/all"
for once_more in 1 2; do inside mount -a -T /etc/all; done
test "$(inside findmnt -n -o SOURCE /mnt/home)" = /home
inside cessfs --home /state explain /mnt/home/file > /dev/null
inside cessfs --home /state umount /mnt/home
inside mount -t fuse.cessfs home /mnt/home -o home=/state,passphrase-file=/state/pw
inside cat /mnt/home/file
inside cessfs --home /state umount /mnt/home
mount -t tmpfs tmpfs "$root/usr/local"
mkdir "$root/usr/local/bin"
cp "$package/usr/bin/cessfs" "$root/usr/local/bin/"
mount --bind /dev/null "$root/usr/bin/cessfs"
inside /usr/bin/env PATH=/usr/sbin:/sbin /usr/bin/mount /mnt/home
inside cat /mnt/home/file
inside umount /mnt/home
"#;

/// Builds both packages as `make deb` does, the client's programs and the devnet in two directories. The paths of the two.
fn build(dir: &Path) -> Result<[PathBuf; 2]> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("tests/ has a parent")?;
    let (client, out) = (dir.join("client"), dir.join("out"));
    std::fs::create_dir(&client)?;
    for program in ["cessfs", "mount-cessfs"] {
        std::os::unix::fs::symlink(cessfs_tests::process::binary(program)?, client.join(program))?;
    }
    let devnet = cessfs_tests::process::binary("cessfs-devnet")?;
    let built = Command::new("bash")
        .arg(repository.join("packaging/deb.sh"))
        .arg(&out)
        .env("CESSFS_BIN_DIR", &client)
        // Packages that are thrown away need not be small.
        .env("DEB_COMPRESSION", "none")
        .env(
            "CESSFS_DEVNET_DIR",
            devnet.parent().context("a binary has a directory")?,
        )
        .output()?;
    anyhow::ensure!(
        built.status.success(),
        "packaging/deb.sh: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    let packages = std::fs::read_dir(&out)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    let named = |start: &str| {
        let is_it = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(start) && name.ends_with(".deb")
        };
        let found = packages.iter().find(is_it);
        found
            .cloned()
            .with_context(|| format!("no {start}*.deb in {packages:?}"))
    };
    Ok([named("cessfs_")?, named("cessfs-devnet_")?])
}

#[test]
fn the_package_mounts_through_fstab_in_a_clean_root() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let [deb, devnet] = build(dir.path())?;
    let package = dir.path().join("package");
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&package).status()?;
    anyhow::ensure!(unpacked.success(), "dpkg-deb -x {}", deb.display());
    for file in [
        "usr/bin/cessfs",
        "usr/sbin/mount.cessfs",
        "usr/sbin/mount.fuse.cessfs",
        "usr/lib/systemd/system/cessfs@.service",
        "usr/lib/systemd/user/cessfs@.service",
        "usr/share/man/man1/cessfs.1.gz",
        "usr/share/man/man1/cessfs-mount.1.gz",
        "usr/share/man/man8/mount.cessfs.8.gz",
        "usr/share/bash-completion/completions/cessfs",
        "usr/share/zsh/vendor-completions/_cessfs",
        "usr/share/fish/vendor_completions.d/cessfs.fish",
        // Where `cessfs --help` says.
        "usr/share/doc/cessfs/CLI_ABI.md",
        // Where each volume.toml says, and that in turn.
        "usr/share/doc/cessfs/CONFIGURATION.md",
        "usr/share/doc/cessfs/SEMANTICS.md",
        "usr/share/doc/cessfs/THREATS.md",
    ] {
        assert!(package.join(file).is_file(), "{file} is in the package");
    }
    assert!(
        !package.join("usr/bin/cessfs-devnet").exists(),
        "the devnet is a package of its own"
    );
    let listed = Command::new("dpkg-deb").arg("-c").arg(&devnet).output()?.stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.contains("./usr/bin/cessfs-devnet"), "{listed}");
    assert!(!listed.lines().any(|line| line.ends_with("/cessfs")), "{listed}");

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
    assert_eq!(said.matches("from the package").count(), 4, "{said}");
    assert!(said.contains("fuse.cessfs"), "{said}");
    Ok(())
}
