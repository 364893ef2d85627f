"""What no program gets more of than its limits, by whatever way, at each level of isolation that works here."""

import pytest

from codellm_eval.judge.judge import CONTROL, judge_all
from codellm_eval.judge.limits import Limits
from support.judging import LIMITS, add, sandbox_of

DISK = """
    import array, ctypes, mmap, os, socket, tempfile, time
    L = ctypes.CDLL(None); L.mmap.restype = ctypes.c_void_p
    L.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    def file(name='x', size=15 << 20):
        d = os.open(os.path.join(tempfile.gettempdir(), name), os.O_CREAT | os.O_RDWR)
        for _ in range(size >> 20): os.write(d, bytes(1 << 20))
        return d, os.path.join(tempfile.gettempdir(), name)
"""
TOO_MUCH_DISK = {
    "named": "for n in range(6): file(str(n))",
    "open without a name": "for n in range(6): os.unlink(file()[1])",
    "never named": "all = [tempfile.TemporaryFile() for _ in range(6)]; [f.write(bytes(15 << 20)) for f in all]",
    "mapped alone": """
    for n in range(6):
        d, name = file(); os.unlink(name); L.mmap(None, 4096, 1, 1, d, 0); os.close(d)""",
    "mapped alone from names of their own, private": """
    for n in range(6):
        d, name = file(f'{n} \\n'); os.unlink(name); L.mmap(None, 4096, 1, 2, d, 4096); os.close(d)""",
    "mapped by Python": """
    all = []
    for n in range(6): d, name = file(); os.unlink(name); all.append(mmap.mmap(d, 15 << 20)); os.close(d)""",
    "in folders that are gone": """
    for n in range(6):
        os.mkdir(os.path.join(tempfile.gettempdir(), 'y')); d, name = file('y/x'); os.unlink(name)
        L.mmap(None, 4096, 1, 1, d, 0); os.close(d); os.rmdir(os.path.dirname(name))""",
    "replaced": """
    for n in range(6): d, name = file(); file('y', 0); os.rename(os.path.join(tempfile.gettempdir(), 'y'), name)""",
    "allocated": "for n in range(6): os.posix_fallocate(file(str(n), 0)[0], 0, 15 << 20)",
}
ENOUGH_DISK = {
    "written over and over": "for n in range(10): d, name = file(size=8 << 20); os.close(d); os.unlink(name)",
    "a temporary file": "with tempfile.TemporaryFile() as f: f.write(bytes(8 << 20))",
    "mapped": "d, name = file(size=1 << 20); os.unlink(name); m = mmap.mmap(d, 1 << 20); m[:3] = b'abc'",
    "allocated": "d, name = file(size=0); os.posix_fallocate(d, 0, 1 << 20); os.fstat(d).st_size == 1 << 20 or 1 / 0",
    "synced": "d, name = file(size=1 << 20); os.fsync(d); os.sync()",
}
MEMORY = """
    import ctypes, mmap, os, socket, time
    L = ctypes.CDLL(None); L.mmap.restype = ctypes.c_void_p
    L.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    L.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    def dropped(size=60 << 20):
        m = mmap.mmap(-1, size); m.write(bytes(size)); m.madvise(mmap.MADV_DONTNEED); return m
    def one_page(size, flags=0x21, fd=-1, keep=0):
        p = L.mmap(None, size, 3, flags, fd, 0); ctypes.memset(p, 1, size)
        L.munmap(p, keep); L.munmap(p + keep + 4096, size - keep - 4096)
    def full(s):
        s.setblocking(False)
        try:
            while True: s.send(bytes(1 << 16))
        except OSError: pass
"""
TOO_MUCH_MEMORY = {
    "shared and dropped by children": """
    for _ in range(4):
        if os.fork() == 0: m = dropped(); time.sleep(30)""",
    "shared, of which the first page is left": "for _ in range(6): one_page(40 << 20)",
    "shared, of which the last page is left": "for _ in range(6): one_page(40 << 20, keep=(40 << 20) - 4096)",
    "zeros mapped shared": "for _ in range(6): one_page(40 << 20, 1, os.open('/dev/zero', os.O_RDWR))",
    "shared by another name of the flag": "for _ in range(6): one_page(40 << 20, 3, os.open('/dev/zero', os.O_RDWR))",
    "files in memory and processes": """
    for n in range(4): open(f'/tmp/{n}', 'wb').write(bytes(15 << 20))
    for _ in range(2):
        if os.fork() == 0: x = bytearray(b'x') * (50 << 20); time.sleep(30)""",
    "what connections hold": """
    for _ in range(4):
        if os.fork() == 0:
            s = socket.create_server(('127.0.0.1', 0)); all = []
            for _ in range(15):
                all += [socket.create_connection(s.getsockname()), s.accept()[0]]; full(all[-1]); full(all[-2])
            time.sleep(30)""",
}
ENOUGH_MEMORY = {
    "shared one after the other": "for _ in range(30): m = mmap.mmap(-1, 60 << 20); m[:3] = b'abc'; m.close()",
    "shared with children": """
    m = mmap.mmap(-1, 100 << 20)
    for _ in range(4):
        if os.fork() == 0: m[5] = 7; os._exit(0)
        os.wait()
    m[5] == 7 or 1 / 0""",
    "shared of every size": "all = [mmap.mmap(-1, 4096 << n) for n in range(12)]; [m.close() for m in all]",
    "a file mapped": """
    with open('/tmp/x', 'w+b') as f: f.truncate(1 << 20); m = mmap.mmap(f.fileno(), 0); m[:3] = b'abc'""",
    "more than there is, refused": """
    try: mmap.mmap(-1, 1 << 40)
    except OSError: pass
    else: 1 / 0""",
    "dropped once": "dropped(); time.sleep(0.2)",
}
HOLDING_UP = {
    "a lease": "fcntl.fcntl(f, 1024, 0)",
    "a lease on a library's file": "fcntl.fcntl(open(os.__file__), 1024, 0)",
    "a lease to write": "fcntl.fcntl(f, 1024, 1)",
    "a notice of a folder": "fcntl.fcntl(os.open('.', os.O_RDONLY), 1026, 1)",
    "a watch": "call(L.inotify_init1, 0)",
    "a queue of messages": "call(L.mq_open, b'/x', 66, 0o600, None)",
    "requests to the disk": "call(L.syscall, 206 if os.uname().machine == 'x86_64' else 0, 1, ctypes.byref(context))",
    "pages given away": "r, w = os.pipe(); call(L.vmsplice, w, ctypes.byref((ctypes.c_void_p * 2)()), 1, 0)",
    "its place when memory ends": "open('/proc/self/oom_score_adj', 'w').write('0')",
    "its place by its number": "open(f'/proc/{os.getpid()}/oom_adj', 'w').write('-17')",
    "memory that stays": "call(L.mlock, ctypes.create_string_buffer(1 << 16), 1 << 16)",
    "priority": "os.nice(-1)",
    "a processor for itself": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
}
HOLDER = """
    import ctypes, fcntl, os, tempfile
    context = ctypes.c_long()
    L = ctypes.CDLL(None, use_errno=True); f = tempfile.TemporaryFile()
    def call(function, *arguments):
        if function(*arguments) < 0: raise OSError(ctypes.get_errno(), 'no')
    try: {}
    except OSError: return a + b
"""


