# How editors save: by a new file and a rename, or in place. Mode, list and attributes stay.
for how in yes no auto; do
    printf 'one\ntwo\n' >text; chmod 640 text; setfacl -m u:1001:rw text; setfattr -n user.a -v kept text
    vim -es -N -u NONE -i NONE -c "set backup writebackup backupskip= backupcopy=$how" -c '1s/one/ONE/' -c wq text
    test "$(tr '\n' ' ' <text)" = 'ONE two '; test -e text~
    getfacl -cn text | grep -q user:1001:rw-; test "$(stat -c %a text)" = 660
    rm text text~
done
python3 - <<'END'
import fcntl, os, tempfile

def glib(name, content):
    """g_file_set_contents: a temporary beside it, fsync, rename over it."""
    fd, temporary = tempfile.mkstemp(prefix=".goutputstream-", dir=".")
    os.write(fd, content)
    os.fsync(fd)
    os.close(fd)
    os.chmod(temporary, 0o644)
    os.rename(temporary, name)

def libreoffice(name, content):
    """A lock file, a locked original, a temporary, and its content copied over the original."""
    lock = f".~lock.{name}#"
    os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    original = os.open(name, os.O_RDWR | os.O_CREAT)
    fcntl.lockf(original, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fd, temporary = tempfile.mkstemp(prefix="lu", suffix=".tmp", dir=".")
    os.write(fd, content)
    os.fsync(fd)
    os.ftruncate(original, 0)
    os.lseek(fd, 0, os.SEEK_SET)
    os.sendfile(original, fd, 0, len(content))
    os.fsync(original)
    os.unlink(temporary)
    os.close(original)
    os.unlink(lock)

for save in (glib, libreoffice):
    for size in (10, 5000, 3_000_000):
        for round in range(3):
            content = bytes([round]) * (size + round)
            save("document", content)
            assert open("document", "rb").read() == content, (save, size)
assert os.listdir(".") == ["document"], os.listdir(".")
END
