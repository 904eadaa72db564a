"""Two processes and one file in the current directory; see tests/tests/locks.rs."""

import errno
import fcntl
import os
import signal
import struct
import sys
import time

NAME = "locked"
PATIENCE_S = 20
OFD_SETLK, OFD_SETLKW = 37, 38  # fcntl.h of Linux; Python names them since 3.9 only


def opened(flags=os.O_RDWR | os.O_CREAT):
    return os.open(NAME, flags, 0o644)


def record(fd, kind, start=0, length=0, command=fcntl.F_SETLK):
    """Takes (or with F_UNLCK leaves) a lock; None, or the errno."""
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
    except OSError as e:
        return e.errno
    return None


def flock(fd, how):
    try:
        fcntl.flock(fd, how)
    except OSError as e:
        return e.errno
    return None


def elsewhere(work):
    """What `work` returns (a small number or None) in another process."""
    pid = start(work)
    return ended(pid)


def start(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE_S)
        try:
            os._exit(work() or 0)
        finally:
            os._exit(255)
    return pid


def ended(pid):
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status), f"the other process ended by signal {os.WTERMSIG(status)}"
    return os.WEXITSTATUS(status) or None


def signalled():
    """A pipe: (wait until told, tell)."""
    r, w = os.pipe()
    return lambda: os.read(r, 1) and None, lambda: os.write(w, b"x") and None


BUSY = (errno.EAGAIN, errno.EACCES)


def records_exclude_each_other_by_range():
    fd = opened()
    assert record(fd, fcntl.F_WRLCK, 100, 50) is None
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK, 149, 1)) in BUSY
    assert elsewhere(lambda: record(opened(), fcntl.F_RDLCK, 0, 0)) in BUSY
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK, 150, 10)) is None
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)

    def holder():
        told = struct.unpack("hhqqi4x", fcntl.fcntl(opened(), fcntl.F_GETLK, asked))
        return 1 if told == (fcntl.F_WRLCK, os.SEEK_SET, 100, 50, os.getppid()) else 2

    assert elsewhere(holder) == 1
    assert record(fd, fcntl.F_UNLCK, 120, 10) is None
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK, 120, 10)) is None


def readers_share():
    fd = opened()
    assert record(fd, fcntl.F_RDLCK) is None
    assert elsewhere(lambda: record(opened(), fcntl.F_RDLCK)) is None
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK)) in BUSY


def a_waiter_gets_the_lock_when_it_is_free():
    fd = opened()
    assert record(fd, fcntl.F_WRLCK) is None
    held = time.monotonic()

    def wait():
        assert record(opened(), fcntl.F_WRLCK, command=fcntl.F_SETLKW) is None
        return 1 if time.monotonic() - held >= 0.3 else 2

    pid = start(wait)
    time.sleep(0.3)
    assert record(fd, fcntl.F_UNLCK) is None
    assert ended(pid) == 1


def a_circle_of_waiters_is_refused():
    fd = opened()
    assert record(fd, fcntl.F_WRLCK, 0, 1) is None
    wait, tell = signalled()

    def other():
        mine = opened()
        assert record(mine, fcntl.F_WRLCK, 1, 1) is None
        tell()
        return record(mine, fcntl.F_WRLCK, 0, 1, fcntl.F_SETLKW)

    pid = start(other)
    wait()
    time.sleep(0.2)
    assert record(fd, fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW) == errno.EDEADLK
    assert record(fd, fcntl.F_UNLCK) is None
    assert ended(pid) is None


def closing_any_descriptor_releases_record_locks():
    fd, second = opened(), opened()
    assert record(fd, fcntl.F_WRLCK) is None
    os.close(second)
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK)) is None


def death_releases():
    wait, tell = signalled()

    def other():
        assert record(opened(), fcntl.F_WRLCK) is None
        assert flock(opened(), fcntl.LOCK_EX) is None
        tell()
        time.sleep(PATIENCE_S)

    pid = start(other)
    wait()
    fd = opened()
    assert record(fd, fcntl.F_WRLCK) in BUSY
    assert flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert record(fd, fcntl.F_WRLCK) is None
    assert flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) is None


def flock_excludes_and_is_of_the_open_file():
    fd = opened()
    assert flock(fd, fcntl.LOCK_EX) is None
    assert elsewhere(lambda: flock(opened(), fcntl.LOCK_EX | fcntl.LOCK_NB)) == errno.EAGAIN
    assert elsewhere(lambda: flock(opened(), fcntl.LOCK_SH | fcntl.LOCK_NB)) == errno.EAGAIN
    # A child has the same open file, and a second open of ours is another one.
    assert elsewhere(lambda: flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None
    second = opened()
    assert flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
    os.close(second)
    assert elsewhere(lambda: flock(opened(), fcntl.LOCK_EX | fcntl.LOCK_NB)) == errno.EAGAIN
    # Down to shared, and record locks are another world.
    assert flock(fd, fcntl.LOCK_SH) is None
    assert elsewhere(lambda: flock(opened(), fcntl.LOCK_SH | fcntl.LOCK_NB)) is None
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK)) is None


def a_waiter_for_flock_gets_it():
    fd = opened()
    assert flock(fd, fcntl.LOCK_EX) is None
    held = time.monotonic()

    def wait():
        assert flock(opened(), fcntl.LOCK_EX) is None
        return 1 if time.monotonic() - held >= 0.3 else 2

    pid = start(wait)
    time.sleep(0.3)
    assert flock(fd, fcntl.LOCK_UN) is None
    assert ended(pid) == 1


def locks_of_open_files_exclude_and_outlive_other_closes():
    fd, second = opened(), opened()
    assert record(fd, fcntl.F_WRLCK, 0, 10, OFD_SETLK) is None
    # Even within one process, and against plain record locks.
    assert record(second, fcntl.F_WRLCK, 5, 1, OFD_SETLK) in BUSY
    assert record(second, fcntl.F_WRLCK, 10, 1, OFD_SETLK) is None
    os.close(second)
    assert elsewhere(lambda: record(opened(), fcntl.F_WRLCK, 5, 1)) in BUSY
    wait, tell = signalled()

    def other():
        os.close(fd)  # inherited: the same open file
        tell()
        return record(opened(), fcntl.F_WRLCK, 5, 1, OFD_SETLKW)

    pid = start(other)
    wait()
    time.sleep(0.2)
    os.close(fd)
    assert ended(pid) is None


TESTS = [
    records_exclude_each_other_by_range,
    readers_share,
    a_waiter_gets_the_lock_when_it_is_free,
    a_circle_of_waiters_is_refused,
    closing_any_descriptor_releases_record_locks,
    death_releases,
    flock_excludes_and_is_of_the_open_file,
    a_waiter_for_flock_gets_it,
    locks_of_open_files_exclude_and_outlive_other_closes,
]

if __name__ == "__main__":
    for test in TESTS:
        # Each in a process of its own: its end leaves no lock behind.
        if elsewhere(lambda: test() or 0) is None:
            print("ok", test.__name__, flush=True)
        else:
            sys.exit(f"{test.__name__} failed")
