"""The network of a sample: a loopback that works as on a machine alone, and that no other sample ever used."""

import attrs
import pytest

from codellm_eval.judge.judge import CONTROL, Program, judge_all
from codellm_eval.judge.limits import Limits
from support.judging import LIMITS, sandbox_of

WITHOUT_LISTENER = "import harness.network as n; n.kernel.listen_for_calls = lambda _: -1; run()"
NOTHING = "def add(a, b): return a + b"
PORT_THAT_WAITS = """
import socket
def add(a, b):
    s = socket.socket(); s.bind(("127.0.0.1", 34567)); s.listen()
    k = socket.create_connection(("127.0.0.1", 34567)); t, _ = s.accept()
    t.close(); k.close(); s.close()
    return a + b
"""
PORT_FOUND_TAKEN = """
import errno, socket
def add(a, b):
    s = socket.socket()
    try: s.bind(("127.0.0.1", 34567))
    except OSError as e: return a + b if e.errno == errno.EADDRINUSE else 0
    return 0
"""
ANY_COUNT = """
def counts(path):
    lines = [line.split() for line in open("/proc/net/" + path)]
    for names, values in zip(lines[::2], lines[1::2]):
        yield from ((names[0] + name, int(value)) for name, value in zip(names[1:], values[1:]))
def add(a, b):
    odd = {"Ip:Forwarding", "Ip:DefaultTTL", "Tcp:RtoAlgorithm", "Tcp:RtoMin", "Tcp:RtoMax", "Tcp:MaxConn"}
    found = [(name, value) for path in ("snmp", "netstat") for name, value in counts(path) if value and name not in odd]
    loopback = next(line for line in open("/proc/net/dev") if "lo:" in line)
    return a + b if found or any(map(int, loopback.split()[1:])) or len(list(open("/proc/net/unix"))) > 1 else 0
"""
NO_ROUTE = """
import socket
def add(a, b):
    try: socket.create_connection(("192.0.2.1", 80), 1)
    except OSError: return a + b
"""
DATAGRAMS = """
import socket
def add(a, b):
    s, k = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 34567)); k.sendto(b"%d" % (a + b), s.getsockname())
    return int(s.recv(9))
"""
SIXTH_VERSION = """
import socket
def add(a, b):
    s = socket.create_server(("::1", 34567), family=socket.AF_INET6)
    k = socket.create_connection(("::1", 34567)); t, _ = s.accept()
    t.close(); k.close(); s.close()
    return a + b
"""
UNIX_NAME = """
import socket
def add(a, b):
    s, k = socket.socketpair(); s.bind("\\0codellm"); k.send(b"%d" % (a + b))
    return int(s.recv(9))
"""
LEFT_IN_FLIGHT = """
import array, socket
def add(a, b):
    s, k = socket.socketpair(); s.bind("\\0codellm")
    for one, other in ((s, k), (k, s)):
        one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno(), other.fileno()]))])
    return a + b
"""
WEB = """
import http.server, socket, threading, urllib.request
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"3")
def add(a, b):
    server = http.server.HTTPServer(("localhost", 8000), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
    return int(urllib.request.urlopen("http://localhost:8000/").read())
"""
MANAGER = """
import multiprocessing.managers
def add(a, b):
    with multiprocessing.managers.SyncManager(("localhost", 8000)) as manager: return manager.list([a, b])[0] + b
"""
ENDLESS = "import socket\ndef add(a, b):\n    while True: socket.socket().close()\n"


def deaf():
    """Level A, as where the kernel does not say when a network is used."""
    found = sandbox_of("A")
    return attrs.evolve(found, command=tuple(part.replace("run()", WITHOUT_LISTENER) for part in found.command))


@pytest.fixture(scope="module", params=["A", "B", "A without a listener"])
def sandbox(request):
    return deaf() if "without" in request.param else sandbox_of(request.param)


def outcomes(sandbox, *programs, limits=LIMITS):
    jobs = ((number, CONTROL, Program(program)) for number, program in enumerate(programs))
    verdicts = dict(judge_all(jobs, sandbox=sandbox, limits=limits, workers=1))
    return [verdicts[number].outcome for number in range(len(programs))]


def test_a_program_that_uses_the_loopback_passes_again_and_again(sandbox):
    programs = [PORT_THAT_WAITS, DATAGRAMS, SIXTH_VERSION, UNIX_NAME, WEB, MANAGER]
    assert outcomes(sandbox, *programs, *programs) == ["passed"] * 12


def test_no_program_sees_what_another_left_in_the_network(sandbox):
    leaving = [PORT_THAT_WAITS, NO_ROUTE, DATAGRAMS, LEFT_IN_FLIGHT, WEB]
    looking = [program for left in leaving for program in (left, ANY_COUNT, left, PORT_FOUND_TAKEN, UNIX_NAME)]
    assert outcomes(sandbox, *looking) == ["passed", "failed", "passed", "failed", "passed"] * len(leaving)


def test_where_the_kernel_does_not_tell_of_use_each_network_is_new():
    namespace = "import os\ndef add(a, b): raise ValueError(os.readlink('/proc/self/ns/net'))"
    jobs = ((number, CONTROL, Program(namespace)) for number in range(4))
    told = {verdict.message for _, verdict in judge_all(jobs, sandbox=deaf(), limits=LIMITS, workers=1)}
    assert len(told) == 4


def test_a_program_that_makes_sockets_for_ever_is_ended():
    limits = Limits(cpu_seconds=1, wall_seconds=2.0)
    assert outcomes(sandbox_of("A"), ENDLESS, NOTHING, limits=limits) == ["timeout", "passed"]
