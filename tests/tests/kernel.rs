//! What the kernel keeps of a mount: pages of mappings, which it hands back later, and what it need not ask for twice.

use anyhow::{Context, Result};
use cessfs_tests::Mount;
use cessfs_tests::modes::{bash, on_each_kernel_mode};
use std::path::Path;

/// Bytes of files kept with their metadata, in the cache, and (plain) read and written by the kernel itself.
const SIZES: &str = "3000 5000 200000";

#[test]
fn a_mapping_of_a_file_opened_for_appending_is_written_in_its_place() -> Result<()> {
    on_each_kernel_mode(
        &[],
        |_, dir| {
            bash(
                dir,
                &format!(
                    r#"
for size in {SIZES}; do
    head -c $size /dev/urandom >$size; cp $size $size.model
done
# Looked at since, so that those that may be passed through are.
cat * >/dev/null
python3 - {SIZES} <<'END'
import mmap, os, sys
for name in sys.argv[1:]:
    with open(name + ".model", "r+b") as model:
        model.seek(100); model.write(b"in its place")
        model.seek(0, 2); model.write(b"at the end")
    fd = os.open(name, os.O_RDWR | os.O_APPEND)
    mapped = mmap.mmap(fd, int(name))
    mapped[100:112] = b"in its place"
    mapped.flush()
    os.write(fd, b"at the end")
    mapped.close()
    os.close(fd)
END
for size in {SIZES}; do cmp $size $size.model; done"#
                ),
            )
            .map(drop)
        },
        |_, dir| bash(dir, &format!("for size in {SIZES}; do cmp $size $size.model; done")).map(drop),
    )
}

/// Requests that the kernel's caches are there to save.
const SAVED: [&str; 6] = ["lookup", "getattr", "readlink", "readdir", "readdirplus", "read"];

/// Everything that is cached is asked for: attributes, a name that is not there, a link, a directory, content.
const ASK: &str = r#"
    ls -l dir >/dev/null
    stat . dir dir/5 link fifo >/dev/null
    no cat missing dir/missing >/dev/null
    test "$(readlink link)" = dir
    cat 3000 5000 200000 | wc -c"#;

/// Files that [`ASK`] reads. With the writeback cache the kernel asks for the attributes of a file again once it was closed, for its
/// blocks.
const FILES_READ: u64 = 3;

/// How many of each of the [`SAVED`] requests `work` costs.
fn requests(mount: &Mount, dir: &Path, work: &str) -> Result<Vec<u64>> {
    let counts = || -> Result<Vec<u64>> {
        let told = bash(dir, &format!("{}cessfs metrics home --json", mount.shell_function()?))?;
        let metrics: serde_json::Value = serde_json::from_str(&told)?;
        let stages = metrics.as_array().context("an array")?;
        let count = |name: &&str| {
            let of_it = |stage: &&serde_json::Value| stage["layer"] == "fuse" && stage["stage"] == **name;
            let stage = stages.iter().find(of_it).context("no such stage")?;
            stage["count"].as_u64().context("a count")
        };
        SAVED.iter().map(count).collect()
    };
    let before = counts()?;
    bash(dir, work)?;
    Ok(counts()?
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect())
}

#[test]
fn nothing_is_asked_for_twice() -> Result<()> {
    on_each_kernel_mode(
        &[],
        |_, dir| {
            bash(
                dir,
                "mkdir dir; touch dir/{1..50}; ln -s dir link; mkfifo fifo
                 for size in 3000 5000 200000; do head -c $size /dev/urandom >$size; done",
            )
            .map(drop)
        },
        |mount, dir| {
            let first = requests(mount, dir, ASK)?;
            let asked = |name| first[SAVED.iter().position(|saved| *saved == name).expect("one of them")];
            // Attributes come with names and listings.
            for name in ["lookup", "readlink", "readdirplus"] {
                anyhow::ensure!(asked(name) > 0, "the mount is new, and there was no {name}: {first:?}");
            }
            anyhow::ensure!(asked("lookup") < 20, "listed names are looked up: {first:?}");
            // Whoever makes the kernel drop its caches meanwhile, as other tests do, spoils one try and not all.
            let mut again = Vec::new();
            for _ in 0..10 {
                again = requests(mount, dir, ASK)?;
                let allowed = |name: &str| if name == "getattr" { FILES_READ } else { 0 };
                if SAVED.iter().zip(&again).all(|(name, count)| *count <= allowed(name)) {
                    return Ok(());
                }
            }
            anyhow::bail!("of {SAVED:?} the last repetition cost {again:?}, the first time {first:?}")
        },
    )
}

/// Ctrl-C and the like while a `close` hands over what was written: the kernel tells no times then, and never does again.
#[test]
fn a_process_killed_in_a_close_leaves_no_older_time_than_its_content() -> Result<()> {
    on_each_kernel_mode(
        &[],
        |_, dir| {
            bash(
                dir,
                r#"python3 - <<'END'
import os, random, time
for name in map(str, range(16)):
    with open(name, "wb") as file:
        file.write(b"old" * 1000000)
    os.utime(name, (1577836800, 1577836800))
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open(name, os.O_RDWR)
        os.pwrite(fd, b"new" * 1000000, 0)
        os.write(tell, b"written")
        os.close(fd)
        os._exit(0)
    os.read(told, 7)
    time.sleep(random.uniform(0, 0.01))
    os.kill(child, 9)
    os.waitpid(child, 0)
END"#,
            )
            .map(drop)
        },
        |_, dir| {
            bash(
                dir,
                r#"for f in *; do
    test "$(head -c 3 $f)" = new || { echo "$f is old"; exit 1; }
    test "$(stat -c %Y $f)" -gt 1577836800 || { echo "$f is new, its time is old"; exit 1; }
done"#,
            )
            .map(drop)
        },
    )
}

/// The kernel notes that it could not tell the times where it notes that pages were refused.
#[test]
fn a_process_killed_in_fallocate_is_no_write_that_was_refused() -> Result<()> {
    on_each_kernel_mode(
        &[],
        |mount, dir| {
            let work = r#"for round in {1..8}; do
    python3 - <<'END'
import ctypes, os, time
libc = ctypes.CDLL(None)
long = ctypes.c_long
children = []
for n in range(3):
    child = os.fork()
    if child == 0:
        fd = os.open(f"punched{n}", os.O_RDWR | os.O_CREAT)
        while True:
            os.pwrite(fd, bytes(8192), 0)
            libc.fallocate(fd, 3, long(0), long(4096))
    children.append(child)
time.sleep(0.05)
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
END
    cessfs sync home
done"#;
            bash(dir, &format!("{}{work}", mount.shell_function()?)).map(drop)
        },
        |_, _| Ok(()),
    )
}
