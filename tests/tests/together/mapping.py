# One process writes every other block through a shared mapping, another allocates, zeroes and punches out those between, a
# third reads. Each block ends as its owner left it.
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
BLOCK, BLOCKS, ROUNDS = 4096, 768, 9
KEEP, PUNCH, ZERO = 1, 2, 16
def beside(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as e:
            print(work.__name__, repr(e), flush=True)
            os._exit(1)
    return pid
def mapped():
    fd = os.open("f", os.O_RDWR)
    shared = mmap.mmap(fd, BLOCK * BLOCKS)
    for turn in range(ROUNDS):
        for block in range(0, BLOCKS, 2):
            shared[block * BLOCK:(block + 1) * BLOCK] = bytes([turn + 1, block % 251]) * (BLOCK // 2)
        if turn % 3 == 0:
            shared.flush()
def punched():
    fd = os.open("f", os.O_RDWR)
    for turn in range(ROUNDS):
        for block in range(1, BLOCKS, 2):
            at = block * BLOCK
            os.pwrite(fd, b"between", at + 1000)
            mode = (KEEP | PUNCH, KEEP | ZERO, KEEP)[(block // 2 + turn) % 3]
            assert libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(BLOCK)) == 0, os.strerror(ctypes.get_errno())
def seen():
    fd = os.open("f", os.O_RDONLY)
    for turn in range(ROUNDS * 3):
        for block in range(BLOCKS):
            piece = os.pread(fd, BLOCK, block * BLOCK)
            assert len(piece) == BLOCK, (block, len(piece))
            if block % 2:
                assert piece.strip(b"\0") in (b"", b"between"), block
            else:
                assert set(piece[1::2]) <= {0, block % 251}, block
def check():
    for how in (0, os.O_DIRECT):
        fd = os.open("f", os.O_RDONLY | how)
        for block in range(BLOCKS):
            buffer = mmap.mmap(-1, BLOCK)
            assert os.preadv(fd, [buffer], block * BLOCK) == BLOCK
            piece = buffer[:]
            if block % 2 == 0:
                assert piece == bytes([ROUNDS, block % 251]) * (BLOCK // 2), (how, block, piece[:8])
            else:
                kept = (block // 2 + ROUNDS - 1) % 3 == 2
                assert piece.strip(b"\0") == (b"between" if kept else b""), (how, block, piece[996:1010])
with open("f", "wb") as f:
    f.truncate(BLOCK * BLOCKS)
children = [beside(work) for work in (mapped, punched, seen)]
assert all(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)
check()
os.sync()
check()
