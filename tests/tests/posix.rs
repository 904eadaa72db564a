//! What programs assume of a filesystem, through a real mount, in both at-rest modes.

use anyhow::{Context, Result};
use cessfs_tests::modes::on_each_mode;
use cessfs_tests::tree;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| program.to_string())?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(output.status.success(), "{program} {arguments:?}: {said}");
    Ok(said)
}

#[test]
fn names_links_and_attributes() -> Result<()> {
    on_each_mode(
        |at| {
            let a = at.join("a");
            fs::write(&a, "one")?;
            fs::set_permissions(&a, fs::Permissions::from_mode(0o640))?;
            fs::hard_link(&a, at.join("b"))?;
            assert_eq!(fs::metadata(&a)?.nlink(), 2);
            fs::create_dir_all(at.join("d/e"))?;
            assert_eq!(fs::metadata(at)?.nlink(), 3);
            assert_eq!(fs::metadata(at.join("d"))?.nlink(), 3);
            fs::rename(at.join("b"), at.join("d/e/c"))?;
            assert_eq!(fs::metadata(at.join("d/e/c"))?.ino(), fs::metadata(&a)?.ino());
            symlink("a", at.join("s"))?;
            assert_eq!(fs::read_to_string(at.join("s"))?, "one");
            assert_eq!(
                fs::remove_dir(at.join("d")).unwrap_err().raw_os_error(),
                Some(libc::ENOTEMPTY)
            );
            assert_eq!(fs::create_dir(&a).unwrap_err().raw_os_error(), Some(libc::EEXIST));
            assert_eq!(fs::read_dir(&a).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
            let long = at.join("x".repeat(256));
            assert_eq!(
                fs::write(long, "").unwrap_err().raw_os_error(),
                Some(libc::ENAMETOOLONG)
            );
            fs::write(at.join("x".repeat(255)), "longest name")?;
            fs::write(at.join("ümläut \u{1F980}\n*"), "any bytes")?;
            run("mkfifo", &[at.join("fifo").to_str().context("utf-8")?])?;
            run(
                "touch",
                &["-d", "2040-02-29 12:34:56.123456789 UTC", a.to_str().context("utf-8")?],
            )?;
            Ok(())
        },
        |at| {
            let metadata = fs::metadata(at.join("a"))?;
            assert_eq!(
                (metadata.mode() & 0o7777, metadata.nlink(), metadata.size()),
                (0o640, 2, 3)
            );
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (2_214_131_696, 123_456_789));
            Ok(())
        },
    )
}

#[test]
fn a_file_unlinked_while_open_lives_until_it_is_closed() -> Result<()> {
    on_each_mode(
        |at| {
            let path = at.join("ghost");
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.write_all(&tree::noise(5, 3 << 20))?;
            fs::remove_file(&path)?;
            assert!(!path.exists());
            assert_eq!(file.metadata()?.nlink(), 0);
            file.seek(SeekFrom::Start(1 << 20))?;
            let mut found = vec![0; 4096];
            file.read_exact(&mut found)?;
            assert_eq!(found, &tree::noise(5, 3 << 20)[1 << 20..(1 << 20) + 4096]);
            Ok(())
        },
        |at| {
            assert!(!at.join("ghost").exists());
            Ok(())
        },
    )
}

#[test]
fn content_is_what_was_written_wherever_it_was_written() -> Result<()> {
    on_each_mode(
        |at| {
            let path = at.join("sparse");
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.write_all_at(b"far away", 10 << 20)?;
            file.sync_all()?;
            // The kernel asks for the blocks of a file that is being written only after some handle of it was closed.
            drop(OpenOptions::new().write(true).open(&path)?);
            let metadata = file.metadata()?;
            assert_eq!(metadata.size(), (10 << 20) + 8);
            assert_eq!(
                metadata.blocks(),
                8,
                "one block of 4096 bytes is allocated, the rest is a hole"
            );
            file.write_all_at(&[7; 3], (1 << 20) - 1)?;
            let mut found = [1u8; 5];
            file.read_exact_at(&mut found, (1 << 20) - 2)?;
            assert_eq!(found, [0, 7, 7, 7, 0]);
            file.set_len((1 << 20) + 1)?;
            file.set_len(5 << 20)?;
            file.read_exact_at(&mut found, (1 << 20) - 2)?;
            assert_eq!(found, [0, 7, 7, 0, 0], "what truncation cut off does not come back");
            // Small, outgrowing its inline place, and appended to.
            let mut log = OpenOptions::new().append(true).create(true).open(at.join("log"))?;
            for i in 0..2000 {
                writeln!(log, "line {i:04}")?;
            }
            assert_eq!(fs::read_to_string(at.join("log"))?.lines().count(), 2000);
            let exclusive = OpenOptions::new().write(true).create_new(true).open(at.join("log"));
            assert_eq!(exclusive.unwrap_err().raw_os_error(), Some(libc::EEXIST));
            let nofollow = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_TRUNC)
                .open(at.join("log"))?;
            assert_eq!(nofollow.metadata()?.size(), 0);
            Ok(())
        },
        |at| {
            let mut found = Vec::new();
            File::open(at.join("sparse"))?.read_to_end(&mut found)?;
            assert_eq!(found.len(), 5 << 20);
            assert_eq!(found.iter().filter(|byte| **byte == 7).count(), 2);
            Ok(())
        },
    )
}

