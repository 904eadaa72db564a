# SQLite in both journal modes: one writer moves money, readers in other processes always see the same sum.
python3 - <<'END'
import os, signal, sqlite3, sys, time

def connect(name):
    return sqlite3.connect(name, timeout=30, isolation_level=None)

def write(name):
    db = connect(name)
    for n in range(300):
        db.execute("begin immediate")
        db.execute("update account set balance = balance - 7 where id = ?", (n % 50,))
        db.execute("update account set balance = balance + 7 where id = ?", ((n * 13 + 1) % 50,))
        db.execute("insert into log values (?, ?)", (n, "x" * (n % 900)))
        db.execute("rollback" if n % 10 == 9 else "commit")

def read(name):
    db, seen = connect(name), 0
    while seen < 270:
        db.execute("begin")
        total, = db.execute("select sum(balance) from account").fetchone()
        assert total == 5000, total
        now, = db.execute("select count(*) from log").fetchone()
        assert now >= seen, (now, seen)
        seen = now
        db.execute("commit")
        time.sleep(0.005)

for mode in ("wal", "delete", "truncate"):
    name = f"{mode}.db"
    db = connect(name)
    assert db.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
    db.execute("create table account (id integer primary key, balance integer)")
    db.execute("create table log (n integer, text)")
    db.executemany("insert into account values (?, 100)", [(n,) for n in range(50)])
    db.close()
    children = set()
    for work in (write, read, read, read):
        pid = os.fork()
        if pid == 0:
            try:
                work(name)
                os._exit(0)
            except BaseException as e:
                print(mode, work.__name__, e, flush=True)
                os._exit(1)
        children.add(pid)
    while children:
        pid, status = os.wait()
        children.remove(pid)
        if os.waitstatus_to_exitcode(status) != 0:
            # Readers without a writer would wait for ever.
            for other in children:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"{mode}: failed")
    db = connect(name)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    assert db.execute("select count(*), (select sum(balance) from account) from log").fetchone() == (270, 5000)
END
