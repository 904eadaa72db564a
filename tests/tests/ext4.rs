//! Corners in which programs hear from a mount what they hear from ext4.

use anyhow::Result;
use cessfs_tests::modes::{bash, on_each_kernel_mode};
use std::path::Path;

/// Runs a Python program in a directory of a mount in every mode.
fn in_each_mode(program: &str) -> Result<()> {
    let script = format!("chmod 777 .\npython3 - <<'END'\n{PRELUDE}\n{program}\nEND");
    on_each_kernel_mode(&["allow_other"], |_, dir| bash(dir, &script).map(drop), |_, _| Ok(()))
}

const PRELUDE: &str = r#"
import ctypes, errno, fcntl, os
libc = ctypes.CDLL(None, use_errno=True)
os.umask(0o022)
def told(work):
    ctypes.set_errno(0)
    try:
        return "ok" if work() != -1 else errno.errorcode[ctypes.get_errno()]
    except OSError as e:
        return errno.errorcode[e.errno]
def as_user(uid, work):
    os.setegid(uid); os.seteuid(uid)
    try:
        return told(work)
    finally:
        os.seteuid(0); os.setegid(0)
def made(name, size, mode=0o644):
    if os.path.exists(name):
        os.unlink(name)
    with open(name, "wb") as f:
        f.write(b"x" * size)
    os.chmod(name, mode)
"#;

#[test]
fn whether_a_write_appends_is_what_the_descriptor_says_now() -> Result<()> {
    in_each_mode(
        r#"
# What the kernel passes through it goes on appending to.
for size in (1000, 200000) if "auto" not in os.getcwd() else ():
    made("f", size)
    fd = os.open("f", os.O_RDWR | os.O_APPEND)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b"HEAD", 0)
    assert os.pread(fd, 4, 0) == b"HEAD" and os.stat("f").st_size == size, os.stat("f")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    os.pwrite(fd, b"TAIL", 0)
    os.close(fd)
    assert open("f", "rb").read() == b"HEAD" + b"x" * (size - 4) + b"TAIL"
"#,
    )
}

#[test]
fn a_chown_to_nobody_takes_set_id_bits_from_who_may() -> Result<()> {
    in_each_mode(
        r#"
mode = lambda: os.stat("f").st_mode & 0o7777
chown = lambda: os.chown("f", -1, -1)
for size in (10, 100000):
    made("f", size, 0o6755)
    assert as_user(1001, chown) == "EPERM" and mode() == 0o6755, oct(mode())
    chown()
    assert mode() == 0o755, oct(mode())
    os.chown("f", 1001, -1); os.chmod("f", 0o6755)
    assert as_user(1001, chown) == "ok" and mode() == 0o755, oct(mode())
    made("f", size, 0o6777)
    def write():
        fd = os.open("f", os.O_WRONLY); os.pwrite(fd, b"changed", 0); os.close(fd)
    assert as_user(1001, write) == "ok" and mode() == 0o777, oct(mode())
"#,
    )
}

#[test]
fn whiteouts_belong_to_who_makes_them_and_contradictions_are_refused() -> Result<()> {
    in_each_mode(
        r#"
os.mkdir("d"); os.chown("d", 1001, 50); os.chmod("d", 0o2777)
made("d/f", 1)
os.chown("d/f", 1001, 1001)
assert as_user(1001, lambda: libc.renameat2(-100, b"d/f", -100, b"d/g", 4)) == "ok"
left = os.lstat("d/f")
assert (left.st_mode, left.st_rdev, left.st_uid, left.st_gid) == (0o020000, 0, 1001, 50), left
made("f", 1)
both = lambda: libc.setxattr(b"f", b"user.a", b"1", 1, 3)
assert told(both) == "ENODATA"
os.setxattr("f", "user.a", b"1")
assert told(both) == "EEXIST"
"#,
    )
}

#[test]
fn a_file_handle_outlives_what_the_kernel_remembers() -> Result<()> {
    in_each_mode(
        r#"
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("f", ctypes.c_ubyte * 128)]
def handle(name):
    h, mount = Handle(bytes=128), ctypes.c_int()
    assert libc.name_to_handle_at(-100, name.encode(), ctypes.byref(h), ctypes.byref(mount), 0) == 0
    return h
os.makedirs("a/b")
made("a/b/f", 5); made("gone", 5)
handles = {name: handle(name) for name in ("a/b", "a/b/f", "gone")}
inode = {name: os.stat(name).st_ino for name in handles}
os.unlink("gone")
here = os.open(".", os.O_RDONLY)
os.sync(); open("/proc/sys/vm/drop_caches", "w").write("2")
for name, h in handles.items():
    fd = libc.open_by_handle_at(here, ctypes.byref(h), os.O_RDONLY)
    if name == "gone":
        assert fd == -1 and ctypes.get_errno() == errno.ESTALE
        continue
    assert fd >= 0, (name, errno.errorcode[ctypes.get_errno()])
    assert os.fstat(fd).st_ino == inode[name]
    if name == "a/b":
        assert os.stat("..", dir_fd=fd).st_ino == os.stat("a").st_ino
    os.close(fd)
"#,
    )
}

/// What `stat` says now, and what it says once the kernel has forgotten the file: `program` ends with the file open or closed.
fn times_stay(dir: &Path, program: &str) -> Result<()> {
    let script = format!(
        r#"python3 - <<'END'
{PRELUDE}
import time
fd = None
made("f", 70000); made("small", 10)
os.sync(); time.sleep(.05)
for name in ("f", "small"):
    size = os.stat(name).st_size
{program}
    time.sleep(.05)
    before = os.stat(name)
    os.sync(); time.sleep(1.2); os.sync()
    if fd is not None:
        os.close(fd); fd = None
    os.sync()
    open("/proc/sys/vm/drop_caches", "w").write("2")
    after = os.stat(name)
    moved = [(b - a) / 1e6 for a, b in ((before.st_mtime_ns, after.st_mtime_ns), (before.st_ctime_ns, after.st_ctime_ns))]
    assert moved == [0, 0], (name, moved)
END"#
    );
    bash(dir, &script).map(drop)
}

#[test]
fn times_do_not_move_when_nothing_happens() -> Result<()> {
    const PROGRAMS: [&str; 7] = [
        "    fd = os.open(name, os.O_RDWR); os.pwrite(fd, b'y', 1)",
        "    fd = os.open(name, os.O_RDWR); os.pwrite(fd, b'y', 1); time.sleep(.05); os.rename(name, 'r'); os.rename('r', name)",
        "    fd = os.open(name, os.O_RDWR); os.pwrite(fd, b'y', 1); time.sleep(.05); os.setxattr(name, 'user.k', b'1')",
        "    fd = os.open(name, os.O_RDWR); os.pwrite(fd, b'y', 1); time.sleep(.05); os.posix_fallocate(fd, 0, size)",
        "    os.truncate(name, size)",
        "    fd = os.open(name, os.O_RDWR); os.pwrite(fd, b'y', 1); time.sleep(.05); os.truncate(name, size)",
        "    import mmap; fd = os.open(name, os.O_RDWR); m = mmap.mmap(fd, size); m[0] = 65; time.sleep(.05); m[1] = 66; m.close()",
    ];
    on_each_kernel_mode(
        &[],
        |_, dir| {
            for program in PROGRAMS {
                times_stay(dir, program).map_err(|e| e.context(program))?;
            }
            Ok(())
        },
        |_, _| Ok(()),
    )
}
