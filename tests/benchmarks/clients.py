"""Servers in processes of their own, and a client that knows when each event of a stream came."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import psutil

PATIENCE = 180
"""Seconds in which a server has to listen: it loads its model first."""

LINE = 1 << 22
"""Bytes of the longest line that is read."""


@attrs.frozen
class Server:
    """A server that listens at `port` of this machine."""

    port: int
    process: psutil.Process

    def seconds(self) -> float:
        """What its threads have had of processors, to the nanosecond: `cpu_times` counts whole ticks of the clock."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to one request, which is JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    async def stream(self, path: str, body: Mapping[str, Any]) -> Streamed:
        """One request on a connection of its own, to its end."""
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=LINE)
        with contextlib.closing(writer):
            writer.write(request(self.port, path, {**body, "stream": True}, "close"))
            status = await reader.readline()
            if b" 200 " not in status:
                sys.exit(f"{path}: {(status + await reader.read()).decode()}")
            times, last = [], b""
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    times.append(time.perf_counter())
                    last = line
        if not times or b'"error"' in last:
            sys.exit(f"{path}: {last.decode()}")
        return Streamed(start, times, json.loads(last[6:]))


@attrs.frozen
class Streamed:
    """When a request was sent, when each event of its answer came, and what the last one says."""

    start: float
    times: list[float]
    last: dict[str, Any]

    @property
    def first(self) -> float:
        """Seconds to the first event."""
        return self.times[0] - self.start

    @property
    def gaps(self) -> list[float]:
        """Seconds between an event and the next."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def request(port: int, path: str, body: Mapping[str, Any], connection: str = "keep-alive") -> bytes:
    """A whole request as it is sent."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: {connection}\r\n\r\n"
    )
    return head.encode() + data


@contextlib.contextmanager
def serving(*command: str, path: Path | None = None) -> Iterator[Server]:
    """Run `command`, which takes a `--port`, once it answers; with `path` among those that Python imports from."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
        try:
            server = Server(port, psutil.Process(process.pid))
            if not listens(server, process):
                log.seek(0)
                sys.exit(f"{command[0]} does not listen: {log.read()[-2000:].decode(errors='replace')}")
            yield server
        finally:
            process.kill()
            process.wait()


def listens(server: Server, process: subprocess.Popen[bytes]) -> bool:
    """Whether it answers, before it ends or patience does."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError):
            server.ask("/health")
            return True
        time.sleep(0.1)
    return False