#[test]
fn extended_attributes() -> Result<()> {
    on_each_mode(
        |at| {
            let path = at.join("file");
            fs::write(&path, "x")?;
            let path = path.to_str().context("utf-8")?;
            run("setfattr", &["-n", "user.colour", "-v", "green", path])?;
            run("setfattr", &["-n", "user.empty", path])?;
            run("setfattr", &["-n", "user.gone", "-v", "soon", path])?;
            run("setfattr", &["-x", "user.gone", path])?;
            assert!(run("setfattr", &["-x", "user.gone", path]).is_err());
            Ok(())
        },
        |at| {
            let said = run(
                "getfattr",
                &["--absolute-names", "-d", at.join("file").to_str().context("utf-8")?],
            )?;
            assert!(
                said.contains("user.colour=\"green\"") && said.contains("user.empty") && !said.contains("gone"),
                "{said}"
            );
            Ok(())
        },
    )
}

#[test]
fn a_directory_lists_each_entry_once_while_others_change() -> Result<()> {
    on_each_mode(
        |at| {
            for i in 0..2500 {
                fs::write(at.join(format!("keep-{i}")), "")?;
                fs::write(at.join(format!("drop-{i}")), "")?;
            }
            let mut kept = std::collections::HashMap::new();
            for (n, entry) in fs::read_dir(at)?.enumerate() {
                let name = entry?.file_name().into_string().expect("utf-8");
                if n < 2500 {
                    fs::remove_file(at.join(format!("drop-{n}")))?;
                }
                *kept.entry(name).or_insert(0) += 1;
            }
            for i in 0..2500 {
                assert_eq!(kept.get(&format!("keep-{i}")), Some(&1), "keep-{i}");
            }
            Ok(())
        },
        |_| Ok(()),
    )
}

#[test]
fn real_programs_work_on_it() -> Result<()> {
    on_each_mode(
        |at| {
            let at = at.to_str().context("utf-8")?;
            let script = format!(
                "set -eu; cd {at}; export HOME={at} GIT_CONFIG_GLOBAL=/dev/null
                 mkdir repo && cd repo && git init -q && git config user.email a@b && git config user.name n
                 for i in $(seq 300); do echo line $i > f$i; done
                 git add -A && git commit -qm one && git gc -q && git fsck --strict
                 git clone -q --no-local . ../clone && git -C ../clone fsck
                 cd .. && tar cf t.tar repo && mkdir un && tar xf t.tar -C un && diff -r repo un/repo
                 sqlite3 wal.db 'pragma journal_mode=wal; create table t(a); with recursive c(x) as (select 1 union all select x+1 from c where x<5000) insert into t select x from c; pragma integrity_check;' | tail -1 | grep -qx ok
                 sqlite3 del.db 'pragma journal_mode=delete; create table t(a); insert into t values(1); update t set a=2; pragma integrity_check;' | tail -1 | grep -qx ok
                 rsync -aHX repo/ rs/ && test -z \"$(rsync -aHXni repo/ rs/)\"
                 echo draft > doc.tmp && sync doc.tmp && mv doc.tmp doc && grep -q draft doc
                 cp --sparse=always t.tar t2.tar && cmp t.tar t2.tar
                 find . -type f | wc -l > count"
            );
            run("bash", &["-c", &script]).map(drop)
        },
        |at| {
            let db = at.join("wal.db");
            let said = run(
                "sqlite3",
                &[
                    db.to_str().context("utf-8")?,
                    "select count(*) from t; pragma integrity_check;",
                ],
            )?;
            assert_eq!(said.trim(), "5000\nok");
            run(
                "git",
                &["-C", at.join("repo").to_str().context("utf-8")?, "fsck", "--strict"],
            )
            .map(drop)
        },
    )
}

#[test]
fn what_changes_later_is_never_older() -> Result<()> {
    on_each_mode(
        |at| {
            // Directories are stamped by the daemon, cached writes by the kernel: make(1) compares the two.
            for i in 0..300 {
                let (before, after) = (at.join(format!("d{i}")), at.join(format!("f{i}")));
                fs::create_dir(&before)?;
                fs::write(&after, "later")?;
                let time = |path| fs::metadata(path).map(|m| (m.mtime(), m.mtime_nsec()));
                assert!(time(&before)? <= time(&after)?, "f{i} is older than d{i}");
            }
            Ok(())
        },
        |_| Ok(()),
    )
}

#[test]
fn times_reach_as_far_as_the_kernel_lets_them() -> Result<()> {
    const TIMES: [(i64, i64); 7] = [
        (i64::MIN, 0),
        (i64::MAX, 0),
        (-62_135_596_800, 1),
        (-2_147_483_648, 0),
        (-2, 999_999_999),
        (-1, 1),
        (15_032_385_535, 999_999_999), // 2446
    ];
    let told = |path: &Path| fs::metadata(path).map(|m| (m.mtime(), m.mtime_nsec()));
    on_each_mode(
        |at| {
            for (n, (secs, nanos)) in TIMES.into_iter().enumerate() {
                let path = at.join(format!("t{n}"));
                let file = File::create(&path)?;
                let time = nix::sys::time::TimeSpec::new(secs, nanos);
                nix::sys::stat::futimens(&file, &time, &time)?;
                assert_eq!(told(&path)?, (secs, nanos));
            }
            Ok(())
        },
        |at| {
            for (n, time) in TIMES.into_iter().enumerate() {
                assert_eq!(told(&at.join(format!("t{n}")))?, time);
            }
            Ok(())
        },
    )
}