def judge_at(level, programs, limits=LIMITS):
    jobs = [(name, CONTROL, f"{text}\n    return a + b\n") for name, text in programs.items()]
    return dict(judge_all(jobs, sandbox=sandbox_of(level), limits=limits, workers=2))


def test_files_count_on_the_disk_however_they_are_held():
    wait = "\n    time.sleep(30)"
    verdicts = judge_at("C", {name: f"{DISK}    {lines.lstrip()}{wait}" for name, lines in TOO_MUCH_DISK.items()})
    found = {name: (verdict.outcome, verdict.message) for name, verdict in verdicts.items()}
    assert found == dict.fromkeys(
        TOO_MUCH_DISK, ("failed", "it wrote more files, or larger ones, than its folder may hold")
    )


@pytest.mark.parametrize("level", ["A", "B"])
def test_memory_counts_wherever_it_lies(level):
    wait = "\n    time.sleep(30)"
    programs = {name: f"{MEMORY}    {lines.lstrip()}{wait}" for name, lines in TOO_MUCH_MEMORY.items()}
    verdicts = judge_at(level, programs, Limits.of(8, memory=160))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(programs, "memory"), verdicts


def test_shared_memory_counts_where_a_program_is_alone():
    programs = {name: f"{MEMORY}    {TOO_MUCH_MEMORY[name]}" for name in TOO_MUCH_MEMORY if "page is left" in name}
    verdicts = judge_at("C", programs, Limits.of(8, memory=160))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(programs, "memory"), verdicts


@pytest.mark.parametrize("level", ["A", "B"])
def test_shared_memory_is_there_within_the_limit(level):
    programs = {name: f"{MEMORY}    {lines.lstrip()}" for name, lines in ENOUGH_MEMORY.items()}
    verdicts = judge_at(level, programs, Limits.of(8, memory=160))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(programs, "passed"), verdicts


@pytest.mark.parametrize("level", ["A", "C"])
def test_a_program_may_use_its_folder_as_any(level):
    verdicts = judge_at(level, {name: f"{DISK}    {lines}" for name, lines in ENOUGH_DISK.items()})
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(ENOUGH_DISK, "passed"), (
        verdicts
    )


def test_an_open_file_cannot_be_sent_to_where_nobody_counts_it():
    send = "    import socket\n    x, y = socket.socketpair()\n    socket.send_fds(x, [b'x'], [0])\n    return a + b\n"
    assert add(send, sandbox_of("C")).outcome == "failed"


@pytest.mark.parametrize("level", ["A", "B", "C"])
def test_a_program_holds_nobody_up(level):
    """Each is refused, and otherwise its program answers None."""
    programs = {name: HOLDER.format(line) + "    return None" for name, line in HOLDING_UP.items()}
    verdicts = judge_at(level, programs, Limits(cpu_seconds=3, wall_seconds=12))
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == dict.fromkeys(HOLDING_UP, "passed"), (
        verdicts
    )


@pytest.mark.parametrize("level", ["A", "B"])
def test_the_kernel_ends_a_program_before_anything_else(level):
    assert add(
        "    return 3 if open('/proc/self/oom_score_adj').read().strip() == '1000' else 0", sandbox_of(level)
    ).passed


def test_the_buffers_of_a_socket_keep_their_size():
    program = """
    import socket
    x, y = socket.socketpair()
    before = [x.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33): x.setsockopt(socket.SOL_SOCKET, name, 1 << 22)
    x.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    after = [x.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    return 3 if before == after and x.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) else 0
"""
    for level in "AC":
        assert add(program, sandbox_of(level)).passed
