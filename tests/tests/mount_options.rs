//! Mount options that every filesystem has: each does what mount(8) says of it, by `cessfs mount` and by `mount.cessfs`.

use anyhow::Result;
use cessfs_tests::Volume;
use cessfs_tests::modes::{bash, on_each_volume};
use cessfs_tests::process::{command, fail, succeed};
use std::path::Path;

/// Mounts with `options`, runs a script in the mount, unmounts.
fn with(volume: &Volume, at: &Path, options: &[&str], script: &str) -> Result<String> {
    let mount = volume.mount_with(at, options)?;
    let said = bash(mount.path(), script)?;
    mount.umount()?;
    Ok(said)
}

#[test]
fn a_read_only_mount_refuses_every_change() -> Result<()> {
    on_each_volume(|volume, at| {
        with(
            volume,
            at,
            &[],
            "mkdir -p d/empty; echo content >d/f; ln -s f d/s; setfattr -n user.a -v 1 d/f; chmod 666 d/f",
        )?;
        // Each of these would work on the same tree mounted for writing.
        let changes = [
            "touch d/new",
            "echo x >>d/f",
            "truncate -s 1 d/f",
            "truncate -s 0 d/f",
            "mkdir d/new",
            "rmdir d/empty",
            "rm -f d/f",
            "ln d/f d/hard",
            "ln -s f d/soft",
            "mv d/f d/g",
            "mv -T d/empty d/other",
            "mkfifo d/fifo",
            "mknod d/null c 1 3",
            "chmod 600 d/f",
            "chown 1 d/f",
            "touch -d 2000-01-01 d/f",
            "touch -a d",
            "touch -h d/s",
            "setfattr -n user.b -v 1 d/f",
            "setfattr -x user.a d/f",
            "setfacl -m u:1:r d/f",
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"d/socket\")'",
        ];
        let script = format!(
            "while read -r change; do no bash -c \"$change\"; done <<'END'\n{}\nEND
             test \"$(cat d/f)\" = content; test \"$(ls d | tr '\\n' ' ')\" = 'empty f s '
             test \"$(getfattr --only-values -n user.a d/f)\" = 1; test $(stat -c %a d/f) = 666",
            changes.join("\n")
        );
        let said = with(volume, at, &["ro"], &script)?;
        assert_eq!(said.matches("Read-only file system").count(), changes.len(), "{said}");
        Ok(())
    })
}

#[test]
fn programs_privileges_and_devices() -> Result<()> {
    on_each_volume(|volume, at| {
        with(
            volume,
            at,
            &[],
            "cp /usr/bin/id root-id; chmod 4755 root-id; cp /bin/true run; mknod zero c 1 5; chmod 666 zero",
        )?;
        let said = with(
            volume,
            at,
            &[],
            "findmnt -no OPTIONS -T . | tr , '\\n' | grep -E '^(nosuid|nodev|noexec|relatime|rw)$' | sort | tr '\\n' ' '; echo
             ./run; as 1001 ./root-id -u; no head -c 1 zero",
        )?;
        assert!(said.starts_with("nodev nosuid relatime rw \n1001\n"), "{said}");
        assert!(said.contains("Permission denied"), "{said}");
        let said = with(
            volume,
            at,
            &["suid", "dev"],
            "as 1001 ./root-id -u; as 1001 head -c 3 zero | od -An -tx1",
        )?;
        assert_eq!(said, "0\n 00 00 00\n");
        let said = with(
            volume,
            at,
            &["noexec"],
            "no ./run; bash -c 'no() { ! \"$@\"; }; no ./run'",
        )?;
        assert!(said.contains("Permission denied"), "{said}");
        Ok(())
    })
}

/// Prints for each reading whether it moved the access time of `what` (whose mtime is older): `moved` or `stayed`.
const READ_TWICE: &str = r#"
look() {
    for i in 1 2; do
        before=$(stat -c %.X "$1"); sleep 0.02; echo 3 >/proc/sys/vm/drop_caches; "${@:2}" >/dev/null
        test "$before" = "$(stat -c %.X "$1")" && echo stayed || echo moved
    done
}
echo content >f; rm -rf d; mkdir d; touch d/x; ln -sf f s; sleep 0.02; sync
look f cat f; look d ls d
"#;

#[test]
fn access_times() -> Result<()> {
    on_each_volume(|volume, at| {
        for (options, expected) in [
            (&[][..], "moved stayed moved stayed"),
            (&["relatime"], "moved stayed moved stayed"),
            (&["noatime"], "stayed stayed stayed stayed"),
            (&["strictatime"], "moved moved moved moved"),
            (&["strictatime", "nodiratime", "lazytime"], "moved moved stayed stayed"),
        ] {
            let said = with(volume, at, options, READ_TWICE)?;
            assert_eq!(
                said.split_whitespace().collect::<Vec<_>>().join(" "),
                expected,
                "{options:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn links_that_are_not_followed() -> Result<()> {
    on_each_volume(|volume, at| {
        let said = with(
            volume,
            at,
            &["nosymfollow"],
            "echo content >f; ln -s f s; readlink s; no cat s",
        )?;
        assert!(said.contains("f\n") && said.contains("symbolic links"), "{said}");
        assert_eq!(
            with(volume, at, &["symfollow,acl,user_xattr,_rnetdev"], "cat s")?,
            "content\n"
        );
        Ok(())
    })
}

#[test]
fn mount_cessfs_takes_the_same_options() -> Result<()> {
    on_each_volume(|volume, at| {
        with(volume, at, &[], "echo content >f")?;
        let helper = |options: &str| -> Result<std::process::Command> {
            let mut helper = command("mount-cessfs")?;
            let ours = format!("home={},{}", volume.home().display(), volume.secret_option());
            helper
                .arg(&volume.name)
                .arg(at)
                .args(["-o", &format!("{ours},{options}")]);
            Ok(helper)
        };
        // The words of a line in fstab, as mount(8) hands them on.
        succeed(&mut helper(
            "ro,noexec,nosuid,nodev,noatime,_netdev,nofail,x-systemd.automount,user=me",
        )?)?;
        let said = bash(
            at,
            "findmnt -no OPTIONS -T . | tr , '\\n' | grep -E '^(ro|nosuid|nodev|noexec|noatime)$' | sort | tr '\\n' ' '
             no touch new",
        );
        succeed(volume.cessfs()?.arg("umount").arg(at))?;
        let said = said?;
        assert!(said.starts_with("noatime nodev noexec nosuid ro "), "{said}");
        assert!(said.contains("Read-only file system"), "{said}");
        // `mount -o remount,rw` as mount(8) puts it.
        succeed(&mut helper("")?)?;
        let said = (|| {
            succeed(&mut helper("rw,relatime,remount,ro,user_id=0")?)?;
            bash(at, "no touch new")?;
            succeed(&mut helper("ro,relatime,remount,rw,noexec,user_id=0")?)?;
            bash(at, "touch new; rm new; findmnt -no OPTIONS -T .")
        })();
        succeed(volume.cessfs()?.arg("umount").arg(at))?;
        let said = said?;
        assert!(said.starts_with("rw,nosuid,nodev,noexec,"), "{said}");
        let (code, stderr) = fail(&mut helper("rx")?)?;
        assert!(
            code == 1 && stderr.contains("unknown mount option `rx`"),
            "{code}: {stderr}"
        );
        Ok(())
    })
}
