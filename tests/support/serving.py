"""`codellm serve` in a process of its own, and requests to it that no client library would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int, key: str | None, log: list[str]) -> None:
        self.process, self.port, self.key, self.log = process, port, key, log
        self.url = f"http://127.0.0.1:{port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body: object = None, method: str | None = None, **headers: str) -> Answer:
        """Send JSON, or bytes as they are, and read the whole answer."""
        connection = self.connect()
        with contextlib.closing(connection):
            send(connection, path, body, method, {**self._bearer(), **headers})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    @contextlib.contextmanager
    def streaming(self, path: str, body: dict[str, Any]) -> Iterator[Iterator[Any]]:
        """The events of a stream as they come; leaving the block hangs up."""
        connection = self.connect()
        with contextlib.closing(connection):
            send(connection, path, {**body, "stream": True}, None, self._bearer())
            response = connection.getresponse()
            assert response.status == 200, response.read()
            with contextlib.closing(response):
                yield events(response)

    def raw(self, data: bytes) -> bytes:
        """Send bytes, say that no more come, and read what is answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer

    def stop(self, number: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def _bearer(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


class Answer:
    """A status, headers, and a body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        [name] = self.json
        assert name == "error"
        assert set(self.json[name]) == {"message", "type", "code", "param"}
        return self.json[name]


def send(
    connection: http.client.HTTPConnection, path: str, body: object, method: str | None, headers: dict[str, str]
) -> None:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method or ("GET" if body is None else "POST"), path, data, headers)


def events(response: http.client.HTTPResponse) -> Iterator[Any]:
    """The objects of server-sent events; `[DONE]` comes as text, and nothing after it."""
    for line in response:
        if line.strip():
            data = line.decode().removeprefix("data: ").rstrip("\n")
            yield data if data == "[DONE]" else json.loads(data)


@contextlib.contextmanager
def serving(*arguments: str, key: str | None = None) -> Iterator[Served]:
    """A server of codellm-demo with one thread, once it listens."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **({} if key is None else {"CODELLM_API_KEY": key})}
    command = [sys.executable, "-m", "codellm", "serve", "--port", "0", "--threads", "1", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        log: list[str] = []
        try:
            found = None
            while found is None:
                line = process.stderr.readline()
                assert line, f"the server ended: {log}"
                log.append(line)
                found = re.search(r"at http://127\.0\.0\.1:(\d+) ", line)
            reader = threading.Thread(target=log.extend, args=[process.stderr], daemon=True)
            reader.start()
            yield Served(process, int(found[1]), key, log)
        finally:
            process.kill()
            process.wait()
